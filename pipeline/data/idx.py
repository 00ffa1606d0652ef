"""MNIST and Fashion-MNIST from their uncompressed IDX files, every byte of them checked.

torchvision verifies the archives it downloads but not the unpacked files it reads afterwards. So the files are read
here, once: what was checked is what is used.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from pipeline.data.files import check_md5, require_files
from pipeline.data.images import DataError
from pipeline.data.source import Source

# The big-endian magic number spells "unsigned byte" (0x08) and the number of dimensions.
IMAGE_MAGIC, LABEL_MAGIC = 0x0803, 0x0801


@dataclass(frozen=True)
class IdxImages:
    """60,000 training and 10,000 test images (1, 28, 28) in four IDX files under `<root>/<torchvision_name>/raw`.

    torchvision_name: torchvision's class, and the folder it uses.
    checksums: MD5 of the uncompressed files, by file name.
    """

    torchvision_name: str
    names: tuple[str, ...]
    checksums: Mapping[str, str]
    needs_root = True

    def class_names(self, root: Path | None) -> tuple[str, ...]:
        return self.names

    def check(self, root: Path) -> None:
        require_files(root, f"{self.torchvision_name}/raw", self.checksums)

    def open(self, root: Path, test_fraction: float, image_size: int | None) -> Source:
        return Source.of_tensors(self._read_split(root, "train"), self._read_split(root, "t10k"))

    def _read_split(self, root: Path, split: str) -> tuple[Tensor, Tensor]:
        raw = root / self.torchvision_name / "raw"
        image_path, label_path = raw / f"{split}-images-idx3-ubyte", raw / f"{split}-labels-idx1-ubyte"
        image_bytes, label_bytes = image_path.read_bytes(), label_path.read_bytes()
        images = parse_idx(image_path, image_bytes, IMAGE_MAGIC)
        labels = parse_idx(label_path, label_bytes, LABEL_MAGIC)
        if labels.max() >= len(self.names):
            raise DataError(f"{label_path} holds the label {labels.max()}; allowed: 0..{len(self.names) - 1}.")
        if len(images) != len(labels):
            raise DataError(f"{image_path} holds {len(images)} images but {label_path.name} {len(labels)} labels.")
        check_md5(image_path, image_bytes, self.checksums[image_path.name])
        check_md5(label_path, label_bytes, self.checksums[label_path.name])
        return images.unsqueeze(1), labels.to(torch.int64)


def parse_idx(path: Path, content: bytes, magic: int) -> Tensor:
    """The uint8 tensor in the bytes of an IDX file (Y. LeCun's format).

    Layout: a magic number whose last byte counts the dimensions, the dimensions, then the values; every number
    big-endian in four bytes. Raises DataError naming `path` for a wrong magic number, an empty or an odd-sized file.
    """
    num_dims = magic & 0xFF
    header = [int.from_bytes(content[4 * i : 4 * i + 4], "big") for i in range(1 + num_dims)]
    header_size = 4 * len(header)
    if len(content) < header_size:
        raise DataError(f"{path} has {len(content)} bytes, too few for its {header_size}-byte header: it is truncated.")
    if header[0] != magic:
        raise DataError(f"{path} starts with the magic number {header[0]}, it should be {magic}: not such an IDX file.")
    expected = header_size + math.prod(header[1:])
    if len(content) != expected:
        raise DataError(f"{path} has {len(content)} bytes, but its header {tuple(header[1:])} announces {expected}.")
    if expected == header_size:
        raise DataError(f"{path} is empty: its header announces {tuple(header[1:])}.")
    # bytearray: a tensor must be able to write to its memory.
    return torch.frombuffer(bytearray(content), dtype=torch.uint8, offset=header_size).view(header[1:])


MNIST = IdxImages(
    torchvision_name="MNIST",
    names=tuple("0123456789"),
    checksums={
        "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
        "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
        "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
        "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
    },
)

# These MD5s are of the content of the archives whose own MD5s torchvision lists.
FASHION_MNIST = IdxImages(
    torchvision_name="FashionMNIST",
    names=(
        *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
        *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    ),
    checksums={
        "train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
        "train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
        "t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
        "t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
    },
)
