"""The whole function that heads minimise: value, gradients, and the trajectories of the published systems."""

import pytest
import torch
from torch import Tensor

from pipeline import dufm
from pipeline.dufm import Anchor, Constraint, Cost, Point
from pipeline.dufm.descent import Descent
from pipeline.dufm.objectives import Objective, load_objective
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
    cost = Cost(targets, loss, decay, torch.tensor([0.0, 0.1, 0.2]).double(), activation, anchor)

    leaves = [it.clone().requires_grad_() for it in (features, *weights, *([bias] if with_bias else []))]
    point = Point(leaves[0], tuple(leaves[1 : 1 + len(weights)]), leaves[-1] if with_bias else None)
    value = cost.value(point)
    parts = (value.fit, value.weight_penalty, value.feature_penalty, value.anchor_penalty)
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


# DUFM_FAMILY.md, section T: values of F after 0, 1, 100 and 300 steps, derived there with an independent program.
TRAJECTORIES = {
    "T1": (1.04562294069, 1.03055943549, 0.020888808445, 0.0193541676096),
    "T2": (1.12135695295, 1.11824391742, 0.384351231164, 0.275480047871),
    "T3": (1.11466113354, 1.09876103318, 0.267861163558, 0.261823462253),
    "T4": (3.08536612155, 2.08680595025, 0.0669883753474, 0.0406171625721),
    "T5": (1.91218238575, 1.83279920059, 0.887052832823, 0.887041327332),
    "T6": (2.40940852233, 2.21211282753, 0.673153841745, 0.673078759893),
    "T7": (0.918913976247, 0.810410221152, 0.101291696981, 0.024452491188),
    "T8": (0.520915444064, 0.507560706657, 0.248198481697, 0.129052718196),
}


def features_at_start(samples: int, width: int) -> Tensor:
    i, a = torch.arange(samples).double()[:, None], torch.arange(width).double()
    return 0.5 * torch.sin(1.3 * i + 0.7 * a + 0.1)


def weight_at_start(layer: int, outputs: int, inputs: int) -> Tensor:
    o, a = torch.arange(outputs).double()[:, None], torch.arange(inputs).double()
    return 0.4 * torch.cos(0.9 * o + 1.1 * a + layer)


def waves(samples: int) -> Tensor:
    i = torch.arange(1, samples + 1).double()
    rows = (i.sin(), 0.5 * (1.7 * i).cos() + 0.3 * i.sin(), 0.2 * (0.3 * i**2).sin())
    return torch.stack(rows, dim=1) + torch.tensor([1.0, -2.0, 0.5]).double()


def trajectory(name: str) -> Descent:
    loss: Objective = {"T4": MSE, "T7": MSE, "T8": MSE}.get(name, CROSS_ENTROPY)
    sizes = (3, 3, 2) if name in ("T5", "T6") else SIZES
    samples = 12 if name == "T4" else sum(sizes)
    widths = {"T1": [5, 5], "T4": [5, 5], "T2": [5, 6, 5], "T8": [5, 6, 5], "T5": [], "T6": []}.get(name, [5])
    decays = {"T3": (1e-3,), "T7": (1e-3,)}.get(name, (1e-3, 2e-3, 3e-3)[: len(widths)])
    outputs = [*widths[1:], 3]
    weights = [weight_at_start(layer, *shape) for layer, shape in enumerate(zip(outputs, widths, strict=False), 1)]
    more = {}
    if name in ("T5", "T6"):
        loss = SupervisedContrastive(0.5)
        more["constraint"] = Constraint("nonnegative_sphere" if name == "T5" else "sphere")
    elif name == "T3":
        more["constraint"] = Constraint("nonnegative")
    elif name == "T4":
        more |= {"targets": waves(12), "bias": torch.zeros(3, dtype=torch.float64)}
    elif name == "T7":
        i, a = torch.arange(samples).double()[:, None], torch.arange(5).double()
        more["anchor"] = Anchor((0.5 * i + 0.3 * a).cos(), 0.02)
    labels = None if name == "T4" else torch.arange(3).repeat_interleave(torch.tensor(sizes))
    return Descent(
        features_at_start(samples, 5), weights, labels, num_classes=3, lr=0.2 if name in ("T4", "T5", "T6") else 0.5,
        weight_decay=torch.tensor(decays, dtype=torch.float64), feature_decay=0.0 if name in ("T5", "T6") else 5e-4,
        activation="linear" if name in ("T1", "T4") else "relu", loss=loss, **more,
    )  # fmt: skip


@pytest.mark.parametrize("name", list(TRAJECTORIES))
def test_published_trajectories_come_out(name):
    descent, found = trajectory(name), []
    for stop in (0, 1, 100, 300):
        descent.advance(stop - descent.step)
        found.append(descent.objective().total.item())
    assert found == pytest.approx(TRAJECTORIES[name], rel=1e-9, abs=0)
