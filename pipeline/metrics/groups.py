"""Groups of samples within classes: how far apart they are, and how well each is told.

After "Neural collapse and fairness" (arXiv 2407.05843); n_cq samples of class c in group q have the mean mu_cq. By the
law of total variance tr Sigma_W is what cells have within, sum_cq (n_cq / N) v_cq, and between them, sum_cq (n_cq / N)
||mu_cq - mu_c||^2. With this family the metrics of "core" are also measured in each group about its own means, under
the suffix "/group=NAME". `group_cosine`, and means over pairs where there are more than two groups, are ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import torch
from torch import Tensor

from pipeline.metrics.engine.cases import CLASSES_COUNT, MEANS_EXIST, NO_BETWEEN_SCATTER, NOT_FINITE
from pipeline.metrics.engine.rows import Rows
from pipeline.metrics.engine.statistics import ClassStatistics
from pipeline.metrics.engine.undefined import Exceptional
from pipeline.metrics.engine.views import unit_rows
from pipeline.metrics.registry import class_value, metric, optional, row_sum

optional(__name__)

ANY_MOTION = ("rotation", "scaling", "translation")

NO_WITHIN = Exceptional(
    "the samples of every class coincide (zero within-class scatter)",
    lambda statistics, *_: statistics.within_trace <= statistics.noise_floor,
)
NOT_IN_TWO = Exceptional(
    "no class has samples in two groups",
    lambda statistics, groups: torch.as_tensor(not any(bool(both.any()) for *_, both in _pairs(groups))),
)
NO_COSINE = Exceptional(
    "every class has a mean of zero in all groups but one",
    lambda statistics, groups: group_cosines(statistics, groups).isnan().all(-1),
)
LACKING = Exceptional(
    "the class has samples in fewer than two groups, or a mean of zero there",
    lambda statistics, groups: group_cosines(statistics, groups).isnan(),
)
UNJUDGED = Exceptional("no sample of the class is judged", lambda *a: a[-1][..., 2, :] == 0)
NOT_JUDGED = Exceptional("no sample is judged", lambda *a: a[-1][..., 2, :].sum(-1) == 0)
NO_POSITIVES = Exceptional("the class that counts has no samples", lambda *a: _one_class(a[-1])[..., 2, :].sum(-1) == 0)


def _between(one: ClassStatistics, other: ClassStatistics) -> Tensor:
    """Class means of one less those of the other, by their anchors: `(..., K, d)`."""
    return (one.anchors - other.anchors) + (one.drifts - other.drifts)


def _pairs(groups: Sequence[ClassStatistics]) -> list[tuple[ClassStatistics, ClassStatistics, Tensor]]:
    """Every two groups, and which classes both have, `(K,)`."""
    return [(one, other, (one.counts > 0) & (other.counts > 0)) for one, other in combinations(groups, 2)]


def _mean_of_pairs(found: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """Mean over pairs of groups of values of each class `(..., K)`, by pairs in which both have the class; NaN for a
    class of which there is none."""
    total = sum(torch.where(both, values, 0.0) for values, both in found)
    pairs = sum(both.to(torch.float64) for _, both in found)
    return torch.where(pairs > 0, total / torch.as_tensor(pairs).clamp(min=1), float("nan"))


@metric(*MEANS_EXIST, NO_WITHIN, title="Share of scatter between groups", scale="linear", invariant=ANY_MOTION)
def group_share(statistics: ClassStatistics, groups: Sequence[ClassStatistics]) -> Tensor:
    """sum_cq n_cq ||mu_cq - mu_c||^2 / (N tr Sigma_W): how much of the scatter within classes is the groups'."""
    between = sum((group.counts * _between(group, statistics).square().sum(-1)).sum(-1) for group in groups)
    return between / (statistics.counts.sum() * statistics.within_trace)


@metric(*MEANS_EXIST, NO_BETWEEN_SCATTER, NOT_IN_TWO, title="Distance of groups", target=0.0, invariant=ANY_MOTION)
def group_gap(statistics: ClassStatistics, groups: Sequence[ClassStatistics]) -> Tensor:
    """(1/K) sum_c ||mu_c0 - mu_c1||^2 / tr Sigma_B, over classes that both groups have; mean over pairs of groups."""
    found = [(_between(one, other).square().sum(-1), both) for one, other, both in _pairs(groups)]
    if not found:
        return torch.full_like(statistics.within_trace, float("nan"))
    return _mean_of_pairs(found).nanmean(-1) / statistics.between_trace


@metric(
    *MEANS_EXIST,
    NOT_IN_TWO,
    NO_COSINE,
    title="Cosine of the means of groups",
    target=1.0,
    scale="linear",
    invariant=("rotation", "scaling"),
)
def group_cosine(statistics: ClassStatistics, groups: Sequence[ClassStatistics]) -> Tensor:
    """Mean over classes of cos(mu_c0, mu_c1), of classes that both groups have; mean over pairs of groups."""
    return group_cosines(statistics, groups).nanmean(-1)


def group_cosines(statistics: ClassStatistics, groups: Sequence[ClassStatistics]) -> Tensor:
    """cos(mu_c0, mu_c1) of every class, `(..., K)`; NaN for one that all but a group lack, or have means of zero of."""
    found = [(_cosines(one.means, other.means), both) for one, other, both in _pairs(groups)]
    if not found:
        return torch.full_like(statistics.scatter, float("nan"))
    return _mean_of_pairs([(cosine.nan_to_num(nan=0.0), both & ~cosine.isnan()) for cosine, both in found])


def _cosines(means: Tensor, others: Tensor) -> Tensor:
    """Of rows one by one, `(..., K)`; NaN for a row of zero."""
    (one, has), (other, have) = unit_rows(means), unit_rows(others)
    return torch.where(has & have, (one * other).sum(-1), float("nan"))


# --- decisions -------------------------------------------------------------------------------------------------------


def _table(rows: Rows, decided: Tensor) -> Tensor:
    """How many samples of each class are told, how many are decided for, how many there are, `(..., 3, K)`."""
    classes = torch.arange(rows.own.num_classes, device=rows.labels.device)
    own, chosen = rows.labels[..., None] == classes, decided[..., None] == classes
    own = own.expand(chosen.shape)
    return torch.stack([(own & chosen).sum(-2), chosen.sum(-2), own.sum(-2)], -2).to(torch.float64)


@row_sum(needs=("decisions",), shape=lambda num_classes, num_features: (3, num_classes))
def confusion(rows: Rows) -> Tensor:
    """What the network decides, `(..., 3, K)`."""
    return _table(rows, rows.decisions)


@row_sum(needs=("nearest",), shape=lambda num_classes, num_features: (3, num_classes))
def ncm_confusion(rows: Rows) -> Tensor:
    """What the nearest class mean decides, `(..., 3, K)`."""
    return _table(rows, rows.nearest)


def _one_class(confusion: Tensor) -> Tensor:
    """Of two classes the second, which is the positive one; of more all."""
    return confusion[..., 1:] if confusion.shape[-1] == 2 else confusion


def _f1(confusion: Tensor) -> Tensor:
    told, decided, there = _one_class(confusion).unbind(-2)
    return torch.where(there > 0, 2 * told / (decided + there).clamp(min=1), float("nan")).nanmean(-1)


def _recall(confusion: Tensor) -> Tensor:
    told, _, there = _one_class(confusion).unbind(-2)
    return torch.where(there > 0, told / there.clamp(min=1), float("nan")).nanmean(-1)


@metric(NOT_JUDGED, title="Accuracy", target=1.0, scale="linear", invariant=ANY_MOTION)
def accuracy(confusion: Tensor) -> Tensor:
    """Share of samples for whose class the network decides."""
    return confusion[..., 0, :].sum(-1) / confusion[..., 2, :].sum(-1)


@metric(NOT_JUDGED, NO_POSITIVES, title="F1", target=1.0, scale="linear", invariant=ANY_MOTION)
def f1(confusion: Tensor) -> Tensor:
    """F1 of the network's decisions: of class 1 where there are two, else the mean over classes with samples."""
    return _f1(confusion)


@metric(NOT_JUDGED, NO_POSITIVES, title="True-positive rate", target=1.0, scale="linear", invariant=ANY_MOTION)
def true_positive_rate(confusion: Tensor) -> Tensor:
    """Share of the samples of class 1 that the network tells, or its mean over classes where there are more."""
    return _recall(confusion)


@metric(
    NOT_FINITE,
    NOT_JUDGED,
    NO_POSITIVES,
    title="F1 of the nearest class mean",
    target=1.0,
    scale="linear",
    invariant=ANY_MOTION,
)
def ncm_f1(statistics: ClassStatistics, ncm_confusion: Tensor) -> Tensor:
    """F1 of the decisions for the nearest class mean."""
    return _f1(ncm_confusion)


@metric(NOT_FINITE, title="Samples", scale="linear", invariant=ANY_MOTION)
def samples(statistics: ClassStatistics) -> Tensor:
    """Number of samples of the classes that count."""
    return torch.zeros_like(statistics.active) + statistics.counts.sum()


# --- of each class ---------------------------------------------------------------------------------------------------


@class_value("group_cosine", *CLASSES_COUNT, of_class=(LACKING,), title="Cosine of the means of groups", target=1.0)
def cosines_of_groups(statistics: ClassStatistics, groups: Sequence[ClassStatistics]) -> Tensor:
    """cos(mu_c0, mu_c1), mean over pairs of groups that both have the class."""
    return group_cosines(statistics, groups)


@class_value("true_positive_rate", of_class=(UNJUDGED,), title="True-positive rate of the class", target=1.0)
def recalls(confusion: Tensor) -> Tensor:
    """Share of the samples of the class that the network tells."""
    return confusion[..., 0, :] / confusion[..., 2, :]
