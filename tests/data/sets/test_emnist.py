"""EMNIST: an archive of our own making, whose sum is told in place of the published one."""

import gzip
import hashlib
import struct
import zipfile

import pytest
import torch
from torchvision.datasets import EMNIST

from pipeline.data import DataError, class_names, load_images, validate_request


@pytest.fixture
def root(tmp_path, monkeypatch):
    raw = tmp_path / "EMNIST" / "raw"
    raw.mkdir(parents=True)
    with zipfile.ZipFile(raw / "gzip.zip", "w") as archive:
        for part, labels in (("balanced", [46, 0, 10]), ("letters", [26, 1, 2])):
            for split in ("train", "test"):
                images = struct.pack(">4i", 2051, 3, 2, 3) + bytes(range(18))
                for name, content in (
                    ("images-idx3", images),
                    ("labels-idx1", struct.pack(">2i", 2049, 3) + bytes(labels)),
                ):
                    archive.writestr(f"gzip/emnist-{part}-{split}-{name}-ubyte.gz", gzip.compress(content))
    monkeypatch.setattr(EMNIST, "md5", hashlib.md5((raw / "gzip.zip").read_bytes()).hexdigest())
    return tmp_path


def test_classes_are_those_of_the_part_that_is_asked_for(root):
    assert len(class_names("emnist", root)) == 47 and class_names("emnist", root)[-1] == "t"
    assert class_names("emnist", root, part="letters") == tuple("abcdefghijklmnopqrstuvwxyz")
    assert len(class_names("emnist", root, part="byclass")) == 62


def test_images_are_turned_upright_and_letters_begin_with_a(root):
    data = load_images("emnist", root=root, classes=["0", "A", "t"])
    assert data.train.labels.tolist() == [2, 0, 1] and data.image_shape == (1, 3, 2)
    assert torch.equal(data.train.images[0, 0], torch.arange(6, dtype=torch.uint8).view(2, 3).T)
    letters = load_images("emnist", root=root, part="letters", classes=["a", "b", "z"])
    assert letters.train.labels.tolist() == [2, 0, 1]


def test_a_damaged_or_missing_archive_and_an_unknown_part_are_refused(root):
    with pytest.raises(DataError, match=r"data\.part=digit is not known; allowed: balanced"):
        validate_request("emnist", root=root, part="digit")
    path = root / "EMNIST" / "raw" / "gzip.zip"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"gzip\.zip is not the published file: its MD5"):
        load_images("emnist", root=root)
    path.unlink()
    with pytest.raises(DataError, match=r"the file EMNIST/raw/gzip\.zip is missing"):
        validate_request("emnist", root=root)
