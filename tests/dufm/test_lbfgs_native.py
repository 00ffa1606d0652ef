"""The C++ kernel searches as the PyTorch one does: the same function, the same steps, the same ends."""

from dataclasses import replace

import pytest
import torch

from pipeline.dufm import lbfgs_native, polish
from pipeline.dufm.charts import Chart
from pipeline.dufm.cost import Anchor, Cost, Point
from pipeline.dufm.lbfgs import Search
from pipeline.dufm.lbfgs_native import NativeSearch, can_search
from pipeline.dufm.model import one_hot
from pipeline.dufm.objectives import load_objective

pytestmark = pytest.mark.skipif(lbfgs_native.library() is None, reason="no working C++ compiler")

MEMBERS = 3


def problem(
    loss: str, activation: str, widths: tuple[int, ...], classes: int, samples: int, constraint: str
) -> tuple[Cost, Point]:
    source = torch.Generator().manual_seed(0)
    normal = {"generator": source, "dtype": torch.float64}
    features = torch.randn(MEMBERS, samples, widths[0], **normal)
    features = features.clamp(min=0) if constraint == "nonnegative" else features
    pairs = zip(widths, (*widths[1:], classes), strict=True)
    weights = tuple(torch.randn(MEMBERS, out, enter, **normal) / enter**0.5 for enter, out in pairs)
    labels = torch.arange(samples).square() % classes
    decay = 1e-2 * (1 + torch.rand(MEMBERS, len(widths) + 1, **normal))
    cost = Cost(one_hot(labels, classes, torch.float64), load_objective(loss), decay[:, 1:], decay[:, 0], activation)
    return cost, Point(features, weights)


def both(cost: Cost, point: Point, constraint: str, masks: list | None) -> tuple[Search, NativeSearch, Chart]:
    chart = Chart(point, constraint, free=True)

    def evaluate(at: torch.Tensor, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        pattern = None if masks is None else [mask[rows] for mask in masks]
        terms, gradient = cost.select(rows.tolist()).value_and_gradients(chart.point(at), pattern)
        return terms.total, chart.pulled_back(at, gradient)

    widths = [weight.shape[-1] for weight in point.weights]
    return Search(evaluate, chart.start), NativeSearch(cost, widths, chart.start, constraint, masks), chart


CASES = [
    ("mse", "relu", (9, 17, 6), 3, 12, "none", False),
    ("cross_entropy", "relu", (8, 5), 9, 20, "none", True),
    ("mse", "relu", (5, 11), 2, 301, "none", True),
    ("cross_entropy", "relu", (5, 6), 3, 10, "nonnegative", False),
    ("cross_entropy", "linear", (11, 9), 10, 30, "none", False),
    ("mse", "linear", (7, 8, 9), 3, 150, "nonnegative", False),
    ("cross_entropy", "relu", (6,), 4, 17, "nonnegative", False),
]


@pytest.mark.parametrize(("loss", "activation", "widths", "classes", "samples", "constraint", "masked"), CASES)
def test_searches_go_the_way_of_those_in_pytorch(loss, activation, widths, classes, samples, constraint, masked):
    cost, point = problem(loss, activation, widths, classes, samples, constraint)
    masks = cost.pattern(point, 0.1) if masked else None
    plain, native, _ = both(cost, point, constraint, masks)
    for iterations, tolerance in ((1, 1e-13), (1, 1e-6), (1, 1e-6)):  # without a history, and with one in float32
        plain.advance(iterations, 0.0)
        assert native.advance(iterations, 0.0) == iterations
        assert torch.equal(native.now, native.position)
        assert (native.now - plain.now).abs().max() < tolerance * plain.now.abs().max()
    assert native.iterations == plain.iterations == [3] * MEMBERS


@pytest.mark.parametrize("activation", ["relu", "linear"])
def test_members_end_where_the_gradient_is_gone_each_after_iterations_of_its_own(activation):
    cost, point = problem("cross_entropy", activation, (7, 6), 3, 12, "none")
    masks = None if activation == "linear" else cost.pattern(point)
    _, native, chart = both(cost, point, "none", masks)
    before = cost.value_and_gradients(point, masks)[0].total
    while len(native.rows):
        assert native.advance(40, 1e-9) > 0
        assert native.now.shape == (len(native.rows), native.position.shape[1])
    end = chart.point(native.position)
    terms, gradient = cost.value_and_gradients(end, masks)
    assert chart.gradient_norm(end, gradient).max() < 1.001e-9
    assert (terms.total < before).all() and len(set(native.iterations)) > 1
    assert native.advance(5, 0.0) == 0  # there is nobody left


def test_a_member_that_is_not_kept_stays_where_it_is():
    cost, point = problem("mse", "relu", (6, 5), 2, 10, "none")
    _, native, _ = both(cost, point, "none", None)
    native.advance(3, 0.0)
    there = native.position[1].clone()
    native.keep(torch.tensor([True, False, True]))
    native.advance(3, 0.0)
    assert native.iterations == [6, 3, 6] and native.rows.tolist() == [0, 2]
    assert torch.equal(native.position[1], there) and not torch.equal(native.position[0], there)


def test_polishing_is_the_same_without_a_compiler(monkeypatch):
    cost, point = problem("cross_entropy", "linear", (6, 5), 3, 12, "none")
    native = polish.polish(cost, point, tolerance=1e-11)
    monkeypatch.setattr(polish, "can_search", lambda *problem: False)
    plain = polish.polish(cost, point, tolerance=1e-11)
    totals = [cost.value(found.point).total for found in (native, plain)]
    assert torch.allclose(*totals, rtol=1e-13, atol=0)
    assert max(native.gradient_norm.max(), plain.gradient_norm.max()) < 1e-10


def test_what_the_kernel_does_not_know_is_searched_in_pytorch():
    cost, point = problem("mse", "relu", (6, 5), 2, 10, "none")
    assert can_search(cost, point, "none") and can_search(cost, point, "nonnegative")
    assert not can_search(cost, point, "sphere")
    assert not can_search(replace(cost, feature_decay=None), point, "none")
    assert not can_search(cost, replace(point, bias=torch.zeros(MEMBERS, 2, dtype=torch.float64)), "none")
    assert not can_search(replace(cost, anchor=Anchor(point.features, 0.1)), point, "none")
    assert not can_search(replace(cost, loss=load_objective("supervised_contrastive")), point, "none")
    assert not can_search(cost, Point(point.features, ()), "none")
