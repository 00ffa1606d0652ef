"""The small code of three classes: its values, that a point has them, and that it beats the collapsed solution."""

import doctest
import math

import pytest
import torch

from pipeline import dufm
from pipeline.theory import DufmProblem, collapsed_optimum, critical_decay, small_code_loss
from pipeline.theory.providers import small_code

GOLDEN = [
    (3, 3, 1, 0.0258754528),
    (3, 4, 1, 0.0293865839),
    (3, 4, 50, 0.0640760192),
    (3, 5, 1, 0.0330773629),
    (3, 6, 1, 0.0368642999),
    (4, 4, 1, 0.0393307418),
    (5, 4, 1, 0.0492584280),
]


@pytest.mark.parametrize(("classes", "depth", "samples", "value"), GOLDEN)
def test_values_of_the_small_code(classes: int, depth: int, samples: int, value: float) -> None:
    problem = DufmProblem(classes, samples, depth, 4e-3, 4e-3)
    assert small_code_loss(problem) == pytest.approx(value, rel=1e-8)


@pytest.mark.parametrize("depth", [4, 5, 8])
@pytest.mark.parametrize("classes", [3, 4, 5, 6, 10, 100])
@pytest.mark.parametrize("share", [1e-6, 1e-2, 0.5, 0.99])
def test_the_collapsed_solution_is_beaten_for_every_k_from_3_on_at_depth_4_and_more(
    classes: int, depth: int, share: float
) -> None:
    critical = critical_decay(DufmProblem(classes, 7, depth, 1, 1))
    problem = DufmProblem(classes, 7, depth, share * critical, share * critical)
    assert not collapsed_optimum(problem).zero_is_optimal
    assert small_code_loss(problem) < collapsed_optimum(problem).loss


def test_uneven_decays_change_nothing_about_that() -> None:
    problem = DufmProblem(3, 5, 4, (1e-3, 2e-2, 5e-3, 1e-4), 3e-3)
    assert small_code_loss(problem) < collapsed_optimum(problem).loss


def test_three_layers_are_not_enough_for_it() -> None:
    problem = DufmProblem(3, 1, 3, 4e-3, 4e-3)
    assert small_code_loss(problem) > collapsed_optimum(problem).loss


@pytest.mark.parametrize("depth", [3, 4, 6])
def test_a_point_of_the_dufm_has_this_value(depth: int) -> None:
    decay, b = 4e-3, small_code._B
    code = torch.tensor([[1, 0, b], [0, 1, b]], dtype=torch.float64)
    v = (2 * (1 / (4 * b**2)) / (2 + 1 / (2 * b**2))) ** 0.25
    read = torch.tensor([[1, -1], [-1, 1], [v, v]], dtype=torch.float64)
    last = torch.tensor([[1, 0, 0], [0, 1, 0], [-1 / (2 * b), -1 / (2 * b), 1 / (2 * v * b)]], dtype=torch.float64)
    left, values, right = torch.linalg.svd(code, full_matrices=False)
    first, features = left @ values.sqrt().diag(), values.sqrt().diag() @ right
    factors = [features.T, first, *[torch.eye(2, dtype=torch.float64)] * (depth - 3), read, last]
    norms = math.prod(float(factor.square().sum()) for factor in factors)
    best = math.inf
    for q in torch.linspace(0.9, 1.0, 20001, dtype=torch.float64).tolist():
        cost = (depth + 1) / 2 * decay * (norms * q**2) ** (1 / (depth + 1))
        best = min(best, (1 - q) ** 2 / 2 + cost)
    assert best == pytest.approx(small_code_loss(DufmProblem(3, 1, depth, decay, decay)), rel=1e-6)
    outputs = dufm.forward(factors[0], [weight[None] for weight in factors[1:]], "relu")[-1]
    torch.testing.assert_close(outputs[0], torch.eye(3, dtype=torch.float64), rtol=0, atol=1e-12)


def test_two_classes_or_two_layers_have_no_small_code() -> None:
    for problem in (DufmProblem(2, 1, 4, 1e-3, 1e-3), DufmProblem(3, 1, 2, 1e-3, 1e-3)):
        with pytest.raises(ValueError, match="must be at least 3"):
            small_code_loss(problem)


def test_docstring_examples_hold() -> None:
    assert doctest.testmod(small_code).attempted > 0
    assert doctest.testmod(small_code).failed == 0
