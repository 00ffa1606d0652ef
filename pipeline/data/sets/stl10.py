"""STL-10: 96x96 colour images, few of them with labels (A. Coates, H. Lee, A. Ng 2011)."""

from pathlib import Path

import torch
from torch import Tensor

from pipeline.data import DataError, Request, Source, data_set
from pipeline.data.files import check_md5, require_files

FOLDER, SIDE = "stl10_binary", 96
NAMES = ("airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck")


def check(request: Request) -> None:
    """Raise DataError unless the files of labelled images are there."""
    require_files(request.root, FOLDER, _published())


@data_set(classes=NAMES, needs_root=True, torchvision="STL10", check=check)
def stl10(request: Request) -> Source:
    """5,000 training and 8,000 test images (3, 96, 96) of ten classes under `<root>/stl10_binary`."""
    return Source.of_tensors(_read(request.root, "train"), _read(request.root, "test"))


def _published() -> dict[str, str]:
    """File name -> MD5."""
    from torchvision.datasets import STL10

    listed = dict([*STL10.train_list, *STL10.test_list])
    return {name: listed[name] for name in ("train_X.bin", "train_y.bin", "test_X.bin", "test_y.bin")}


def _read(root: Path, split: str) -> tuple[Tensor, Tensor]:
    contents = []
    for name in (f"{split}_X.bin", f"{split}_y.bin"):
        path = root / FOLDER / name
        content = path.read_bytes()
        check_md5(path, content, _published()[name])
        contents.append(torch.frombuffer(bytearray(content), dtype=torch.uint8))
    images, labels = contents
    if len(images) != len(labels) * 3 * SIDE**2 or not 1 <= int(labels.min()) <= int(labels.max()) <= len(NAMES):
        raise DataError(f"{root / FOLDER}: {split}_X.bin and {split}_y.bin do not hold images with labels 1..10.")
    # Columns of pixels follow one another, not rows.
    return images.view(-1, 3, SIDE, SIDE).transpose(2, 3).contiguous(), labels.long() - 1
