"""Bring your own images: one folder per class, as torchvision's ImageFolder reads it."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from pipeline.data.images import DataError
from pipeline.data.selection import split_off_test
from pipeline.data.source import Source

TEST_FOLDERS = ("test", "val")
GREY_MODES = ("1", "L", "LA", "I;16")


class ImageFolder:
    """`<root>/train/<class>/*` with `<root>/test|val/<class>/*`, or `<root>/<class>/*` with a test split set aside.

    Classes are the folder names in alphabetical order; folders whose name starts with a dot are not looked at. Images
    are grey (C = 1) when every chosen file is stored as grey, colour (C = 3) otherwise. `image_size` scales the
    shorter side to that length and crops the middle square; without it all files must have one size.
    """

    needs_root = True
    torchvision_name = None

    def class_names(self, root: Path) -> tuple[str, ...]:
        return _subfolders(_training_folder(root))

    def check(self, root: Path) -> None:
        names, test = self.class_names(root), _test_folder(root)
        if not names:
            raise DataError(
                f"data.root={root} has no class folders; allowed: <root>/<class>/* or <root>/train/<class>/*."
            )
        if test is not None and (unpaired := sorted(set(_subfolders(test)) ^ set(names))):
            raise DataError(
                f"data.root={root} has class folders in only one of train and {test.name}: {', '.join(unpaired)}; "
                "allowed: the same in both."
            )

    def open(self, root: Path, test_fraction: float, image_size: int | None) -> Source:
        names, test_folder = self.class_names(root), _test_folder(root)
        train_paths, train_labels = _list_files(_training_folder(root), names)
        if test_folder is not None:
            test_paths, test_labels = _list_files(test_folder, names)
        else:
            paths, labels = train_paths, train_labels
            train, test = split_off_test(labels, names, test_fraction)
            train_paths, train_labels = [paths[row] for row in train], labels[train]
            test_paths, test_labels = [paths[row] for row in test], labels[test]

        def read(train_rows: Tensor, test_rows: Tensor) -> tuple[Tensor, Tensor]:
            chosen = [train_paths[row] for row in train_rows] + [test_paths[row] for row in test_rows]
            images = read_images(chosen, image_size)
            return images[: len(train_rows)], images[len(train_rows) :]

        return Source(train_labels, test_labels, read)


def _training_folder(root: Path) -> Path:
    # A folder `train` without folders in it is a class (of photographs of trains).
    return root / "train" if (root / "train").is_dir() and _subfolders(root / "train") else root


def _test_folder(root: Path) -> Path | None:
    if _training_folder(root) == root:
        return None
    return next((root / name for name in TEST_FOLDERS if (root / name).is_dir()), None)


def _subfolders(folder: Path) -> tuple[str, ...]:
    return tuple(sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith(".")))


def _list_files(folder: Path, names: Sequence[str]) -> tuple[list[Path], Tensor]:
    from torchvision.datasets.folder import IMG_EXTENSIONS, make_dataset

    class_to_index = {name: index for index, name in enumerate(names)}
    samples = make_dataset(str(folder), class_to_index, extensions=IMG_EXTENSIONS, allow_empty=True)
    labels = torch.tensor([label for _, label in samples], dtype=torch.int64)
    for index in set(range(len(names))) - set(labels.tolist()):
        raise DataError(
            f"{folder / names[index]} holds no image; allowed file names end in {', '.join(IMG_EXTENSIONS)}."
        )
    return [Path(path) for path, _ in samples], labels


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
