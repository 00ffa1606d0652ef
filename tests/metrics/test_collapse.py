"""Perfect collapse, classes of unequal sizes: what every metric of the core must be then."""

import math

import pytest
import torch
from torch import Tensor

from pipeline.metrics import CollapseMetrics, layer_metrics, metrics
from pipeline.metrics.registry.listing import of_families

SIZES = {2: (100, 10), 3: (1, 20, 5), 10: tuple(range(1, 51, 5))}

AT_COLLAPSE = {
    "active_units": lambda classes: 1 / classes,
    "balancedness": lambda classes: 0,
    "cdnv": lambda classes: 0,
    "classes_counted": lambda classes: classes,
    "classes_left_out": lambda classes: 0,
    "dnc1": lambda classes: 0,
    "dnc1_balanced": lambda classes: 0,
    "dnc2": lambda classes: 1,
    "dnc3": lambda classes: 0,
    "effective_rank": lambda classes: classes - 1,
    "nc1_pinv": lambda classes: 0,
    "nc2_frame": lambda classes: 0,
    "nc2_simplex": lambda classes: 0,
    "nc3_duality": lambda classes: 0,
    "nc4": lambda classes: 0,
    "ncm_accuracy": lambda classes: 1,
    "rank_means": lambda classes: classes,
    "rank_weight": lambda classes: classes,
    "stable_rank_means": lambda classes: classes,
    "stable_rank_weight": lambda classes: classes,
}


def frame(classes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Collapsed rows whose class means are an orthogonal frame, their labels, and the frame."""
    means = 3 * torch.eye(classes, dtype=torch.float64)
    labels = torch.repeat_interleave(torch.arange(classes), torch.tensor(SIZES[classes]))
    return means[labels], labels, means


def measured(classes: int) -> dict[str, Tensor]:
    """By what is collapsed for each metric: rows of a weight on the means, or, of a biased classifier, centred."""
    rows, labels, means = frame(classes)
    hidden = layer_metrics(rows, labels, classes, means, means, decisions=labels, nearest=True)
    last = layer_metrics(rows, labels, classes, means - means.mean(0), decisions=labels)
    return hidden | {"nc3_duality": last["nc3_duality"]}


@pytest.mark.parametrize("classes", SIZES)
def test_every_metric_is_at_its_ideal_value(classes: int) -> None:
    found = measured(classes)
    assert found.keys() == AT_COLLAPSE.keys() == {metric.name for metric in of_families()}
    for name, value in found.items():
        assert float(value) == pytest.approx(AT_COLLAPSE[name](classes), rel=1e-12, abs=1e-12), name
        target = metrics()[name].target
        assert target is None or target == AT_COLLAPSE[name](classes), name


@pytest.mark.parametrize("classes", SIZES)
def test_a_biased_classifier_is_judged_by_the_centred_metrics(classes: int) -> None:
    rows, labels, means = frame(classes)
    simplex = means - means.mean(0)
    of_simplex = layer_metrics(simplex[labels], labels, classes, simplex)
    of_frame = layer_metrics(rows, labels, classes, simplex)
    for found in (of_simplex, of_frame):
        assert float(found["nc2_simplex"]) < 1e-12 and float(found["nc3_duality"]) < 1e-12
    assert of_simplex["dnc2"] == math.inf and float(of_simplex["dnc3"]) < 1e-7
    assert float(of_frame["dnc3"]) == pytest.approx(1 / math.sqrt(classes), rel=1e-12)


@pytest.mark.parametrize("sizes", [(500, 500), (900, 100), (990, 10)])
def test_dnc1_balanced_does_not_move_with_the_class_sizes_alone(sizes: tuple[int, int]) -> None:
    # Every class is the same cloud about its mean, once or several times.
    cloud = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 2.0], [0.0, -2.0], [3.0, 3.0], [-3.0, -3.0]] * 20)
    cloud = cloud[:10] - cloud[:10].mean(0)
    classes = [cloud.repeat(size // 10, 1) * (1 + c) + 2 * c for c, size in enumerate(sizes)]
    labels = torch.repeat_interleave(torch.arange(2), torch.tensor(sizes))
    metric = CollapseMetrics(2, 2)
    metric.update(torch.cat(classes), labels)
    expected = layer_metrics(torch.cat([c[:10] for c in classes]), torch.arange(2).repeat_interleave(10), 2)
    assert float(metric.compute()["dnc1_balanced"]) == pytest.approx(float(expected["dnc1_balanced"]), rel=1e-9)
    assert float(expected["dnc1_balanced"]) == pytest.approx(float(expected["dnc1"]), rel=1e-9)
    assert sizes == (500, 500) or float(metric.compute()["dnc1"]) != pytest.approx(float(expected["dnc1"]), rel=1e-2)
