"""Image files as one tensor: grey where all are grey, scaled and cropped where that is asked for."""

import io
import logging
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pipeline.data.images import DataError
from pipeline.data.names import shown
from pipeline.data.pixels import Picture, Unreadable, decode, read_picture

log = logging.getLogger(__name__)
DEPTHS = (8, 10, 12, 14, 16)
"""How many bits of a 16-bit grey level cameras and scanners use."""


@dataclass(frozen=True)
class Encoded:
    """The bytes of an image file that lies within another file, and what to call it."""

    name: str
    content: bytes

    def __str__(self) -> str:
        return self.name


def read_images(paths: Sequence[Path | Encoded], image_size: int | None) -> Tensor:
    """Decode files into one uint8 tensor (N, C, H, W), C = 1 when all are grey and 3 otherwise.

    Grey levels of 16 bits are cut to eight in the same way in all files: by the fewest of `DEPTHS` that hold the
    largest value in any of them. What was done to some files only is logged.

    Raises DataError listing the files that cannot be read, or naming two files of different sizes when no
    `image_size` is given.
    """
    with ThreadPoolExecutor() as pool:  # Pillow decodes outside the interpreter lock.
        pictures = list(pool.map(lambda path: _attempt(path, image_size, 16), paths))
        bad = [f"{shown(str(path))} ({why})" for path, why in zip(paths, pictures, strict=True) if isinstance(why, str)]
        if bad:
            more = f" and {len(bad) - 10} more" if len(bad) > 10 else ""
            raise DataError(f"data.root has {len(bad)} image file(s) that cannot be read: {', '.join(bad[:10])}{more}.")
        deep = [row for row, picture in enumerate(pictures) if picture.deepest is not None]
        bits = _depth(max((pictures[row].deepest for row in deep), default=2**16 - 1))
        if bits < 16:
            again = pool.map(lambda row: _read(paths[row], image_size, bits), deep)
            for row, picture in zip(deep, again, strict=True):
                pictures[row] = picture
    _tell(pictures, len(deep), bits)
    return _together(paths, [picture.pixels for picture in pictures])


def _read(path: Path | Encoded, image_size: int | None, bits: int) -> Picture:
    if isinstance(path, Encoded):
        return decode(io.BytesIO(path.content), image_size, bits)
    return read_picture(path, image_size, bits)


def _attempt(path: Path | Encoded, image_size: int | None, bits: int) -> Picture | str:
    """The picture, or the reason why there is none."""
    try:
        return _read(path, image_size, bits)
    except Unreadable as error:
        return str(error)


def _depth(largest: int) -> int:
    return next(bits for bits in DEPTHS if largest < 2**bits)


def _tell(pictures: Sequence[Picture], num_deep: int, bits: int) -> None:
    done = Counter(note for picture in pictures for note in picture.notes)
    parts = [f"{count} {note}" for note, count in done.items()]
    if num_deep:
        parts.append(f"{num_deep} of 16-bit grey, of which {bits} bits are in use: the upper 8 of these are kept")
    if parts:
        log.info("data.root: of %d image files, %s", len(pictures), "; ".join(parts))


def _together(paths: Sequence[Path | Encoded], decoded: Sequence[np.ndarray]) -> Tensor:
    height, width = decoded[0].shape[1:]
    for path, image in zip(paths, decoded, strict=True):
        if image.shape[1:] != (height, width):
            raise DataError(
                f"data.image_size=null, but {shown(str(paths[0]))} is {width}x{height} and {shown(str(path))} is "
                f"{image.shape[2]}x{image.shape[1]} pixels; allowed: a number of pixels to resize them all to."
            )
    channels = max(len(image) for image in decoded)
    return torch.from_numpy(np.stack([np.broadcast_to(image, (channels, height, width)) for image in decoded]))
