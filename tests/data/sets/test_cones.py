"""Gaussian vectors of the class whose axis they point along."""

import torch

from pipeline.data import load_images
from pipeline.data.registry import Request
from pipeline.data.sets.cones import Settings, class_axes


def test_every_row_has_the_label_of_the_axis_it_points_along_most():
    settings = Settings(num_classes=4, samples=1200, test=300)
    axes = class_axes(Request(seed=2, settings=settings))
    torch.testing.assert_close(axes.norm(dim=1), torch.ones(4).double())
    data = load_images("cones", num_classes=4, samples=1200, test=300, seed=2)
    for split, count in ((data.train, 1200), (data.test, 300)):
        assert split.images.shape == (count, 16, 1, 1)
        assert torch.equal((split.images.flatten(1).double() @ axes.T).argmax(1), split.labels)


def test_rows_are_standard_normal():
    rows = load_images("cones", samples=4000, dim=3).train.images.flatten(1).double()
    torch.testing.assert_close(rows.mean(0), torch.zeros(3).double(), atol=0.08, rtol=0)
    torch.testing.assert_close(rows.T.cov(), torch.eye(3).double(), atol=0.12, rtol=0)


def test_axes_depend_on_the_seed():
    first, other = (class_axes(Request(seed=seed, settings=Settings())) for seed in (0, 1))
    assert not torch.equal(first, other)
