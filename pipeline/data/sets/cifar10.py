"""CIFAR-10 through torchvision, after a check that says which file is bad."""

from pathlib import Path

import torch
from torch import Tensor

from pipeline.data import Request, Source, data_set
from pipeline.data.files import check_md5, require_files

FOLDER = "cifar-10-batches-py"


def check(request: Request) -> None:
    """Raise DataError unless all files are there."""
    require_files(request.root, FOLDER, _published_checksums())


@data_set(
    classes=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    needs_root=True,
    torchvision="CIFAR10",
    check=check,
)
def cifar10(request: Request) -> Source:
    """50,000 training and 10,000 test images (3, 32, 32) under `<root>/cifar-10-batches-py`."""
    # torchvision checks the same sums, but only says "not found or corrupted"; it must never unpickle a bad file.
    for name, md5 in _published_checksums().items():
        path = request.root / FOLDER / name
        check_md5(path, path.read_bytes(), md5)
    return Source.of_tensors(_read_split(request.root, train=True), _read_split(request.root, train=False))


def _published_checksums() -> dict[str, str]:
    from torchvision.datasets import CIFAR10

    meta = CIFAR10.meta
    return {**dict(CIFAR10.train_list), **dict(CIFAR10.test_list), meta["filename"]: meta["md5"]}


def _read_split(root: Path, train: bool) -> tuple[Tensor, Tensor]:
    from torchvision.datasets import CIFAR10

    split = CIFAR10(root, train=train)
    return torch.from_numpy(split.data).permute(0, 3, 1, 2), torch.tensor(split.targets)
