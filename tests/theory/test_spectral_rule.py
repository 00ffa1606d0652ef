"""The spectral rule: the specification's numbers, an independent minimisation, thresholds, partial states."""

import doctest
import itertools
import math
from dataclasses import replace

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


def lowest_of_descents(problem: Problem, width: int, starts: int = 2) -> float:
    """Of the objective written down anew, by L-BFGS from random starts."""
    shapes = [(problem.num_samples, width), *[(width, width)] * (problem.depth - 1), (problem.num_classes, width)]
    decays, found = problem.decays, []
    for seed in range(starts):
        generator = torch.Generator().manual_seed(seed)
        drawn = [torch.randn(*shape, dtype=torch.float64, generator=generator) / 2 for shape in shapes]
        leaves = [it.requires_grad_() for it in (*drawn, torch.zeros(problem.num_classes, dtype=torch.float64))]
        optimizer = torch.optim.LBFGS(
            leaves, max_iter=500, tolerance_grad=1e-9, tolerance_change=0, line_search_fn="strong_wolfe"
        )

        def value(leaves: list[torch.Tensor] = leaves) -> torch.Tensor:
            *factors, bias = leaves
            outputs = factors[0]
            for weight in factors[1:]:
                outputs = outputs @ weight.T
            fit = (outputs + bias - problem.target_matrix).square().sum() / (2 * problem.num_samples)
            penalties = sum(decay / 2 * it.square().sum() for decay, it in zip(decays, factors, strict=True))
            return fit + penalties + problem.bias_decay / 2 * bias.square().sum()

        def closure(optimizer=optimizer, value=value) -> torch.Tensor:
            optimizer.zero_grad()
            now = value()
            now.backward()
            return now

        optimizer.step(closure)
        found.append(value().item())
    return min(found)


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("mu", [0.02, 0.4, 30.0])
def test_a_penalised_bias_shares_the_mean_with_the_features(depth, mu):
    problem = Problem("mse", "linear", (5, 5, 5), depth, 6e-3, 9e-3, bias=True, bias_decay=mu)
    best = min(references(problem), key=lambda state: state.value)
    assert best.kind == "optimum" and lowest_of_descents(problem, 5) == pytest.approx(best.value, rel=1e-10, abs=0)


@pytest.mark.parametrize(("classes", "samples"), [(2, 10), (5, 4)])
def test_from_the_simplex_to_the_orthogonal_frame(classes, samples):
    """Cosines of class means of one layer: -1/(K-1) up to mu = p/(1-p), p = K sqrt(n Lam), then up to 0."""
    decay = 0.1 / (classes * math.sqrt(samples))  # p = 0.1
    for mu, share in ((0.0, 0.0), (0.1, 0.0), (1 / 9, 0.0), (0.2, (1 - 0.1 * 6) / 0.9), (1e9, 1.0)):
        problem = Problem("mse", "linear", (samples,) * classes, 1, decay, decay, bias=True, bias_decay=mu)
        best = min(references(problem), key=lambda state: state.value)
        point = best.construct([classes], torch.Generator().manual_seed(0))
        means = point.features.view(classes, samples, -1).mean(dim=1)
        found = torch.nn.functional.cosine_similarity(means[0], means[1], dim=0).item()
        assert found == pytest.approx((share - 1) / (classes - 1 + share), abs=1e-7)
        left = 1.0 if mu in (0.0, 0.1, 1 / 9) else 1 - 0.9 * share
        assert point.bias.tolist() == pytest.approx([left / (1 + mu) / classes] * classes, rel=1e-7)


def test_targets_whose_mean_is_no_component_have_no_closed_form_with_a_penalised_bias():
    problem = Problem("mse", "linear", (5, 3, 1), 1, 1e-2, 1e-2, bias=True, bias_decay=0.1)
    assert references(problem) == () and references(replace(problem, bias_decay=0.0))
    with pytest.raises(ValueError, match=r"bias_decay is 0\.1, must be 0 unless the targets' mean is orthogonal"):
        spectral_optimum(one_hot(5, 3, 1), 1, 1e-2, 1e-2, True, 0.1)
    with pytest.raises(ValueError, match=r"bias_decay is 0\.1, must be 0 without a bias"):
        Problem("mse", "linear", (5, 5), 1, 1e-2, 1e-2, bias_decay=0.1)


def test_only_a_mean_that_is_the_least_component_makes_a_proven_optimum_of_several_layers():
    """The mean of these targets has a singular value of 2 sqrt(6); that of the deviations is sqrt(6) or 3 sqrt(6)."""
    signs = torch.tensor([1.0, -1.0], dtype=torch.float64).repeat(3)
    for size, kinds in ((1.0, {1: "optimum", 2: "stationary"}), (3.0, {1: "optimum", 2: "optimum"})):
        targets = torch.stack([torch.full_like(signs, 2.0), size * signs], dim=1)
        for depth, kind in kinds.items():
            problem = Problem("mse", "linear", None, depth, 1e-2, 1e-2, True, targets, bias_decay=0.5)
            best = min(references(problem), key=lambda state: state.value)
            found = spectral_optimum(targets, depth, 1e-2, 1e-2, True, 0.5)
            assert best.kind == kind and found.loss == pytest.approx(best.value, rel=1e-14)
            assert found.mean == (0 if size == 1.0 else 1)
            assert lowest_of_descents(problem, 2) == pytest.approx(best.value, rel=1e-9)


def test_a_decay_of_zero_has_no_closed_form():
    for decays in ((0.0, 1e-3), (1e-3, 0.0)):
        with pytest.raises(ValueError, match="must be > 0"):
            spectral_optimum(UNEQUAL, 2, *decays)


def test_docstring_examples_hold():
    assert doctest.testmod(spectral).attempted > 1 and doctest.testmod(spectral).failed == 0
