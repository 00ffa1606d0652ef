"""Folders of images, one per class: which folder holds which split, and the files in them."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from pipeline.data.images import DataError

TEST_FOLDERS = ("test", "val")


def training_folder(root: Path) -> Path:
    """Where the class folders of the training split are: `root/train`, or `root` itself."""
    # A folder `train` without folders in it is a class (of photographs of trains).
    return root / "train" if (root / "train").is_dir() and subfolders(root / "train") else root


def test_folder(root: Path) -> Path | None:
    """Where those of the test split are, None if there is none of its own."""
    if training_folder(root) == root:
        return None
    return next((root / name for name in TEST_FOLDERS if (root / name).is_dir()), None)


def subfolders(folder: Path) -> tuple[str, ...]:
    """Names of the folders right in a folder, in alphabetical order, without hidden ones."""
    return tuple(sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith(".")))


def list_files(folder: Path, names: Sequence[str]) -> tuple[list[Path], Tensor]:
    """The image files in the class folders, and their labels (N,) int64; DataError for a class without any."""
    from torchvision.datasets.folder import IMG_EXTENSIONS, make_dataset

    class_to_index = {name: index for index, name in enumerate(names)}
    samples = make_dataset(str(folder), class_to_index, extensions=IMG_EXTENSIONS, allow_empty=True)
    labels = torch.tensor([label for _, label in samples], dtype=torch.int64)
    for index in set(range(len(names))) - set(labels.tolist()):
        raise DataError(
            f"{folder / names[index]} holds no image; allowed file names end in {', '.join(IMG_EXTENSIONS)}."
        )
    return [Path(path) for path, _ in samples], labels
