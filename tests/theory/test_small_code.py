"""The small code of three classes: its values, that a point has them, and that it beats the collapsed solution."""

import doctest
import math

import pytest
import torch
from theory_goldens import printed

from pipeline import dufm
from pipeline.theory import DufmProblem, Problem, collapsed_optimum, critical_decay, small_code_loss, srg_loss
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


def test_its_squared_norms_and_where_they_are_least() -> None:
    def norms(b: float) -> float:
        return ((1 + math.sqrt(1 + 2 * b**2)) * (2 * math.sqrt(2 + 1 / (2 * b**2)) + 1 / (b * math.sqrt(2)))) ** 2

    place, least = small_code._B, small_code._CODE
    assert place == printed("0.9034845151") and least == printed("110.8856726512")
    assert norms(small_code._B) == pytest.approx(small_code._CODE, rel=1e-15)
    slope = (norms(small_code._B + 1e-5) - norms(small_code._B - 1e-5)) / 2e-5
    assert abs(slope) < 1e-5 and norms(0.9) > small_code._CODE < norms(0.907)


@pytest.mark.parametrize(("depth", "ratio"), [(3, "1.081677"), (4, "0.981883"), (5, "0.920523"), (6, "0.879056")])
def test_over_collapse_as_all_decays_go_to_zero(depth: int, ratio: str) -> None:
    problem = DufmProblem(3, 7, depth, 1e-9, 1e-9)
    assert small_code_loss(problem) / collapsed_optimum(problem).loss == printed(ratio)


def test_it_is_below_collapse_where_spectra_of_relu_layers_are_measured() -> None:
    problem = DufmProblem(3, 40, 5, 1e-2, 1e-2)
    assert small_code_loss(problem) == printed("0.151858526")
    assert collapsed_optimum(problem).loss == printed("0.164837873")


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


@pytest.mark.parametrize("decays", [(0.0, 1e-3), (1e-3, 0.0)])
@pytest.mark.parametrize("value", [small_code_loss, srg_loss, collapsed_optimum])
def test_a_closed_form_needs_every_decay(value, decays) -> None:
    with pytest.raises(ValueError, match="a decay is 0, must be positive"):
        value(Problem("mse", "relu", (2,) * 6, 4, *decays))
