"""The spectral rule: the specification's numbers, an independent minimisation, thresholds, partial states."""

import doctest
import itertools
import math

import pytest
import scipy.optimize
import torch
from theory_goldens import all_printed, one_hot, printed, waves

from pipeline.theory import (
    DufmProblem,
    Problem,
    collapsed_optimum,
    diagnose,
    references,
    spectral_optimum,
    spectral_threshold,
)
from pipeline.theory.providers import spectral

UNEQUAL = one_hot(40, 20, 10, 2)
GOLDEN = [
    (UNEQUAL, 1, 1e-2, 1e-2, False, "0.1393318250", "5.60455532 3.75213596 2.44227766 0.69421356"),
    (UNEQUAL, 2, 3e-3, 3e-3, False, "0.0423302986", "6.20702246 4.33971193 3.01272274 1.21160058"),
    (UNEQUAL, 3, (1e-3, 4e-3, 2e-3), 5e-3, False, "0.0378798002", "6.25213955 4.38567314 3.05874537 1.25241552"),
    (one_hot(10, 10, 10, 10), 1, 5e-3, 5e-4, True, "0.0148500000", "3.09903211 3.09903211 3.09903211"),
    (waves(), 2, 0.02, 0.05 / 60, True, "0.0613131392", "5.51334778 2.26696628 0.63051937"),
    (waves(), 3, 0.02, 0.05 / 60, True, "0.0812974894", "5.51803756 2.21975786 0.00000000"),
]


@pytest.mark.parametrize(("targets", "depth", "weight", "feature", "bias", "value", "outputs"), GOLDEN)
def test_values_and_outputs(targets, depth, weight, feature, bias, value, outputs):
    found = spectral_optimum(targets, depth, weight, feature, bias)
    assert found.loss == printed(value) and list(found.outputs[: len(outputs.split())]) == all_printed(outputs)
    assert (found.bias is not None) == bias


def test_regression_by_the_papers_decays():
    """arXiv 2409.04180 divides the features' decay by the number of samples."""
    targets = waves()
    for decay, feature, value, outputs in (
        (0.02, 0.05, "0.0370719590", "0.710548982 0.301925325 0.112409806"),
        (0.3, 0.3, "0.2430886506", "0.442171759 0.033548101 0.000000000"),
    ):
        found = spectral_optimum(targets, 1, decay, feature / 60, bias=True)
        assert found.loss == printed(value)
        assert [output / math.sqrt(60) for output in found.outputs] == all_printed(outputs)
    eigenvalues = sorted(sigma**2 / 60 for sigma in found.singular_values)
    assert eigenvalues == all_printed("0.0207453850 0.1112543358 0.5508189200")


def test_the_stuck_component_that_random_starts_end_at():
    problem = Problem("mse", "linear", None, 2, 0.02, 0.05 / 60, bias=True, targets=waves())
    found = diagnose(problem, 0.0620769459)
    assert found.name.startswith("components at zero: the one with singular value 1.11")
    assert found.reference == printed("0.0620769459") and found.fitted == 2


@pytest.mark.parametrize("depth", [0, 1, 2, 4])
@pytest.mark.parametrize("bias", [False, True])
def test_each_output_minimises_its_own_cost(depth, bias):
    generator = torch.Generator().manual_seed(depth)
    targets = torch.randn(30, 4, dtype=torch.float64, generator=generator) @ torch.diag(
        torch.tensor([2.0, 1.0, 0.5, 0.1], dtype=torch.float64)
    )
    decays = [2e-2 * (1 + layer) for layer in range(depth)]
    found = spectral_optimum(targets, depth, decays, 1e-2, bias)
    sigmas = torch.linalg.svdvals(targets - bias * targets.mean(dim=0)).tolist()
    product, total = math.prod(decays) * 1e-2, 0.0
    for sigma, output in zip(sigmas, found.outputs, strict=True):

        def cost(eta: float, sigma: float = sigma) -> float:
            return (sigma - eta) ** 2 / 60 + (depth + 1) / 2 * (product * eta**2) ** (1 / (depth + 1))

        grid = [sigma * step / 2000 for step in range(2001)]
        best = min(range(2001), key=lambda step: cost(grid[step]))
        if best:
            bounds = (grid[best - 1], grid[min(best + 1, 2000)])
            best_at = scipy.optimize.minimize_scalar(cost, bounds=bounds, method="bounded", options={"xatol": 1e-12}).x
        else:
            best_at = 0.0
        assert output == pytest.approx(best_at, abs=1e-6)
        total += min(cost(best_at), cost(0.0))
    assert found.loss == pytest.approx(total, rel=1e-10)


@pytest.mark.parametrize(("classes", "depth"), itertools.product((2, 5), (1, 2, 3, 6)))
def test_balanced_classes_are_the_collapsed_optimum(classes, depth):
    closed = collapsed_optimum(DufmProblem(classes, 7, depth, 2e-3, 3e-3))
    found = spectral_optimum(one_hot(*[7] * classes), depth, 2e-3, 3e-3)
    assert found.loss == pytest.approx(closed.loss, rel=1e-12)
    assert found.outputs == pytest.approx([closed.output * math.sqrt(7)] * classes, rel=1e-12)


@pytest.mark.parametrize("depth", [1, 2, 3, 5])
def test_a_component_is_fitted_up_to_its_threshold(depth):
    sizes = (30, 12, 5, 1)
    for size in sizes:
        decay = spectral_threshold(math.sqrt(size), 48, depth) ** (1 / (depth + 1))
        for factor, fitted in ((1 - 1e-7, True), (1 + 1e-7, False)):
            found = spectral_optimum(one_hot(*sizes), depth, decay * factor, decay * factor)
            assert (found.outputs[sizes.index(size)] > 0) == fitted
    if depth > 1:
        assert spectral_optimum(one_hot(*sizes), depth, *2 * [decay * (1 - 1e-9)]).outputs[-1] == pytest.approx(
            (depth - 1) / depth, rel=1e-6
        )


def test_partial_states_are_sums_and_many_classes_do_not_make_too_many():
    problem = Problem("mse", "linear", (8, 4, 4, 2), 2, 1e-3, 1e-3)
    known = references(problem)
    assert len(known) == 2 * 3 * 2 and {state.kind for state in known} == {"optimum", "stationary"}
    names = {state.name: state.value for state in known}
    gain = names["classes at zero: the one of 2 samples"] - names["global optimum"]
    both = names["classes at zero: 1 of 2 of 4 samples, the one of 2 samples"]
    assert both - names["classes at zero: 1 of 2 of 4 samples"] == pytest.approx(gain, rel=1e-9)
    assert names["zero solution"] == pytest.approx(0.5, rel=1e-14)
    many = references(Problem("mse", "linear", range(1, 101), 2, 1e-6, 1e-6))
    assert 100 <= len(many) <= 300 and {"global optimum", "zero solution"} <= {state.name for state in many}


def test_relu_layers_have_the_same_states_for_classes_and_call_none_an_optimum():
    linear, relu = (references(Problem("mse", name, (8, 4, 2), 3, 1e-3, 1e-3)) for name in ("linear", "relu"))
    assert [state.value for state in linear] == [state.value for state in relu]
    assert {state.kind for state in relu} == {"stationary"} and relu[0].name == "collapsed solution"
    assert references(Problem("mse", "relu", None, 3, 1e-3, 1e-3, targets=waves())) == ()
    assert references(Problem("mse", "relu", (8, 4, 2), 3, 1e-3, 1e-3, bias=True)) == ()


def test_a_decay_of_zero_has_no_closed_form():
    for decays in ((0.0, 1e-3), (1e-3, 0.0)):
        with pytest.raises(ValueError, match="must be > 0"):
            spectral_optimum(UNEQUAL, 2, *decays)


def test_docstring_examples_hold():
    assert doctest.testmod(spectral).attempted > 1 and doctest.testmod(spectral).failed == 0
