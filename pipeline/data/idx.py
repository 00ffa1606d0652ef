"""MNIST's format: IDX files, every byte of them checked.

torchvision verifies the archives it downloads but not the unpacked files it reads afterwards. So the files are read
here, once: what was checked is what is used.
"""

import gzip
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from pipeline.data.files import check_md5, require_files
from pipeline.data.images import DataError
from pipeline.data.registry import Request, Source

# The big-endian magic number spells "unsigned byte" (0x08) and the number of dimensions.
IMAGE_MAGIC, LABEL_MAGIC = 0x0803, 0x0801


@dataclass(frozen=True)
class IdxFiles:
    """The four files of a data set in MNIST's format: grey images (1, H, W) and labels, of both splits.

    folder: where they are, below the root.
    num_classes: labels are below it.
    checksums: MD5 of the files, by file name.
    packed: whether these are the compressed ones (.gz), which are then read.
    """

    folder: str
    num_classes: int
    checksums: Mapping[str, str]
    packed: bool = False

    def check(self, request: Request) -> None:
        """Raise DataError unless all four files are there."""
        require_files(request.root, self.folder, self.checksums)

    def open(self, request: Request) -> Source:
        """Read and verify them; DataError names a damaged file."""
        return Source.of_tensors(self._read_split(request.root, "train"), self._read_split(request.root, "t10k"))

    def _read_split(self, root: Path, split: str) -> tuple[Tensor, Tensor]:
        raw = root / self.folder
        image_path, label_path = raw / f"{split}-images-idx3-ubyte", raw / f"{split}-labels-idx1-ubyte"
        image_bytes, label_bytes = self._content(image_path), self._content(label_path)
        images = parse_idx(image_path, image_bytes, IMAGE_MAGIC)
        labels = parse_idx(label_path, label_bytes, LABEL_MAGIC)
        if labels.max() >= self.num_classes:
            raise DataError(f"{label_path} holds the label {labels.max()}; allowed: 0..{self.num_classes - 1}.")
        if len(images) != len(labels):
            raise DataError(f"{image_path} holds {len(images)} images but {label_path.name} {len(labels)} labels.")
        if not self.packed:
            check_md5(image_path, image_bytes, self.checksums[image_path.name])
            check_md5(label_path, label_bytes, self.checksums[label_path.name])
        return images.unsqueeze(1), labels.to(torch.int64)

    def _content(self, path: Path) -> bytes:
        """The bytes of a file; of a packed one, once they are checked, those within."""
        if not self.packed:
            return path.read_bytes()
        packed = path.with_name(f"{path.name}.gz")
        content = packed.read_bytes()
        check_md5(packed, content, self.checksums[packed.name])
        return gzip.decompress(content)


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
