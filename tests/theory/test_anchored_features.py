"""Features drawn to given ones: the response against the Hessian, bounds, the path of progressive collapse."""

import doctest
import itertools

import pytest
import torch
from theory_goldens import all_printed, printed

from pipeline.theory import (
    BOUND,
    OPTIMUM,
    DufmProblem,
    Problem,
    anchored_response,
    construct_optimum,
    mufm_path,
    mufm_strength,
    references,
)
from pipeline.theory.providers import anchored


@pytest.mark.parametrize(
    ("beta", "within", "between"),
    [
        (100, "0.9937151933 0.9998000400 1.0 0.9992258979 0.9996129490", "0.0003870510"),
        (1, "0.6125741133 0.9803921569 1.0 0.9280999331 0.9640499665", "0.0359500335"),
    ],
)
def test_singular_values_of_the_response(beta, within, between):
    found = anchored_response(4, 10, 10, 0.05 / 4, 0.02 / 40, beta / 40)
    assert [value for value, _ in found.within] == all_printed(within) and found.between == printed(between)
    assert [count for _, count in found.within] == [36, 54, 6, 1, 3]


@pytest.mark.parametrize(("classes", "samples", "dim"), [(2, 2, 3), (3, 2, 3), (2, 3, 4)])
def test_the_response_is_that_of_the_objectives_hessian(classes, samples, dim):
    """dH = strength (Hessian^-1)_HH dH_0 at a minimiser, by the implicit function theorem."""
    weight_decay, feature_decay, strength = 3e-2, 2e-2, 7e-2
    free = DufmProblem(classes, samples, 1, weight_decay, feature_decay)
    point = construct_optimum(free, (dim,), torch.Generator().manual_seed(0))
    total, targets = classes * samples, torch.eye(classes, dtype=torch.float64)[point.labels]

    def objective(flat: torch.Tensor) -> torch.Tensor:
        features, weight = flat[: total * dim].view(total, dim), flat[total * dim :].view(classes, dim)
        fit = (features @ weight.T - targets).square().sum() / (2 * total)
        penalties = weight_decay / 2 * weight.square().sum() + feature_decay / 2 * features.square().sum()
        return fit + penalties + strength / 2 * (features - point.features).square().sum()

    flat = torch.cat([point.features.flatten(), point.weights[0].flatten()])
    inverse = torch.linalg.inv(torch.autograd.functional.hessian(objective, flat))
    blocks = (strength * inverse[: total * dim, : total * dim]).view(classes, samples * dim, classes, samples * dim)
    found = anchored_response(classes, samples, dim, weight_decay, feature_decay, strength)
    expected = sorted((value for value, count in found.within for _ in range(count)), reverse=True)
    for one in range(classes):
        own = torch.linalg.svdvals(blocks[one, :, one]).tolist()
        assert own == pytest.approx(expected, rel=1e-9)
        other = torch.linalg.svdvals(blocks[one, :, one - 1]).tolist()
        assert other[0] == pytest.approx(found.between, rel=1e-9) and other[1] < 1e-12


def start() -> torch.Tensor:
    """H_0 of the specification, d = 6, K = 3, n = 5; rows are samples."""
    i, j = torch.arange(1, 7, dtype=torch.float64), torch.arange(1, 16, dtype=torch.float64)[:, None]
    k = torch.arange(1, 4, dtype=torch.float64).repeat_interleave(5)[:, None]
    return 0.8 * (i * k).cos() + 0.5 * (0.7 * i * j + 0.2 * j).sin()


def nc1(features: torch.Tensor) -> float:
    means = features.view(3, 5, -1).mean(dim=1)
    within = (features.view(3, 5, -1) - means[:, None]).square().sum() / 15
    return float(within / ((means - means.mean(dim=0)).square().sum() / 3))


def minimise(problem: Problem) -> tuple[float, torch.Tensor]:
    features = problem.anchor.features.clone().requires_grad_()
    targets = problem.target_matrix
    optimizer = torch.optim.LBFGS(
        [features], max_iter=600, line_search_fn="strong_wolfe", tolerance_grad=1e-11, tolerance_change=0
    )

    def value() -> torch.Tensor:
        optimizer.zero_grad()
        ridge = problem.num_samples * problem.weight_decays[0] * torch.eye(features.shape[1], dtype=torch.float64)
        weight = torch.linalg.solve(features.T @ features + ridge, features.T @ targets).T
        cost = (features @ weight.T - targets).square().sum() / (2 * problem.num_samples)
        cost = cost + problem.weight_decays[0] / 2 * weight.square().sum()
        cost = cost + problem.feature_decay / 2 * features.square().sum()
        cost = cost + problem.anchor.strength / 2 * (features - problem.anchor.features).square().sum()
        cost.backward()
        return cost

    optimizer.step(value)
    return float(value().detach()), features.detach()


@pytest.mark.parametrize(
    ("beta", "value", "variability"),
    [
        (100, "0.1076280792", "0.4746145898"),
        (10, "0.1055343784", "0.4586428015"),
        (1, "0.0893953850", "0.3565387912"),
        (0.1, "0.0511694662", "0.2160983965"),
        (0.01, "0.0346852273", "0.0417675131"),
    ],
)
def test_minima_under_an_anchor_are_above_the_bound(beta, value, variability):
    problem = Problem("mse", "linear", (5, 5, 5), 1, 0.05 / 3, 0.02 / 15, anchor=(start(), beta / 15))
    found, features = minimise(problem)
    assert found == printed(value) and nc1(features) == pytest.approx(float(variability), rel=1e-6)
    (bound,) = references(problem)
    assert bound.kind == BOUND and bound.value < found


@pytest.mark.parametrize(("moved", "kinds"), [(0.0, [BOUND, OPTIMUM]), (1e-4, [BOUND])])
def test_an_anchor_is_called_the_optimum_only_where_it_is_one(moved, kinds):
    free = DufmProblem(3, 2, 1, 1e-2, 2e-2)
    features = construct_optimum(free, (4,), torch.Generator().manual_seed(0)).features
    features = features + moved * torch.cos(torch.arange(24, dtype=torch.float64)).view(6, 4)
    known = references(Problem("mse", "linear", (2, 2, 2), 1, 1e-2, 2e-2, anchor=(features, 0.5)))
    assert [state.kind for state in known] == kinds


def test_progressive_collapse_is_an_anchor():
    strength = mufm_strength(0.08, 4)
    problem = Problem("mse", "linear", (5, 5, 5), 1, 0.05 / 3, 0.0, anchor=(start(), strength))
    value, features = minimise(problem)
    assert value == printed("0.0402873734") and references(problem) == ()
    path = mufm_path(start(), features, 4)
    expected = [0.4764813115, 0.4114002725, 0.3572503253, 0.3132411433, 0.2786410138]
    assert [nc1(layer) for layer in path] == pytest.approx(expected, rel=1e-6)
    steps = sum(0.08 / 2 * (after - before).square().sum() for before, after in itertools.pairwise(path))
    assert float(steps) == pytest.approx(float(strength / 2 * (path[-1] - path[0]).square().sum()), rel=1e-12)


def test_what_has_no_response_is_refused():
    for changes, said in (
        ({"strength": -0.1}, "^strength is -0.1"),
        ({"dim": 2}, "^dim is 2, must be an integer >= 3"),
        ({"weight_decay": 0.9, "feature_decay": 0.9}, "so large that zero is optimal"),
    ):
        settings = {"dim": 5, "weight_decay": 1e-2, "feature_decay": 1e-2, "strength": 0.1} | changes
        with pytest.raises(ValueError, match=said):
            anchored_response(3, 4, **settings)


def test_docstring_examples_hold():
    assert doctest.testmod(anchored).attempted > 0 and doctest.testmod(anchored).failed == 0
