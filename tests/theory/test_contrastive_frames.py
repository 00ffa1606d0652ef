"""Optima of the supervised contrastive loss: the specification's numbers, batches, the certificate, what is refused."""

import doctest
import math

import pytest
import torch
from theory_goldens import printed

from pipeline.theory import Problem, contrastive_optimum, references
from pipeline.theory.providers import contrastive_frames

GOLDEN = [
    ((6, 3, 2), 1.0, "19.2524368095", "16.9466983332"),
    ((6, 3, 2), 0.1, "11.7377031912", "11.7360798361"),
    ((12, 6, 3, 2), 0.5, "49.5646727896", "45.7082523793"),
    ((5, 5, 5, 5), 0.5, "35.9350372247", "32.3570552348"),
]


@pytest.mark.parametrize(("sizes", "temperature", "frame", "free"), GOLDEN)
def test_values_with_and_without_the_sign_constraint(sizes, temperature, frame, free):
    signed, unsigned = (contrastive_optimum(sizes, temperature, nonnegative=sign) for sign in (True, False))
    assert signed.loss == printed(frame) and unsigned.loss == printed(free)
    assert signed.mean_loss == pytest.approx(signed.loss / sum(sizes), rel=1e-15)
    assert torch.equal(signed.products, torch.eye(len(sizes), dtype=torch.float64))
    assert unsigned.certificate > -1e-9
    closed = sum(n * (math.log((n - 1) * math.exp(1 / temperature) + sum(sizes) - n) - 1 / temperature) for n in sizes)
    assert signed.loss == pytest.approx(closed, rel=1e-13)


def test_equal_classes_without_sign_constraint_are_a_simplex():
    found = contrastive_optimum((4, 4, 4), 0.3, nonnegative=False)
    off = found.products[~torch.eye(3, dtype=torch.bool)]
    torch.testing.assert_close(off, torch.full_like(off, -1 / 2), rtol=0, atol=1e-14)


def test_two_batches_that_share_samples_bind_the_frame():
    """Every batch with all classes (arXiv 2306.07960) has the optimum of its sizes: two of (2, 2, 2), then three."""
    one = contrastive_optimum((2, 2, 2), 1.0).loss
    assert 2 * one == printed("10.8579892987") and 3 * one == printed("16.2869839480")


def test_tiny_temperatures_do_not_overflow():
    found = contrastive_optimum((4, 3), 1e-3)
    assert found.loss == pytest.approx(4 * math.log(3) + 3 * math.log(2), rel=1e-12)


@pytest.mark.parametrize("sizes", [(3, 1), (1, 1), (4, 0)])
def test_a_class_of_one_sample_is_refused(sizes):
    with pytest.raises(ValueError, match=r"^class_sizes is [01], must be an integer >= 2"):
        contrastive_optimum(sizes, 1.0)
    with pytest.raises(ValueError, match="class_sizes is"):
        Problem("supervised_contrastive", "relu", sizes, 0, (), 0, temperature=1.0)


@pytest.mark.parametrize("temperature", [0, -1.0, None, math.inf])
def test_a_temperature_that_is_not_positive_is_refused(temperature):
    with pytest.raises(ValueError, match=r"^temperature is"):
        contrastive_optimum((2, 2), temperature)


def test_only_unit_features_without_layers_have_references():
    for changes in ({"constraint": None}, {"constraint": "nonnegative"}, {"depth": 1, "weight_decay": 1e-3}):
        settings = {"depth": 0, "weight_decay": (), "constraint": "sphere", "temperature": 1.0} | changes
        problem = Problem("supervised_contrastive", "relu", (2, 2), feature_decay=1e-3, **settings)
        assert references(problem) == ()
    many = Problem("supervised_contrastive", "relu", range(2, 40), 0, (), 0, constraint="sphere", temperature=1.0)
    assert references(many) == ()


def test_docstring_examples_hold():
    assert doctest.testmod(contrastive_frames).attempted > 1 and doctest.testmod(contrastive_frames).failed == 0
