"""Every reference of every family builds a point that has its value, its ranks, and no gradient where it says so.

The objective is written here once more, sample by sample as the papers have it.
"""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from pipeline import theory
from pipeline.runtime.discovery import names_in
from pipeline.theory import (
    ATTAINED,
    BOUND,
    OPTIMUM,
    STATIONARY,
    DufmProblem,
    Problem,
    Reference,
    diagnose,
    diagnose_among,
    named,
    references,
)

DECAYS = (1e-3, 4e-3, 2e-3, 5e-3)

STEPS = torch.arange(12, dtype=torch.float64)
WAVES = torch.stack([STEPS.sin(), 0.5 * (1.7 * STEPS).cos() + 0.3 * STEPS.sin(), 0.2 * (0.3 * STEPS**2).sin()], dim=1)

FREE = Problem("mse", "relu", (4, 2, 1), 1, 1e-2, 2e-2, bias=True)
MINIMISER = references(FREE)[0].construct((4,), torch.Generator().manual_seed(0)).features
ANCHORED = Problem("mse", "relu", (4, 2, 1), 1, 1e-2, 2e-2, bias=True, anchor=(MINIMISER, 0.3))
DECAYED = Problem("mse", "relu", (3, 3, 3), 1, 1e-2, 2e-2, bias=True, bias_decay=0.3)
OF_DECAYED = references(DECAYED)[0].construct((4,), torch.Generator().manual_seed(0)).features

PROBLEMS = {
    "two classes": Problem("mse", "relu", (3, 3), 3, 2e-3, 1e-3),
    "linear": Problem("mse", "linear", (2, 2, 2), 2, (1e-2, 3e-3), 2e-3),
    "one layer, features >= 0": Problem("mse", "relu", (4, 4, 4), 1, 1e-2, 2e-3, constraint="nonnegative"),
    "SRG of 3": Problem("mse", "relu", (2,) * 3, 3, DECAYS[:3], 2e-3),
    "SRG of 6": Problem("mse", "relu", (3,) * 6, 4, DECAYS, 1e-3),
    "SRG of 10": Problem("mse", "relu", (1,) * 10, 5, 2e-3, 1e-3),
    "small codes": Problem("mse", "relu", (2,) * 7, 4, 3e-3, 4e-3),
    "metastable": Problem("mse", "relu", (1, 1), 3, 0.152, 0.152),
    "zero alone": Problem("mse", "relu", (1, 1, 1), 3, 0.5, 0.5),
    "unequal classes": Problem("mse", "linear", (8, 4, 4, 2), 3, (1e-3, 4e-3, 2e-3), 5e-3),
    "unequal classes, ReLU": Problem("mse", "relu", (5, 3, 1), 2, 3e-3, 3e-3),
    "unequal classes, one layer, bias": Problem("mse", "relu", (5, 3, 1), 1, 1e-2, 1e-2, bias=True),
    "decayed bias": Problem("mse", "linear", (3,) * 4, 2, (4e-3, 7e-3), 5e-3, bias=True, bias_decay=0.3),
    "decayed bias, one layer": Problem("mse", "relu", (3,) * 4, 1, 2e-2, 1e-2, bias=True, bias_decay=0.08),
    "decayed bias, logits": Problem("mse", "linear", (3, 3), 0, (), 1e-2, bias=True, bias_decay=0.2),
    "decayed bias, mean zero": Problem(
        "mse", "linear", None, 2, 2e-2, 5e-2 / 12, True, WAVES - WAVES.mean(dim=0), bias_decay=0.3
    ),
    "decayed bias, cross-entropy": Problem(
        "cross_entropy", "linear", (2,) * 6, 2, 1e-3, 1e-3, bias=True, bias_decay=0.1
    ),
    "features are outputs": Problem("mse", "linear", (5, 3), 0, 1e-2, 1e-2, bias=True),
    "real targets": Problem("mse", "linear", None, 2, 2e-2, 5e-2 / 12, bias=True, targets=WAVES),
    "real targets, one layer": Problem("mse", "relu", None, 1, 2e-2, 5e-2 / 12, targets=WAVES),
    "frames of 2": Problem("cross_entropy", "linear", (2, 2), 3, 1e-3, 2e-3),
    "frames of 5": Problem("cross_entropy", "linear", (2,) * 5, 2, (1e-3, 2e-3), 1e-3),
    "frames of 10": Problem("cross_entropy", "linear", (1,) * 10, 3, DECAYS[:3], 1e-3),
    "frames of 6, bias": Problem("cross_entropy", "linear", (2,) * 6, 2, 1e-3, 1e-3, bias=True),
    "cross-entropy of one layer": Problem("cross_entropy", "relu", (3,) * 4, 1, 2e-3, 1e-3),
    "logits are features": Problem("cross_entropy", "linear", (3,) * 4, 0, (), 1e-3),
    "cross-entropy, zero alone": Problem("cross_entropy", "linear", (3,) * 4, 1, 1.0, 1.0),
    "ReLU and cross-entropy": Problem("cross_entropy", "relu", (2,) * 6, 3, DECAYS[:3], 1e-3),
    "ReLU and cross-entropy, bias": Problem("cross_entropy", "relu", (2,) * 3, 2, 1e-3, 1e-3, bias=True),
    "ReLU and cross-entropy, unequal": Problem("cross_entropy", "relu", (4, 2, 1), 2, 1e-3, 1e-3),
    "dead classes": Problem("cross_entropy", "relu", (8, 4, 2, 2), 1, 5e-3, 1e-3, constraint="nonnegative"),
    "minority": Problem("cross_entropy", "relu", (40, 20, 10, 2), 1, 3e-2, 1.4e-2, constraint="nonnegative"),
    "contrastive, entries >= 0": Problem(
        "supervised_contrastive", "relu", (4, 3, 2), 0, (), 1e-3, constraint="nonnegative_sphere", temperature=0.5
    ),
    "contrastive": Problem(
        "supervised_contrastive", "relu", (3, 3, 3, 3), 0, (), 0, constraint="sphere", temperature=0.5
    ),
    "contrastive, unequal": Problem(
        "supervised_contrastive", "relu", (6, 3, 2), 0, (), 0, constraint="sphere", temperature=1.0
    ),
    "anchored": Problem("mse", "linear", (2, 2), 1, 1e-2, 2e-2, anchor=(STEPS.view(4, 3), 0.1)),
    "anchored at the optimum": ANCHORED,
    "anchored at the optimum, decayed bias": replace(DECAYED, anchor=(OF_DECAYED, 0.3)),
    "sphere": Problem("cross_entropy", "linear", (2,) * 4, 1, 5e-3, 1e-3, constraint="sphere"),
    "sphere, mse": Problem("mse", "linear", (2,) * 4, 1, 5e-3, 0.0, constraint="sphere"),
    "sphere, entries >= 0": Problem("cross_entropy", "linear", (2,) * 4, 1, 5e-3, 0, constraint="nonnegative_sphere"),
}


def fit(problem: Problem, features: torch.Tensor, outputs: torch.Tensor) -> torch.Tensor:
    labels = torch.tensor([k for k, size in enumerate(problem.class_sizes) for _ in range(size)])
    if problem.loss == "mse":
        wanted = F.one_hot(labels, len(problem.class_sizes)).double() if problem.targets is None else problem.targets
        return (outputs - wanted).square().sum() / (2 * len(labels))
    if problem.loss == "cross_entropy":
        return F.cross_entropy(outputs, labels)
    products = features @ features.T / problem.temperature
    own = labels[:, None] == labels
    itself = torch.eye(len(labels), dtype=torch.bool)
    others = products.masked_fill(itself, -math.inf).logsumexp(dim=1, keepdim=True) - products
    partners = own & ~itself
    return ((others * partners).sum(dim=1) / partners.sum(dim=1)).mean()


def objective(problem: Problem, features, weights, bias=None) -> torch.Tensor:
    hidden = features
    for layer, weight in enumerate(weights):
        entering = torch.relu(hidden) if layer and problem.activation == "relu" else hidden
        hidden = entering @ weight.T
    value = fit(problem, features, hidden if bias is None else hidden + bias)
    for decay, factor in zip((problem.feature_decay, *problem.weight_decays), (features, *weights), strict=True):
        value = value + decay / 2 * factor.square().sum()
    if problem.anchor is not None:
        value = value + problem.anchor.strength / 2 * (features - problem.anchor.features).square().sum()
    if problem.bias_decay:
        value = value + problem.bias_decay / 2 * bias.square().sum()
    return value


def projected(problem: Problem, features: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    """What of the features' gradient the constraint does not hold back."""
    if problem.constraint in ("sphere", "nonnegative_sphere"):
        gradient = gradient - (gradient * features).sum(dim=1, keepdim=True) * features
    if problem.constraint in ("nonnegative", "nonnegative_sphere"):
        gradient = torch.where(features > 0, gradient, gradient.clamp(max=0))
    return gradient


def class_ranks(problem: Problem, features, weights) -> tuple[int, ...]:
    """Ranks of the class means, or of all rows under targets that are no classes, place by place."""
    sizes = problem.class_sizes if problem.targets is None else (1,) * len(features)
    hidden, places = features, [features]
    for layer, weight in enumerate(weights[:-1]):
        hidden = (torch.relu(hidden) if layer and problem.activation == "relu" else hidden) @ weight.T
        places += [hidden, torch.relu(hidden) if problem.activation == "relu" else hidden]
    means = [torch.stack([part.mean(dim=0) for part in place.split(sizes)]) for place in places]
    return tuple(int((values > 1e-8 * values.max()).sum()) for values in map(torch.linalg.svdvals, means))


def wider(problem: Problem, reference: Reference) -> list[int]:
    if problem.anchor is not None or (problem.depth == 0 and problem.loss != "supervised_contrastive"):
        return list(reference.widths)  # features are given, or the outputs
    return [width + 1 + layer for layer, width in enumerate(reference.widths)]


def gradients(problem: Problem, point) -> list[torch.Tensor]:
    leaves = [leaf.clone().requires_grad_() for leaf in (point.features, *point.weights)]
    bias = None if point.bias is None else point.bias.clone().requires_grad_()
    value = objective(problem, leaves[0], leaves[1:], bias)
    found = torch.autograd.grad(value, [*leaves, *([] if bias is None else [bias])])
    return [projected(problem, point.features, found[0]), *found[1:]]


@pytest.fixture(params=PROBLEMS, scope="module")
def known(request) -> tuple[Problem, tuple[Reference, ...]]:
    problem = PROBLEMS[request.param]
    return problem, references(problem)


def test_the_objective_at_every_constructed_point_is_the_references_value(known):
    problem, states = known
    assert states
    for index, state in enumerate(states):
        if state.kind == BOUND:
            assert state.construct is None and state.ranks == ()
            continue
        for widths in (state.widths, wider(problem, state)):
            point = state.construct(widths, torch.Generator().manual_seed(index))
            assert [point.features.shape[1], *(weight.shape[0] for weight in point.weights[:-1])] == list(widths)
            value = objective(problem, point.features, point.weights, point.bias).item()
            assert value == pytest.approx(state.value, rel=1e-12, abs=1e-13), state.name
            assert class_ranks(problem, point.features, point.weights) == state.ranks, state.name
            check_constraint(problem, point.features)


def check_constraint(problem: Problem, features: torch.Tensor) -> None:
    if problem.constraint in ("nonnegative", "nonnegative_sphere"):
        assert (features >= 0).all()
    if problem.constraint in ("sphere", "nonnegative_sphere"):
        torch.testing.assert_close(features.norm(dim=1), torch.ones(len(features)).double(), rtol=0, atol=1e-14)


def test_stationary_points_have_no_gradient_and_attained_ones_have(known):
    problem, states = known
    for index, state in enumerate(states):
        if state.kind == BOUND:
            continue
        point = state.construct(wider(problem, state), torch.Generator().manual_seed(index))
        largest = max(float(gradient.abs().max()) for gradient in gradients(problem, point))
        if state.kind in (OPTIMUM, STATIONARY):
            assert largest < 1e-11, state.name
        else:
            assert state.kind == ATTAINED and largest > 1e-5, state.name


def test_only_one_value_is_called_an_optimum_and_no_point_is_below_it(known):
    _, states = known
    optima = {state.value for state in states if state.kind == OPTIMUM}
    assert len(optima) <= 1
    if optima:
        best = optima.pop()
        assert all(state.value >= best * (1 - 1e-12) for state in states)


def test_names_tell_references_apart_and_lead_back_to_them(known):
    _, states = known
    names = [state.name for state in states]
    assert len(set(names)) == len(names)
    for state in states:
        if state.kind != BOUND:
            assert diagnose_among(states, state.value).reference == pytest.approx(state.value, rel=1e-4)
            assert named(states, state.name.replace(" ", "_")) is state
            assert diagnose_among([state], state.value).name == state.name


def test_networks_that_are_too_narrow_are_refused_and_left_out(known):
    problem, states = known
    for state in states:
        if state.kind == BOUND:
            continue
        for layer, least in enumerate(state.widths):
            if least < 2:
                continue
            narrow = [width - (index == layer) for index, width in enumerate(state.widths)]
            with pytest.raises(ValueError, match=r"^widths is"):
                state.construct(narrow, torch.Generator())
            left = [other for other in references(problem, narrow) if other.name == state.name]
            assert [other.kind for other in left] == ([BOUND] if state.kind == OPTIMUM else [])


# Which states there are


def test_mean_squared_error_calls_the_collapsed_solution_an_optimum_only_where_it_is_one():
    kinds = {}
    for activation in ("relu", "linear"):
        for classes in (2, 3, 10):
            for depth in (1, 2, 3, 4, 6):
                problem = Problem("mse", activation, (2,) * classes, depth, 1e-3, 1e-3)
                state = named(references(problem), "collapsed")
                kinds[activation, classes, depth] = state.kind
                assert state.name == ("global optimum" if state.kind == OPTIMUM else "collapsed solution")
    proven = {case for case, kind in kinds.items() if kind == OPTIMUM}
    assert proven == {case for case in kinds if case[0] == "linear" or case[1] == 2 or case[2] <= 2}


@pytest.mark.parametrize("depth", [4, 5, 7])
@pytest.mark.parametrize("classes", [3, 4, 6, 10])
def test_from_four_relu_layers_on_something_known_is_below_the_collapsed_solution(classes, depth):
    problem = Problem("mse", "relu", (3,) * classes, depth, 2e-3, 2e-3)
    states = references(problem)
    collapsed = named(states, "collapsed_solution")
    assert min(state.value for state in states) < collapsed.value and collapsed.kind == STATIONARY
    assert diagnose(problem, min(state.value for state in states) * 0.97).name == "below all references"


def test_dufm_problems_know_the_collapsed_family_alone():
    old = DufmProblem(6, 2, 4, 3e-3, 3e-3)
    states = references(old)
    assert [state.fitted for state in states] == list(range(7)) and {state.kind for state in states} == {STATIONARY}
    new = references(Problem("mse", "relu", (2,) * 6, 4, 3e-3, 3e-3))
    assert [state.value for state in new[:7]] == [state.value for state in states] and len(new) > 7


# Problems


def test_a_problem_takes_arrays_and_says_its_shape():
    problem = Problem("mse", "relu", torch.tensor([3, 2]), 2, torch.tensor([1e-3, 2e-3], dtype=torch.float64), 0)
    assert (problem.num_classes, problem.num_samples, problem.samples_per_class) == (2, 5, None)
    assert problem.weight_decays == (1e-3, 2e-3) and problem.decays == (0.0, 1e-3, 2e-3)
    assert problem.labels.tolist() == [0, 0, 0, 1, 1]
    matrix = Problem("mse", "linear", None, 1, 1e-3, 1e-3, targets=torch.ones(4, 2))
    assert (matrix.num_classes, matrix.num_samples, matrix.class_sizes) == (2, 4, (4,))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"loss": "hinge"}, "^loss is 'hinge', must be one of mse"),
        ({"activation": "gelu"}, "^activation is 'gelu'"),
        ({"constraint": "ball"}, "^constraint is 'ball', must be one of None, nonnegative"),
        ({"class_sizes": (4,)}, "^class_sizes is"),
        ({"class_sizes": None}, "^class_sizes is None"),
        ({"class_sizes": (4, 0)}, "^class_sizes is 0"),
        ({"depth": -1}, "^depth is -1"),
        ({"weight_decay": (1e-3,)}, "^weight_decay has 1 values"),
        ({"weight_decay": -1e-3}, "^weight_decay is -0.001, must be a finite number >= 0"),
        ({"feature_decay": math.nan}, "^feature_decay is nan"),
        ({"temperature": 1.0}, "^temperature is 1.0, must be None"),
        ({"loss": "supervised_contrastive"}, "^temperature is None"),
        ({"loss": "supervised_contrastive", "temperature": 1.0, "bias": True}, "^bias is True"),
        ({"loss": "supervised_contrastive", "temperature": 1.0, "class_sizes": (3, 1)}, "at least 2 each"),
        ({"targets": torch.ones(5, 2)}, "^class_sizes add up to 4, must be the 5 rows"),
        ({"targets": torch.ones(4)}, "^targets has the shape"),
        ({"loss": "cross_entropy", "targets": torch.ones(4, 2)}, "^targets are given"),
        ({"anchor": (torch.ones(4, 3), -0.1)}, "^anchor strength is -0.1"),
        ({"anchor": (torch.ones(3, 3), 0.1)}, "^anchor has 3 rows"),
    ],
)
def test_a_problem_that_is_none_is_refused_by_name(changes, said):
    settings = {"loss": "mse", "activation": "relu", "class_sizes": (2, 2), "depth": 2, "weight_decay": 1e-3}
    with pytest.raises(ValueError, match=said):
        Problem(**settings | {"feature_decay": 1e-3} | changes)


def test_an_anchor_without_strength_is_none():
    loose = Problem("mse", "linear", (2, 2), 1, 1e-2, 2e-2, anchor=(STEPS.view(4, 3), 0.0))
    assert [state.name for state in references(loose)][-1] == "global optimum"


@pytest.mark.parametrize("decays", [(0.0, 1e-3), (1e-3, 0.0)])
def test_where_a_decay_is_zero_nothing_is_known(decays):
    assert references(Problem("mse", "relu", (2, 2), 2, *decays)) == ()


def test_a_list_without_a_point_has_nothing_to_sit_at():
    with pytest.raises(ValueError, match="no reference"):
        diagnose_among([Reference("bound", 0.1, BOUND)], 0.2)
    with pytest.raises(ValueError, match="no point is named 'pairs'; known here: none"):
        named([], "pairs")
    with pytest.raises(ValueError, match=r", and 11 more$"):
        named(references(DufmProblem(30, 1, 2, 1e-3, 1e-3)), "srg")


def test_with_hundreds_of_states_the_nearest_is_named():
    problem = Problem("mse", "relu", (1,) * 300, 2, 1e-5, 1e-5)
    states = references(problem)
    for fitted in (7, 150, 299):
        assert diagnose(problem, states[fitted].value * (1 + 1e-5)).fitted == fitted


def test_the_page_names_every_provider_and_its_example_runs(capsys):
    page = (Path(theory.__file__).parents[2] / "docs" / "theory.md").read_text()
    missing = [name for name in names_in("pipeline.theory.providers") if f"`{name}`" not in page]
    assert missing == []
    example = page.split("```python")[1].split("```")[0]
    space = {}
    exec(example, space)
    assert "0.0299274744  stationary  collapsed solution" in capsys.readouterr().out
    assert space["diagnose"](space["problem"], 0.0294).name == "small code"
