"""KMNIST: packed files of our own making, whose sums are told in place of the published ones."""

import gzip
import hashlib
import struct

import pytest
import torch
from torchvision.datasets import KMNIST

from pipeline.data import DataError, load_images, validate_request

PIXELS = bytes(range(3 * 4 * 5))


@pytest.fixture
def root(tmp_path, monkeypatch):
    raw = tmp_path / "KMNIST" / "raw"
    raw.mkdir(parents=True)
    sums = []
    for split in ("train", "t10k"):
        for name, content in (
            (f"{split}-images-idx3-ubyte.gz", struct.pack(">4i", 2051, 3, 4, 5) + PIXELS),
            (f"{split}-labels-idx1-ubyte.gz", struct.pack(">2i", 2049, 3) + bytes([1, 0, 9])),
        ):
            (raw / name).write_bytes(gzip.compress(content, mtime=0))
            sums.append((name, hashlib.md5((raw / name).read_bytes()).hexdigest()))
    monkeypatch.setattr(KMNIST, "resources", sums)
    return tmp_path


def test_the_packed_files_are_read(root):
    data = load_images("kmnist", root=root, classes=["ki", "o"])
    assert data.train.labels.tolist() == [0, 1] and data.image_shape == (1, 4, 5)
    assert torch.equal(data.train.images.flatten(), torch.arange(40, dtype=torch.uint8))


def test_a_damaged_or_missing_file_is_named(root):
    path = root / "KMNIST" / "raw" / "t10k-labels-idx1-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"t10k-labels-idx1-ubyte\.gz is not the published file: its MD5"):
        load_images("kmnist", root=root)
    path.unlink()
    with pytest.raises(DataError, match=r"the file KMNIST/raw/t10k-labels-idx1-ubyte\.gz is missing"):
        validate_request("kmnist", root=root)
