"""A hundred classes in CIFAR's format: files of our own making, whose sums are told in place of the published ones."""

import hashlib
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.datasets import CIFAR100

from pipeline.data import DataError, class_names, load_images, validate_request

LABELS = {"train": [3, 0, 99, 3], "test": [0, 3]}


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    folder = tmp_path / "cifar-100-python"
    folder.mkdir()
    sums = {}
    contents = {
        split: {"data": np.arange(3072 * len(labels), dtype=np.uint8).reshape(-1, 3072), "fine_labels": labels}
        for split, labels in LABELS.items()
    }
    contents["meta"] = {"fine_label_names": list(class_names("cifar100"))}
    for name, content in contents.items():
        packed = pickle.dumps(content)
        (folder / name).write_bytes(packed)
        sums[name] = hashlib.md5(packed).hexdigest()
    monkeypatch.setattr(CIFAR100, "train_list", [["train", sums["train"]]])
    monkeypatch.setattr(CIFAR100, "test_list", [["test", sums["test"]]])
    monkeypatch.setattr(CIFAR100, "meta", CIFAR100.meta | {"md5": sums["meta"]})
    return tmp_path


def test_the_fine_labels_are_a_hundred_names_in_alphabetical_order():
    names = class_names("cifar100")
    assert len(names) == 100 and list(names) == sorted(set(names)) and names[99] == "worm"


def test_images_get_their_fine_labels(root):
    data = load_images("cifar100", root=root, classes=["beaver", 3, "apple"][1:])
    assert data.classes == ("bear", "apple") and data.image_shape == (3, 32, 32)
    assert data.train.labels.tolist() == [0, 1, 0] and data.test.labels.tolist() == [1, 0]
    assert torch.equal(data.test.images[0].flatten(), torch.arange(3072).to(torch.uint8))


@pytest.mark.parametrize("file", ["train", "test", "meta"])
def test_a_damaged_or_missing_file_is_named(root, file):
    path = root / "cifar-100-python" / file
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(DataError, match=rf"cifar-100-python/{file} is not the published file: its MD5"):
        load_images("cifar100", root=root)
    path.unlink()
    with pytest.raises(DataError, match=rf"the file cifar-100-python/{file} is missing"):
        validate_request("cifar100", root=root)
