"""The whole function that heads minimise: value, gradients, and the trajectories of the published systems."""

import pytest
import torch
from torch import Tensor

from pipeline import dufm
from pipeline.dufm import Anchor, Constraint, Cost, Point
from pipeline.dufm.descent import Descent
from pipeline.dufm.objectives import load_objective
from pipeline.dufm.objectives.supervised_contrastive import SupervisedContrastive
from pipeline.runtime.randomness import generator

MSE, CROSS_ENTROPY = load_objective("mse"), load_objective("cross_entropy")
SIZES = (4, 3, 2)
LABELS = torch.arange(3).repeat_interleave(torch.tensor(SIZES))
MEMBERS = 3


def drawn(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator(0, f"cost/{shape}"), dtype=torch.float64)


CASES = {
    "deep": (MSE, [(6, 5), (3, 6)], "relu", False, False),
    "bias": (CROSS_ENTROPY, [(6, 5), (3, 6)], "linear", True, False),
    "decayed bias": (MSE, [(6, 5), (3, 6)], "relu", True, False),
    "anchor": (MSE, [(3, 5)], "relu", True, True),
    "contrastive": (SupervisedContrastive(0.7), [(6, 5), (4, 6)], "relu", False, True),
    "no weights": (SupervisedContrastive(0.7), [], "relu", False, True),
}


@pytest.mark.parametrize("case", list(CASES))
@pytest.mark.parametrize("momentum", [0.0, 0.7])
def test_value_gradients_and_steps_are_those_of_autograd(case, momentum):
    loss, shapes, activation, with_bias, with_anchor = CASES[case]
    targets = dufm.one_hot(LABELS, 3, torch.float64)
    features, weights = drawn(MEMBERS, 9, 5), tuple(0.5 * drawn(MEMBERS, *shape) for shape in shapes)
    bias = drawn(MEMBERS, 3) if with_bias else None
    anchor = Anchor(drawn(9, 5).cos(), 0.3) if with_anchor else None
    decay = torch.rand(MEMBERS, len(weights), dtype=torch.float64, generator=generator(1, "decay"))
    mu = 0.4 if case == "decayed bias" else 0.0
    cost = Cost(targets, loss, decay, torch.tensor([0.0, 0.1, 0.2]).double(), activation, anchor, mu)

    leaves = [it.clone().requires_grad_() for it in (features, *weights, *([bias] if with_bias else []))]
    point = Point(leaves[0], tuple(leaves[1 : 1 + len(weights)]), leaves[-1] if with_bias else None)
    value = cost.value(point)
    parts = (value.fit, value.weight_penalty, value.feature_penalty, value.anchor_penalty, value.bias_penalty)
    of_bias = mu / 2 * bias.square().sum(dim=1) if mu else torch.zeros(MEMBERS).double()
    torch.testing.assert_close(value.bias_penalty.detach(), of_bias, rtol=1e-14, atol=0)
    torch.testing.assert_close(value.total, sum(parts), rtol=1e-14, atol=0)
    if with_anchor:
        by_hand = 0.15 * (features - anchor.features).square().sum(dim=(1, 2))
        torch.testing.assert_close(value.anchor_penalty.detach(), by_hand, rtol=1e-13, atol=0)
    expected = torch.autograd.grad(value.total.sum(), leaves)
    again, found = cost.value_and_gradients(Point(features, weights, bias))
    torch.testing.assert_close(again.total, value.total.detach(), rtol=1e-13, atol=0)
    for one, other in zip(
        (found.features, *found.weights, *([found.bias] if with_bias else [])), expected, strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-13)

    outputs = shapes[-1][0] if shapes else 3
    wide = None if outputs == 3 else torch.nn.functional.pad(targets, (0, outputs - 3))
    descent = Descent(
        features, weights, LABELS, num_classes=outputs, targets=wide, lr=0.05, weight_decay=decay, loss=loss,
        feature_decay=cost.feature_decay, momentum=momentum, activation=activation, bias=bias, anchor=anchor,
        bias_decay=mu,
    )  # fmt: skip
    assert descent.backend == ("native" if case == "deep" and descent.why_not_native is None else "torch")
    descent.advance(7)
    optimizer = torch.optim.SGD(leaves, 0.05, momentum=momentum)
    for _ in range(7):
        optimizer.zero_grad()
        cost.value(point).total.sum().backward()
        optimizer.step()
    reached = descent.point
    moved = (reached.features, *reached.weights, *([reached.bias] if with_bias else []))
    for one, other in zip(moved, leaves, strict=True):
        torch.testing.assert_close(one, other.detach(), rtol=1e-11, atol=1e-13)
    torch.testing.assert_close(descent.objective().total, cost.value(point).total.detach(), rtol=1e-12, atol=0)


def test_a_pattern_leaves_out_what_is_little_in_its_layer_or_for_its_unit():
    given = torch.tensor([[[1.0, 0.2, -1.0], [0.4, 0.0, 0.05], [0.6, 0.1, 0.0]]]).double()
    weights = (torch.eye(3).double()[None], drawn(1, 2, 3))
    cost = Cost(drawn(3, 2), MSE, torch.full((1, 2), 0.1, dtype=torch.float64))

    def fires(*shares: float) -> list[list[int]]:
        return cost.pattern(Point(given, weights), *shares)[0][0].int().tolist()

    assert fires() == [[1, 1, 0], [1, 0, 1], [1, 1, 0]]
    assert fires(0.15) == [[1, 1, 0], [1, 0, 0], [1, 0, 0]]
    assert fires(0.0, 0.5) == [[1, 1, 0], [0, 0, 1], [1, 0, 0]]
    assert fires(0.15, 0.7) == [[1, 1, 0], [0, 0, 0], [0, 0, 0]]


def test_frozen_features_have_no_gradient():
    cost = Cost(drawn(9, 3), MSE, torch.full((1, 1), 0.1, dtype=torch.float64))
    _, found = cost.value_and_gradients(Point(drawn(9, 5), (drawn(1, 3, 5),)))
    assert found.features is None and found.weights[0].shape == (1, 3, 5)


def test_a_descent_goes_on_from_its_state_with_bias_and_anchor():
    def fresh() -> Descent:
        return Descent(
            drawn(MEMBERS, 9, 5), [drawn(MEMBERS, 3, 5)], LABELS, num_classes=3, lr=0.1, weight_decay=1e-2,
            feature_decay=0.0, momentum=0.5, bias=torch.zeros(3).double(), anchor=Anchor(drawn(MEMBERS, 9, 5), 0.1),
            constraint=Constraint("nonnegative_sphere"),
        )  # fmt: skip

    straight, first, second = fresh(), fresh(), fresh()
    straight.advance(20)
    first.advance(8)
    second.load_state_dict(first.state_dict())
    second.advance(12)
    for one, other in zip((straight.features, straight.bias), (second.features, second.bias), strict=True):
        assert torch.equal(one, other)
    assert straight.without_direction == second.without_direction > 0


def test_a_decay_of_no_bias_is_refused():
    with pytest.raises(ValueError, match=r"bias_decay must be 0 without a bias, got 0\.1"):
        Descent(drawn(9, 5), [drawn(3, 5)], LABELS, num_classes=3, lr=0.1, weight_decay=1e-2, bias_decay=0.1)
    with pytest.raises(ValueError, match=r"bias_decay must be finite and >= 0, got -1"):
        Descent(
            drawn(9, 5), [drawn(3, 5)], LABELS, num_classes=3, lr=0.1, weight_decay=1e-2, bias_decay=-1,
            bias=torch.zeros(3).double(),
        )  # fmt: skip
