"""EMNIST: handwritten letters and digits in MNIST's format (G. Cohen and others 2017)."""

import gzip
import zipfile
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from pipeline.data import DataError, Request, Source, data_set
from pipeline.data.files import check_md5_of_file, require_files
from pipeline.data.idx import IMAGE_MAGIC, LABEL_MAGIC, parse_idx
from pipeline.runtime.settings import knob

FOLDER, ARCHIVE = "EMNIST/raw", "gzip.zip"
PARTS = ("balanced", "byclass", "bymerge", "letters", "digits", "mnist")


@dataclass(frozen=True)
class Settings:
    """Of EMNIST."""

    part: str = knob("balanced", "which of its six data sets", choices=PARTS)


def class_names(request: Request) -> tuple[str, ...]:
    """As torchvision has them, without the class of letters that has no image."""
    from torchvision.datasets import EMNIST

    return tuple(name for name in EMNIST.classes_split_dict[request.settings.part] if name != "N/A")


def check(request: Request) -> None:
    """Raise DataError unless the archive is there."""
    require_files(request.root, FOLDER, [ARCHIVE])


@data_set(
    classes=class_names,
    needs_root=True,
    torchvision="EMNIST",
    check=check,
    settings=Settings,
    downloads=({"split": "balanced"},),
)
def emnist(request: Request) -> Source:
    """Images (1, 28, 28), upright, from `<root>/EMNIST/raw/gzip.zip`, which holds all six parts.

    The archive is what has a published MD5, so it is read, not what torchvision unpacks from it. Its images lie on
    their side (rows and columns exchanged), and torchvision leaves them so.
    """
    from torchvision.datasets import EMNIST

    path = request.root / FOLDER / ARCHIVE
    check_md5_of_file(path, EMNIST.md5)
    names = class_names(request)
    with zipfile.ZipFile(path) as archive:
        train, test = (_read(archive, path, request.settings.part, split, len(names)) for split in ("train", "test"))
    return Source.of_tensors(train, test)


def _read(archive: zipfile.ZipFile, path: Path, part: str, split: str, num_classes: int) -> tuple[Tensor, Tensor]:
    contents = []
    for kind, magic in (("images-idx3", IMAGE_MAGIC), ("labels-idx1", LABEL_MAGIC)):
        name = f"gzip/emnist-{part}-{split}-{kind}-ubyte.gz"
        contents.append(parse_idx(path / name, gzip.decompress(archive.read(name)), magic))
    images, labels = contents[0].unsqueeze(1).transpose(2, 3).contiguous(), contents[1].to(torch.int64)
    labels = labels - 1 if part == "letters" else labels  # a is 1
    if len(images) != len(labels) or labels.min() < 0 or labels.max() >= num_classes:
        raise DataError(f"{path}: the images and labels of {part} ({split}) do not belong together.")
    return images, labels
