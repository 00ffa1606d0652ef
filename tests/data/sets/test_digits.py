"""The digits are those of scikit-learn."""

from types import SimpleNamespace

import numpy as np
import torch
from sklearn.datasets import load_digits

from pipeline.data import load_images
from pipeline.data.sets import digits


def test_digits_keep_every_image_and_all_seventeen_grey_levels():
    data, original = load_images("digits"), load_digits()
    assert data.image_shape == (1, 8, 8) and data.classes == tuple("0123456789")
    ours = torch.cat([data.train.images, data.test.images]).flatten(1)
    restored = (ours.double() * 16 / 255).round().long()
    ours_rows = sorted((*row, label) for row, label in zip(restored.tolist(), labels_of(data), strict=True))
    assert ours_rows == sorted((*map(int, row), int(y)) for row, y in zip(original.data, original.target, strict=True))
    assert ours.unique().numel() == 17 and ours.max() == 255


def test_digits_are_those_of_scikit_learn_also_where_its_file_lies_elsewhere(monkeypatch):
    read = digits._bundled()
    monkeypatch.setattr(digits, "find_spec", lambda name: SimpleNamespace(origin="/nowhere/__init__.py"))
    for found, again, original in zip(read, digits._bundled(), load_digits(return_X_y=True), strict=True):
        assert np.array_equal(found, original) and np.array_equal(again, original)


def labels_of(data) -> list[int]:
    return torch.cat([data.train.labels, data.test.labels]).tolist()


def test_digits_have_a_fifth_of_each_class_set_aside_whatever_the_seed():
    data, other = load_images("digits", seed=0), load_images("digits", seed=1)
    counts = torch.from_numpy(load_digits().target).bincount()
    assert data.test.labels.bincount().tolist() == [round(0.2 * n) for n in counts.tolist()]
    assert torch.equal(data.test.images, other.test.images)
