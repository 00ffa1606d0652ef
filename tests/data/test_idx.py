"""MNIST's format: a small set of our own making, with every kind of damage."""

import hashlib
import struct

import pytest
import torch

from pipeline.data import DataError, Request
from pipeline.data.idx import IdxFiles

LABELS = bytes([0, 1, 2, 1, 0])
PIXELS = bytes(range(5 * 2 * 3))
FILES = {
    f"{split}-{kind}": content
    for split in ("train", "t10k")
    for kind, content in {
        "images-idx3-ubyte": struct.pack(">4i", 2051, 5, 2, 3) + PIXELS,
        "labels-idx1-ubyte": struct.pack(">2i", 2049, 5) + LABELS,
    }.items()
}
SMALL = IdxFiles("MNIST/raw", 3, {name: hashlib.md5(content).hexdigest() for name, content in FILES.items()})


@pytest.fixture
def small_root(tmp_path):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name, content in FILES.items():
        (raw / name).write_bytes(content)
    return tmp_path


def test_sound_files_give_their_pixels_and_labels(small_root):
    source = SMALL.open(Request(root=small_root))
    images, _ = source.read(torch.tensor([1, 4]), torch.tensor([0]))
    assert images.tolist() == [[[[6, 7, 8], [9, 10, 11]]], [[[24, 25, 26], [27, 28, 29]]]]
    assert source.train_labels.tolist() == list(LABELS) and source.train_labels.dtype == torch.int64


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("train-images-idx3-ubyte", FILES["train-images-idx3-ubyte"][:-1], r"has 45 bytes, but .* announces 46"),
        ("train-images-idx3-ubyte", FILES["train-images-idx3-ubyte"] + b"x", r"has 47 bytes"),
        ("t10k-images-idx3-ubyte", b"\0\0", r"has 2 bytes, too few for its 16-byte header"),
        ("t10k-labels-idx1-ubyte", b"", r"has 0 bytes, too few for its 8-byte header"),
        ("train-labels-idx1-ubyte", struct.pack(">2i", 2049, 0), r"is empty"),
        ("train-labels-idx1-ubyte", struct.pack(">2i", 2051, 5) + LABELS, r"magic number 2051, it should be 2049"),
        ("train-labels-idx1-ubyte", struct.pack(">2i", 2049, 5) + bytes([0, 1, 2, 3, 0]), r"label 3; allowed: 0\.\.2"),
        ("train-labels-idx1-ubyte", struct.pack(">2i", 2049, 4) + LABELS[:4], r"5 images but .* 4 labels"),
        ("t10k-labels-idx1-ubyte", struct.pack(">2i", 2049, 5) + bytes([1, 1, 2, 1, 0]), r"MD5"),
    ],
)
def test_a_damaged_file_is_named_with_what_is_wrong(small_root, file, content, message):
    (small_root / "MNIST" / "raw" / file).write_bytes(content)
    with pytest.raises(DataError, match=message) as error:
        SMALL.open(Request(root=small_root))
    assert file in str(error.value) and "\n" not in str(error.value)
