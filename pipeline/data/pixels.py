"""The pixels of one image file as uint8: upright, the first frame, on white ground."""

from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

GREY_MODES = ("1", "L", "LA", "La")
WHITE = 255
"""The ground that transparent pixels are laid on."""
TURNED, FRAMES, GROUND = (
    "turned upright as their EXIF data say",
    "with several frames (the first is read)",
    "laid on white",
)
BLANK = "of one colour once laid on white"
INKS = "converted from CMYK without a colour profile"


class Unreadable(ValueError):
    """A file that gives no image, and why."""


@dataclass(frozen=True, eq=False)
class Picture:
    """An image as it is read.

    pixels: uint8 (C, H, W).
    deepest: its largest value where pixels have 16 bits, else None.
    notes: what was done to it, in words.
    """

    pixels: np.ndarray
    deepest: int | None = None
    notes: tuple[str, ...] = ()


def read_picture(path: Path, image_size: int | None, bits: int = 16) -> Picture:
    """Decode a file, as `decode` does."""
    if not path.is_file():
        raise Unreadable("it is no file")  # but a pipe, say, which would be waited for
    try:
        file = path.open("rb")
    except OSError as error:
        raise Unreadable(str(error).replace(f" {str(path)!r}", "").rstrip(".")) from error
    with file:
        return decode(file, image_size, bits, str(path))


def may_be_grey(path: Path) -> bool:
    """Whether a file's head says that its image is grey, or nothing at all, because it cannot be read."""
    if not path.is_file():
        return True
    try:
        with Image.open(path) as image:
            return image.mode in GREY_MODES or image.mode.startswith("I")
    except Exception:  # as of `decode`, which says so
        return True


def decode(file: BinaryIO, image_size: int | None, bits: int = 16, name: str = "") -> Picture:
    """Decode an open file; `image_size` scales the shorter side to that length and crops the middle square.

    Args:
        bits: how many bits of a 16-bit grey level are in use; the upper eight of these are kept.
        name: of the file, which Pillow repeats in some of its reasons.

    Raises:
        Unreadable: no image comes out of the file.
    """
    try:
        # By an open file, because Pillow (13) maps uncompressed TIFFs into memory by their name, and mixes up the
        # pixels of those that lie on their side.
        with Image.open(file) as image:
            frames = getattr(image, "n_frames", 1)  # before anything is loaded: looking for them, a TIFF forgets it
            image.load()
            return _picture(image, [FRAMES] if frames > 1 else [], image_size, bits)
    except Unreadable:
        raise
    except UnidentifiedImageError as error:
        raise Unreadable("cannot identify image file") from error
    except Exception as error:  # Pillow's readers raise whatever comes up in a broken file, and for one too large.
        reason = str(error).replace(f" {name!r}", "").rstrip(".")
        raise Unreadable(reason or type(error).__name__) from error


def _picture(image: Image.Image, notes: list[str], image_size: int | None, bits: int) -> Picture:
    turn = _orientation(image)
    notes += [] if turn is None else [TURNED]
    deepest = None
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM"):  # Pillow scales those to 16 bits
        deep = np.asarray(image)
        deepest = int(deep.max(initial=0))
        flat, masked = _shallow(image, deep, bits)
        notes += [GROUND] if masked else []
    elif image.mode in ("I", "F"):
        raise Unreadable(f"pixels of type {image.mode} have no fixed range")
    else:
        notes += [INKS] if image.mode == "CMYK" else []
        flat, laid = _opaque(image)
        notes += laid
    if turn is not None:
        flat = flat.transpose(turn)
    if image_size is not None:
        flat = ImageOps.fit(flat, (image_size, image_size), Image.Resampling.BILINEAR)
    pixels = np.asarray(flat)
    return Picture(pixels.reshape(*pixels.shape[:2], -1).transpose(2, 0, 1), deepest, tuple(notes))


TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What makes an image upright, by the number that EXIF gives its orientation."""


def _orientation(image: Image.Image) -> Image.Transpose | None:
    """How to turn a loaded image; of a TIFF, Pillow has done it while loading."""
    try:
        return TURNS.get(image.getexif().get(ExifTags.Base.Orientation))
    except Exception:  # a block of EXIF data that is broken says nothing
        return None


def _shallow(image: Image.Image, deep: np.ndarray, bits: int) -> tuple[Image.Image, bool]:
    """The upper eight of the lower `bits` bits of each grey level, and whether transparent ones were laid on white."""
    levels = (deep >> (bits - 8)).astype(np.uint8)
    if image.format == "TIFF" and image.tag_v2.get(262) == 0:  # white is zero, which Pillow heeds in 8 bits only
        levels = WHITE - levels
    key = image.info.get("transparency")
    masked = isinstance(key, int) and bool((deep == key).any())
    if masked:
        levels[deep == key] = WHITE
    return Image.fromarray(levels), masked


def _opaque(image: Image.Image) -> tuple[Image.Image, list[str]]:
    """Grey or RGB, laid on white where it is transparent, and notes of that."""
    plain, see_through = ("L", "LA") if image.mode in GREY_MODES else ("RGB", "RGBA")
    if not image.has_transparency_data:
        return image.convert(plain), []
    layered = image.convert(see_through)
    alpha = layered.getchannel("A")
    flat = layered.convert(plain)
    if alpha.getextrema()[0] == 255:
        return flat, []
    flat = Image.composite(flat, Image.new(plain, flat.size, "white"), alpha)
    blank = all(low == high for low, high in (band.getextrema() for band in flat.split()))
    return flat, [GROUND, BLANK] if blank else [GROUND]
