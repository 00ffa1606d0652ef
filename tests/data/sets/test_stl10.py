"""STL-10: files of our own making, whose sums are told in place of the published ones."""

import hashlib

import numpy as np
import pytest
import torch
from torchvision.datasets import STL10

from pipeline.data import DataError, load_images, validate_request


@pytest.fixture
def root(tmp_path, monkeypatch):
    folder = tmp_path / "stl10_binary"
    folder.mkdir()
    (folder / "class_names.txt").write_text("airplane\nbird\n")
    listed = {}
    for split in ("train", "test"):
        pixels = np.random.default_rng(0).integers(0, 256, 3 * 3 * 96 * 96, dtype=np.uint8)
        for name, content in ((f"{split}_X.bin", pixels.tobytes()), (f"{split}_y.bin", bytes([2, 1, 10]))):
            (folder / name).write_bytes(content)
            listed[name] = hashlib.md5(content).hexdigest()
    monkeypatch.setattr(STL10, "train_list", [[name, listed[name]] for name in listed if "train" in name])
    monkeypatch.setattr(STL10, "test_list", [[name, listed[name]] for name in listed if "test" in name])
    return tmp_path


def test_images_stand_upright_as_torchvisions_do(root):
    data = load_images("stl10", root=root, classes=["bird", "airplane"])
    theirs = STL10(root, split="test")
    assert torch.equal(data.test.images, torch.from_numpy(theirs.data)[:2]) and data.test.labels.tolist() == [0, 1]
    assert load_images("stl10", root=root, classes=["ship", "truck", "bird"][1:]).train.labels.tolist() == [1, 0]


def test_a_damaged_or_missing_file_is_named(root):
    path = root / "stl10_binary" / "train_y.bin"
    path.write_bytes(bytes([2, 1, 9]))
    with pytest.raises(DataError, match=r"train_y\.bin is not the published file: its MD5"):
        load_images("stl10", root=root)
    path.unlink()
    with pytest.raises(DataError, match=r"the file stl10_binary/train_y\.bin is missing"):
        validate_request("stl10", root=root)
