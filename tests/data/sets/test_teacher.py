"""Vectors labelled by a random network with a bottleneck."""

import pytest
import torch

from pipeline.data import DataError, load_images, validate_request
from pipeline.data.registry import Request
from pipeline.data.sets.teacher import Settings, teacher_outputs

OWN = {"num_classes": 4, "dim": 6, "rank": 2, "samples": 500, "test": 50}


def test_labels_are_the_teachers_largest_standardised_output():
    data = load_images("teacher", **OWN, seed=3)
    request = Request(seed=3, settings=Settings(**OWN))
    outputs = teacher_outputs(request, data.train.images.flatten(1).double())
    scaled = (outputs - outputs.mean(0)) / outputs.std(0, correction=0)
    agree = scaled.argmax(1) == data.train.labels
    assert agree.double().mean() > 0.99  # rows are rounded to float32, labels are those of the unrounded ones
    assert data.train.images.shape == (500, 6, 1, 1) and len(data.test) == 50
    assert (data.train.labels.bincount(minlength=4) > 0).all()


def test_what_the_teacher_says_depends_on_as_many_directions_as_its_rank():
    request = Request(settings=Settings(**OWN | {"rank": 1, "num_classes": 5}))
    rows = torch.randn(400, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    outputs = teacher_outputs(request, rows)
    # one number enters the second network, which is linear in it on either side of 0
    assert torch.linalg.matrix_rank(outputs) == 2


def test_a_teacher_is_a_function_of_the_seed():
    rows = torch.ones(1, 6).double()
    first, again, other = (teacher_outputs(Request(seed=seed, settings=Settings(**OWN)), rows) for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_a_bottleneck_wider_than_the_vectors_is_refused():
    with pytest.raises(DataError, match=r"data\.rank=3 is more than data\.dim=2; allowed: an integer from 1 to 2"):
        validate_request("teacher", dim=2, rank=3)
