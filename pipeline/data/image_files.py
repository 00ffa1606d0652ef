"""Image files as one tensor: grey where all are grey, scaled and cropped where that is asked for."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from pipeline.data.images import DataError

GREY_MODES = ("1", "L", "LA", "I;16")


def read_images(paths: Sequence[Path], image_size: int | None) -> Tensor:
    """Decode files into one uint8 tensor (N, C, H, W), C = 1 when all are grey and 3 otherwise.

    Raises DataError listing the files that cannot be read, or naming two files of different sizes when no
    `image_size` is given.
    """
    with ThreadPoolExecutor() as pool:  # Pillow decodes outside the interpreter lock.
        decoded = list(pool.map(lambda path: _decode(path, image_size), paths))
    bad = [f"{path} ({image})" for path, image in zip(paths, decoded, strict=True) if isinstance(image, str)]
    if bad:
        more = f" and {len(bad) - 10} more" if len(bad) > 10 else ""
        raise DataError(f"data.root has {len(bad)} image file(s) that cannot be read: {', '.join(bad[:10])}{more}.")
    channels, height, width = decoded[0].shape
    for path, image in zip(paths, decoded, strict=True):
        if image.shape[1:] != (height, width):
            raise DataError(
                f"data.image_size=null, but {paths[0]} is {width}x{height} and {path} is "
                f"{image.shape[2]}x{image.shape[1]} pixels; allowed: a number of pixels to resize them all to."
            )
    channels = max(len(image) for image in decoded)
    return torch.from_numpy(np.stack([np.broadcast_to(image, (channels, height, width)) for image in decoded]))


def _decode(path: Path, image_size: int | None) -> np.ndarray | str:
    """The image as uint8 (C, H, W), or the reason why there is none."""
    if not path.is_file():
        return "it is no file"  # but a pipe, say, which would be waited for
    try:
        with Image.open(path) as image:
            if image.mode == "I;16":  # 16-bit grey: keep the upper byte, where Pillow's own conversion would clip.
                image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
            elif image.mode in ("I", "F"):
                return f"pixels of type {image.mode} have no fixed range"
            elif image.mode in GREY_MODES:
                image = image.convert("L")
            else:  # By way of RGBA, because a palette may carry transparency.
                image = image.convert("RGBA").convert("RGB")
            if image_size is not None:
                image = ImageOps.fit(image, (image_size, image_size), Image.Resampling.BILINEAR)
            pixels = np.asarray(image)
    except (OSError, ValueError, SyntaxError) as error:  # What Pillow raises for unknown, truncated and broken files.
        return str(error).replace(f" {str(path)!r}", "")
    return pixels.reshape(*pixels.shape[:2], -1).transpose(2, 0, 1)
