"""Many classes are measured as few are, to 1e-10, and with nothing K x K in memory."""

import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pipeline.metrics import ClassStatistics, CollapseMetrics, layer_metrics, undefined_reasons
from pipeline.metrics.engine import class_pairs, many_classes, nearest, pairs
from pipeline.metrics.engine.class_pairs import pair_totals

CORE = ["dnc1", "nc1_pinv", "effective_rank", "cdnv", "dnc2", "nc2_frame", "nc2_simplex", "rank_means", "dnc3", "nc4"]
CORE += ["ncm_accuracy", "stable_rank_means", "rank_weight", "stable_rank_weight", "nc3_duality"]


def draw(classes: int, width: int, offset: float = 0.0, close: int = 0, members: tuple[int, ...] = ()) -> dict:
    """Rows of classes of two sizes, some means of which lie 1e-5 apart, with a classifier and its decisions."""
    generator = torch.Generator().manual_seed(0)
    normal = lambda *shape: torch.randn(*members, *shape, generator=generator, dtype=torch.float64)  # noqa: E731
    means = normal(classes, width)
    means[..., :close, :] = means[..., :1, :] + 1e-5 * normal(close, width)
    labels = torch.cat([torch.arange(classes).repeat(3), torch.arange(classes // 2)])
    spread = torch.where(labels < close, 1e-6, 0.3)[:, None]
    features = means[..., labels, :] + spread * normal(len(labels), width) + offset
    weight = normal(classes, width)
    decisions = (features @ weight.mT).argmax(-1)
    return {"features": features, "labels": labels, "num_classes": classes, "weight": weight, "decisions": decisions}


@pytest.fixture
def forced(monkeypatch):
    """Two classes are many, and tiles are small."""

    def force() -> None:
        monkeypatch.setattr(many_classes, "MANY", 2)
        monkeypatch.setattr(pairs, "TILE", 16)
        monkeypatch.setattr(nearest, "TILE", 16)

    return force


@pytest.mark.parametrize(
    ("classes", "width", "offset", "close", "members"),
    [
        (37, 60, 0.0, 0, ()),
        (37, 60, 1e3, 0, ()),  # an offset does not cost digits
        (37, 5, 1.0, 0, ()),
        (60, 37, 3.0, 4, ()),  # a few pairs are measured by differences
        (60, 37, 3.0, 40, ()),  # whole tiles are
        (20, 30, 1.0, 3, (2,)),
    ],
)
def test_many_classes_are_measured_as_few(forced, classes, width, offset, close, members):
    given = draw(classes, width, offset, close, members)
    few = layer_metrics(**given, nearest=True)
    forced()
    many = layer_metrics(**given, nearest=True)
    assert list(many) == list(few) and set(CORE) <= set(few)
    for name, value in few.items():
        torch.testing.assert_close(many[name], value, rtol=1e-10, atol=1e-13, msg=name)


@pytest.mark.parametrize("covariance", [False, True])
def test_a_stream_of_many_classes_is_measured_as_one_of_few(forced, covariance):
    given = draw(37, 9)
    batches = [given[name].split(50) for name in ("features", "labels", "decisions")]

    def streamed() -> dict[str, torch.Tensor]:
        metric = CollapseMetrics(37, 9, covariance=covariance, metrics=CORE)
        for features, labels, _ in zip(*batches, strict=True):
            metric.update(features, labels)
        for batch in zip(*batches, strict=True):
            metric.look_again(*batch)
        return metric.compute(weight=given["weight"])

    few = streamed()
    forced()
    for name, value in streamed().items():
        torch.testing.assert_close(value, few[name], rtol=1e-10, atol=1e-13, msg=name)


def test_collapse_of_many_classes_is_seen_to_rounding(forced):
    forced()
    frame, labels = torch.eye(40, dtype=torch.float64), torch.arange(40).repeat(2)
    at_frame = pair_totals(ClassStatistics.from_features(frame[labels], labels, 40))
    assert float(at_frame.off_frame) < 1e-14 and float(at_frame.off_simplex) < 1e-14
    assert float(at_frame.cdnv) == 0 and float(at_frame.closest) == pytest.approx(2)
    simplex = pair_totals(ClassStatistics.from_features(frame[labels] - 1 / 40, labels, 40))
    assert float(simplex.off_simplex) < 1e-14
    # I - 1 1^T / K over its norm, against I over its own: 2 - 2 (K - 1) / sqrt(K (K - 1)).
    assert float(simplex.off_frame) == pytest.approx(math.sqrt(2 - 2 * math.sqrt(39 / 40)))


def test_equal_means_among_many_are_named(forced):
    forced()
    given = draw(40, 6)
    labels = torch.arange(40)
    means = given["features"][labels].clone()  # the first forty rows are of different classes
    means[39] = means[3]
    found = undefined_reasons(means, labels, 40)
    assert found["cdnv"] == "two class means coincide"


def test_the_first_of_equally_near_means_is_the_nearest_in_whatever_block(forced):
    forced()
    # Means at +-1 on the axes of a plane, each twenty times: every class of the first four wins.
    corners = torch.tensor([[1.0, 0], [0, 1], [-1, 0], [0, -1]], dtype=torch.float64).repeat(20, 1)
    labels = torch.arange(80)
    found = layer_metrics(corners, labels, 80, nearest=True)
    assert float(found["ncm_accuracy"]) == pytest.approx(4 / 80)


class Largest(TorchDispatchMode):
    """Remembers the largest tensor that any operation gave."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        for each in tree_leaves(found):
            if isinstance(each, torch.Tensor):  # what is expanded takes no memory
                self.elements = max(self.elements, each.untyped_storage().nbytes() // each.element_size())
        return found


def test_nothing_of_many_classes_is_as_large_as_all_their_pairs(monkeypatch):
    monkeypatch.setattr(pairs, "TILE", 64)
    monkeypatch.setattr(nearest, "TILE", 64)
    monkeypatch.setattr("pipeline.metrics.core.ROWS_BY_CLASSES", 1 << 14)
    monkeypatch.setattr("pipeline.metrics.engine.intake.TILE_ELEMENTS", 1 << 12)
    classes, width = many_classes.MANY, 4
    given = draw(classes, width)
    metric = CollapseMetrics(classes, width, covariance=False, metrics=CORE)
    with Largest() as mode:
        metric.update(given["features"], given["labels"])
        for batch in zip(*(given[name].split(200) for name in ("features", "labels", "decisions")), strict=True):
            metric.look_again(*batch)
        found = metric.compute(weight=given["weight"])
    assert math.isfinite(found["cdnv"]) and class_pairs.are_many(metric.statistics)
    assert mode.elements < classes**2 / 2
