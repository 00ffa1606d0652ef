"""Image files as one tensor: grey where all are grey, scaled and cropped where that is asked for."""

import io
import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pipeline.data.images import DataError
from pipeline.data.names import shown
from pipeline.data.pixels import Picture, Unreadable, decode, may_be_grey, read_picture

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
    pictures = read_pictures(paths, image_size)
    deep = [row for row, picture in enumerate(pictures) if picture.deepest is not None]
    bits = depth_of(pictures[row].deepest for row in deep)
    if bits < 16:
        again = read_pictures([paths[row] for row in deep], image_size, bits)
        for row, picture in zip(deep, again, strict=True):
            pictures[row] = picture
    tell(Counter(note for picture in pictures for note in picture.notes), len(pictures), len(deep), bits)
    return torch.from_numpy(together(paths, [picture.pixels for picture in pictures]))


def read_pictures(paths: Sequence[Path | Encoded], image_size: int | None, bits: int = 16) -> list[Picture]:
    """Decode files with all cores; DataError lists those that cannot be read."""
    with ThreadPoolExecutor() as pool:  # Pillow decodes outside the interpreter lock.
        pictures = list(pool.map(lambda path: _attempt(path, image_size, bits), paths))
    bad = [f"{shown(str(path))} ({why})" for path, why in zip(paths, pictures, strict=True) if isinstance(why, str)]
    if bad:
        more = f" and {len(bad) - 10} more" if len(bad) > 10 else ""
        raise DataError(f"data.root has {len(bad)} image file(s) that cannot be read: {', '.join(bad[:10])}{more}.")
    return pictures


def greys_only(paths: Sequence[Path]) -> bool:
    """Whether the heads of all files say that they are grey; one that cannot be read says nothing."""
    with ThreadPoolExecutor() as pool:
        return all(pool.map(may_be_grey, paths))


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


def depth_of(largest: Iterable[int]) -> int:
    """The fewest bits of `DEPTHS` that hold the largest values of all deep pictures; 16 without any."""
    most = max(largest, default=2**16 - 1)
    return next(bits for bits in DEPTHS if most < 2**bits)


def tell(done: Counter[str], count: int, num_deep: int, bits: int) -> None:
    """Log what was done to some of so many files."""
    parts = [f"{number} {note}" for note, number in done.items()]
    if num_deep:
        parts.append(f"{num_deep} of 16-bit grey, of which {bits} bits are in use: the upper 8 of these are kept")
    if parts:
        log.info("data.root: of %d image files, %s", count, "; ".join(parts))


def together(
    paths: Sequence[Path | Encoded],
    decoded: Sequence[np.ndarray],
    first: tuple[Path, tuple[int, ...]] | None = None,
) -> np.ndarray:
    """One array (N, C, H, W), C the most that any image has.

    Args:
        first: a file and its (C, H, W), whose size all are to have, and whose channels at the least; None takes the
            first of these.

    Raises DataError for images of different sizes.
    """
    model, (channels, height, width) = first or (paths[0], decoded[0].shape)
    for path, image in zip(paths, decoded, strict=True):
        if image.shape[1:] != (height, width):
            raise DataError(
                f"data.image_size=null, but {shown(str(model))} is {width}x{height} and {shown(str(path))} is "
                f"{image.shape[2]}x{image.shape[1]} pixels; allowed: a number of pixels to resize them all to."
            )
    channels = max(channels if first else 1, *(len(image) for image in decoded))
    return np.stack([np.broadcast_to(image, (channels, height, width)) for image in decoded])
