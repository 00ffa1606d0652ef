"""House numbers: files of our own making, whose sums are told in place of the published ones."""

import hashlib
import io

import numpy as np
import pytest
import torch
from scipy.io import savemat
from torchvision.datasets import SVHN

from pipeline.data import DataError, load_images, validate_request


@pytest.fixture
def root(tmp_path, monkeypatch):
    listed = dict(SVHN.split_list)
    for split, labels in (("train", [1, 10, 10]), ("test", [10, 9, 1])):
        images = np.arange(3072 * 3, dtype=np.uint32).astype(np.uint8).reshape(3, 3, 32, 32)
        stream = io.BytesIO()
        savemat(stream, {"X": images.transpose(2, 3, 1, 0), "y": np.array(labels, dtype=np.uint8)[:, None]})
        (tmp_path / f"{split}_32x32.mat").write_bytes(stream.getvalue())
        listed[split] = ["", f"{split}_32x32.mat", hashlib.md5(stream.getvalue()).hexdigest()]
    monkeypatch.setattr(SVHN, "split_list", listed)
    return tmp_path


def test_images_are_those_of_torchvision_and_ten_is_nought(root):
    data = load_images("svhn", root=root, classes=[0, 1])
    assert data.train.labels.tolist() == [1, 0, 0] and data.test.labels.tolist() == [0, 1]
    theirs = SVHN(root, split="train")
    assert torch.equal(data.train.images, torch.from_numpy(theirs.data))
    assert theirs.labels.tolist() == [1, 0, 0]


def test_a_damaged_or_missing_file_is_named(root):
    path = root / "test_32x32.mat"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"test_32x32\.mat is not the published file: its MD5"):
        load_images("svhn", root=root)
    path.unlink()
    with pytest.raises(DataError, match=r"the file test_32x32\.mat is missing"):
        validate_request("svhn", root=root)


def test_both_splits_are_downloaded(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(SVHN, "__init__", lambda self, root, split, download: asked.append(split))
    with pytest.raises(DataError, match=r"train_32x32\.mat is missing"):
        load_images("svhn", root=tmp_path, download=True)
    assert asked == ["train", "test"]
