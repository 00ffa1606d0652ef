"""SVHN: digits of house numbers, cropped to 32x32 (Y. Netzer and others 2011)."""

import io
from pathlib import Path

import torch
from torch import Tensor

from pipeline.data import DataError, Request, Source, data_set
from pipeline.data.files import check_md5, require_files


def check(request: Request) -> None:
    """Raise DataError unless both files are there."""
    require_files(request.root, "", (name for name, _ in _published().values()))


@data_set(
    classes=tuple("0123456789"),
    needs_root=True,
    torchvision="SVHN",
    check=check,
    downloads=({"split": "train"}, {"split": "test"}),
)
def svhn(request: Request) -> Source:
    """73,257 training and 26,032 test images (3, 32, 32): `train_32x32.mat` and `test_32x32.mat` right in the root.

    The third file, of easier images, is not read. Class k is the digit k: the files call a nought 10.
    """
    train, test = (_read(request.root / name, md5) for name, md5 in _published().values())
    return Source.of_tensors(train, test)


def _published() -> dict[str, tuple[str, str]]:
    """Split -> file name and MD5."""
    from torchvision.datasets import SVHN

    return {split: tuple(SVHN.split_list[split][1:]) for split in ("train", "test")}


def _read(path: Path, md5: str) -> tuple[Tensor, Tensor]:
    from scipy.io import loadmat

    content = path.read_bytes()
    check_md5(path, content, md5)
    found = loadmat(io.BytesIO(content))
    images, labels = torch.from_numpy(found["X"]), torch.from_numpy(found["y"]).flatten().long() % 10
    if images.shape[:3] != (32, 32, 3) or images.shape[3] != len(labels):
        raise DataError(f"{path} holds images {tuple(images.shape)} and {len(labels)} labels: not such a file.")
    return images.permute(3, 2, 0, 1).contiguous(), labels
