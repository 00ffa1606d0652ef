"""Polishing ends at the values and points that theory knows, member by member, and says how well."""

from dataclasses import replace

import pytest
import torch

from pipeline.dufm.constraints import Constraint
from pipeline.dufm.cost import Anchor, Cost, Point
from pipeline.dufm.descent import Descent
from pipeline.dufm.heavy_ball import rolled
from pipeline.dufm.model import one_hot, weight_decay_table
from pipeline.dufm.objectives import load_objective
from pipeline.dufm.objectives.supervised_contrastive import SupervisedContrastive
from pipeline.dufm.polish import polish
from pipeline.theory import Problem, references


def start(members: int, sizes: tuple[int, ...], widths: tuple[int, ...], scale: float = 1.0, seed: int = 0) -> Point:
    source = torch.Generator().manual_seed(seed)
    normal = {"generator": source, "dtype": torch.float64}
    features = scale * torch.randn(members, sum(sizes), widths[0], **normal)
    pairs = zip(widths, (*widths[1:], len(sizes)), strict=True)
    return Point(features, tuple(torch.randn(members, out, enter, **normal) / enter**0.5 for enter, out in pairs))


def cost_of(
    sizes: tuple[int, ...], members: int, depth: int, decay: float, loss: str = "mse", activation: str = "relu", **more
) -> Cost:
    labels = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    return Cost(
        one_hot(labels, len(sizes), torch.float64),
        load_objective(loss),
        weight_decay_table(decay, members, depth),
        torch.full((members,), decay, dtype=torch.float64),
        activation,
        **more,
    )


@pytest.mark.parametrize(("loss", "activation"), [("mse", "linear"), ("mse", "relu"), ("cross_entropy", "linear")])
def test_every_member_ends_at_the_value_of_a_reference(loss, activation):
    sizes, decay = (3, 3), 5e-3
    cost = cost_of(sizes, 3, 2, decay, loss, activation)
    found = polish(cost, start(3, sizes, (5, 5)), tolerance=1e-12)
    known = [one.value for one in references(Problem(loss, activation, sizes, 2, decay, decay)) if one.kind != "bound"]
    for total, norm in zip(cost.value(found.point).total.tolist(), found.gradient_norm.tolist(), strict=True):
        assert min(abs(total / value - 1) for value in known) < 1e-11 and norm < 1e-9


def test_a_member_ends_where_it_ends_alone():
    sizes = (4, 2)
    together, begin = cost_of(sizes, 4, 2, 1e-2, activation="linear"), start(4, sizes, (4, 3))
    found = polish(together, begin, tolerance=1e-12)
    for member in range(4):
        own = Point(begin.features[[member]], tuple(weight[[member]] for weight in begin.weights))
        alone = polish(together.select([member]), own, tolerance=1e-12)
        assert together.select([member]).value(alone.point).total.item() == pytest.approx(
            together.value(found.point).total[member].item(), rel=1e-12
        )


def test_a_convex_problem_is_solved_to_its_closed_form_with_bias_and_anchor():
    """Features alone move: the minimum of 1/(2N) ||h - t||^2 + lambda/2 ||h||^2 + beta/2 ||h - a||^2 is a mean."""
    sizes, decay, beta = (3, 2), 0.1, 0.4
    given = torch.linspace(-1, 1, 10, dtype=torch.float64).view(5, 2)
    cost = cost_of(sizes, 1, 0, decay, anchor=Anchor(given, beta))
    found = polish(cost, Point(torch.zeros(1, 5, 2, dtype=torch.float64), ()))
    wanted = (cost.targets / 5 + beta * given) / (1 / 5 + decay + beta)
    assert torch.allclose(found.point.features[0], wanted, rtol=0, atol=1e-9)
    assert found.gradient_norm.item() < 1e-9 and 0 < found.iterations[0] < 50


@pytest.mark.parametrize("constraint", ["nonnegative", "sphere", "nonnegative_sphere"])
def test_constrained_features_stay_in_their_set_and_end_at_the_optimum(constraint):
    sizes, temperature = (4, 3, 2), 0.5
    if constraint == "nonnegative":
        problem = Problem("cross_entropy", "linear", sizes, 1, 5e-3, 5e-3, constraint=constraint)
        cost, widths = cost_of(sizes, 2, 1, 5e-3, "cross_entropy", "linear"), (12,)
    else:
        loss = "supervised_contrastive"
        problem = Problem(loss, "linear", sizes, 0, 0, 0, constraint=constraint, temperature=temperature)
        cost, widths = cost_of(sizes, 2, 0, 0.0, loss), ()
        cost = replace(cost, loss=SupervisedContrastive(temperature))
    begin = start(2, sizes, widths) if widths else Point(start(2, sizes, (6,)).features, ())
    features = begin.features.abs() if "nonnegative" in constraint else begin.features.clone()
    Constraint(constraint)(features)
    found = polish(cost, Point(features, begin.weights), constraint=constraint, tolerance=1e-11)
    best = min(one.value for one in references(problem) if one.kind == "optimum")
    total = cost.value(found.point).total
    assert (total / best - 1).abs().max() < 1e-7
    end = found.point.features
    if "sphere" in constraint:
        assert torch.allclose(end.norm(dim=-1), torch.ones(2, sum(sizes), dtype=torch.float64), atol=1e-14)
    assert "nonnegative" not in constraint or end.min() >= 0


def test_frozen_features_do_not_move():
    sizes = (3, 3)
    cost, begin = cost_of(sizes, 2, 1, 1e-2), start(2, sizes, (4,))
    frozen = replace(cost, feature_decay=None, activation="linear")
    features = begin.features[0].clone()
    found = polish(frozen, Point(features, begin.weights), tolerance=1e-12)
    assert torch.equal(found.point.features, features) and found.gradient_norm.max() < 1e-11
    gram = features.T @ features / 6 + 1e-2 * torch.eye(4, dtype=torch.float64)
    ridge = torch.linalg.solve(gram, features.T @ cost.targets / 6).T
    assert torch.allclose(found.point.weights[0], ridge.expand(2, -1, -1), atol=1e-9)


def descended(sizes: tuple[int, ...], widths: tuple[int, ...], decay: float, lr: float, steps: int) -> Descent:
    labels = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    begin = start(4, sizes, widths, scale=0.5)
    settings = {"num_classes": len(sizes), "lr": lr, "weight_decay": decay, "feature_decay": decay}
    found = Descent(begin.features, begin.weights, labels, **settings)
    found.advance(steps)
    return found


@pytest.mark.parametrize("depth", [3, 4])
def test_relu_heads_end_on_their_kinks_at_the_closed_form_after_heavy_ball_steps(depth):
    sizes, decay = (3, 3), 2e-3
    descent = descended(sizes, (16,) * depth, decay, 0.4, 1500)
    optimum = min(one.value for one in references(Problem("mse", "relu", sizes, depth, decay, decay)))
    assert (descent.objective().total / optimum - 1).min() > 1e-4
    found = polish(descent.cost, descent.point, lr=descent.lr)
    assert min(found.steps) > 0 and found.gradient_norm.sort().values[1] < 1e-9
    gaps = descent.cost.value(found.point).total / optimum - 1
    # Not all: at depth 4 a seed has lost a sample, for good, and another rounding may leave one a little above.
    assert gaps.abs().sort().values[1] < 1e-11 and gaps.abs().sort().values[2] < 1e-6
    alone, _ = rolled(descent.cost, descent.point, descent.lr, 4000, "none")
    assert (gaps < descent.cost.value(alone).total / optimum - 1 + 1e-11).all()


def test_heavy_ball_steps_are_those_of_a_descent_and_kept_only_where_they_go_down():
    descent = descended((3, 3), (6, 6), 2e-3, 0.4, 200)
    rates = torch.tensor([0.1, 1e6, 0.2, 50.0], dtype=torch.float64)
    reached, lower = rolled(descent.cost, descent.point, rates, 300, "none")
    assert lower.tolist() == [True, False, True, False]
    for member in (1, 3):
        assert torch.equal(reached.features[member], descent.features[member])
    total = descent.cost.value(reached).total
    assert (total <= descent.objective().total).all() and (total < descent.objective().total).tolist() == lower.tolist()
    settings = {"num_classes": 2, "lr": 0.1, "weight_decay": 2e-3, "feature_decay": 2e-3, "momentum": 0.99}
    labels = torch.tensor([0, 0, 0, 1, 1, 1])
    plain = Descent(descent.features[:1], [weight[:1] for weight in descent.weights], labels, **settings)
    plain.advance(300)
    assert torch.allclose(plain.features[0], reached.features[0], rtol=0, atol=1e-12)


def test_linear_heads_need_no_heavy_ball_steps():
    cost = cost_of((3, 3), 3, 2, 5e-3, activation="linear")
    found = polish(cost, start(3, (3, 3), (5, 5)), lr=torch.full((3,), 0.1, dtype=torch.float64))
    assert found.steps == (0, 0, 0)
