"""Cosines between rows of a class, of classes, and with the rows of the classifier.

After "Towards understanding neural collapse: the effects of batch normalization and weight decay" (arXiv 2309.04644):
with unit rows u_i = z_i / ||z_i|| and their means ubar_c over a class, intra_c = (1/n_c^2) sum_ij cos(z_i, z_j) =
||ubar_c||^2 (pairs i = j included) and inter_cd = <ubar_c, ubar_d>. Rows of norm zero have no direction; they are left
out, and `zero_rows` counts them. Collapse to a simplex is intra 1 and inter -1/(K-1); rows after a ReLU have inter of
at least 0, so that -1/(K-1) is out of their reach unless they are centred.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.metrics.engine.cases import CLASSES_COUNT, MEANS_EXIST, NOT_FINITE, TOO_FEW, WEIGHT_EXISTS
from pipeline.metrics.engine.rows import Rows
from pipeline.metrics.engine.statistics import ClassStatistics
from pipeline.metrics.engine.undefined import Exceptional
from pipeline.metrics.engine.views import unit_rows
from pipeline.metrics.registry import class_value, metric, optional, row_sum

optional(__name__)

ABOUT_ZERO = ("rotation", "scaling")
ANY_MOTION = (*ABOUT_ZERO, "translation")

NEAR = 0.05
"""How far a cosine may be from -1 or 0 to count as opposite or orthogonal; ours."""

NOBODY = Exceptional("no row has a direction: there are none, or all are zero", lambda unit, *_: unit.occupied == 0)
ALONE = Exceptional(
    "the data hold one class only", lambda unit, *_: (unit.occupied == 1) & torch.tensor(unit.counted is not None)
)
NO_ROW = Exceptional("no row of some class has a direction", lambda unit, *_: unit.occupied < unit.num_classes)
UNITS_COUNT = (NOT_FINITE, NOBODY, ALONE, TOO_FEW)
UNITS_EXIST = (*UNITS_COUNT, NO_ROW)
"""In place of `MEANS_EXIST`, of the statistics of unit rows."""

NO_PAIR = Exceptional("no class has two rows with a direction", lambda unit, *_: (unit.counts < 2).all())
NO_CENTRED = Exceptional(
    "no row of some class differs from the mean of all rows",
    lambda statistics, units: (units[..., -1] == 0).any(-1),
)
ZERO_ROW = Exceptional("a row of the weight is zero", lambda *a: (torch.linalg.vector_norm(a[-1], dim=-1) == 0).any(-1))
NO_DIRECTION = Exceptional("no row of the class has a direction", lambda unit, *_: unit.counts == 0)
ONE_ROW = Exceptional("the class has one row with a direction", lambda unit, *_: unit.counts < 2)
AT_MEAN = Exceptional("no row of the class differs from the mean of all rows", lambda _, units: units[..., -1] == 0)


def intra(unit: ClassStatistics) -> Tensor:
    """Mean cosine of two rows of a class, `(..., K)`, of the class statistics of unit rows."""
    return unit.means.square().sum(-1)


def intra_off(unit: ClassStatistics) -> Tensor:
    """The same over pairs of two different rows, `(..., K)`; NaN for a class of one row."""
    pairs = unit.counts * (unit.counts - 1)
    without = (unit.counts.square() * intra(unit) - unit.counts) / pairs.clamp(min=1)
    return torch.where(pairs > 0, without, float("nan"))


def inter(unit: ClassStatistics) -> Tensor:
    """Mean cosine of rows of two classes, `(..., K (K - 1) / 2)` for all pairs i < j."""
    return _of_pairs(unit.means, unit.pairs)


def _of_pairs(means: Tensor, pairs: Tensor) -> Tensor:
    first, second = pairs
    return (means @ means.mT)[..., first, second]


@metric(*UNITS_EXIST, title="Smallest cosine within a class", target=1.0, scale="linear", invariant=ABOUT_ZERO)
def cos_intra_min(unit: ClassStatistics) -> Tensor:
    """Smallest over classes of the mean cosine of two rows of a class, pairs of a row with itself included."""
    return intra(unit).amin(-1)


@metric(*UNITS_EXIST, title="Mean cosine within classes", target=1.0, scale="linear", invariant=ABOUT_ZERO)
def cos_intra_mean(unit: ClassStatistics) -> Tensor:
    """Mean over classes of the mean cosine of two rows of a class, pairs of a row with itself included."""
    return intra(unit).mean(-1)


@metric(
    *UNITS_EXIST,
    NO_PAIR,
    title="Mean cosine of different rows of a class",
    target=1.0,
    scale="linear",
    invariant=ABOUT_ZERO,
)
def cos_intra_off(unit: ClassStatistics) -> Tensor:
    """Mean over classes of two rows or more of the mean cosine of two different rows of a class."""
    return intra_off(unit).nanmean(-1)


@metric(*UNITS_EXIST, title="Largest cosine between classes", scale="linear", invariant=ABOUT_ZERO)
def cos_inter_max(unit: ClassStatistics) -> Tensor:
    """Largest over pairs of classes of the mean cosine of rows of the two; at least 0 for rows after a ReLU."""
    return inter(unit).amax(-1)


@metric(*UNITS_EXIST, title="Mean cosine between classes", scale="linear", invariant=ABOUT_ZERO)
def cos_inter_mean(unit: ClassStatistics) -> Tensor:
    """Mean over pairs of classes of the mean cosine of rows of the two; -1/(K-1) for a simplex."""
    return inter(unit).mean(-1)


@metric(*UNITS_EXIST, title="Share of opposite pairs of classes", scale="linear", invariant=ABOUT_ZERO)
def opposite_pairs(unit: ClassStatistics) -> Tensor:
    """Share of pairs of classes whose rows have a mean cosine within `NEAR` of -1."""
    return (inter(unit) <= NEAR - 1).double().mean(-1)


@metric(*UNITS_EXIST, title="Share of orthogonal pairs of classes", scale="linear", invariant=ABOUT_ZERO)
def orthogonal_pairs(unit: ClassStatistics) -> Tensor:
    """Share of pairs of classes whose rows have a mean cosine within `NEAR` of 0."""
    return (inter(unit).abs() <= NEAR).double().mean(-1)


@metric(NOT_FINITE, title="Rows of norm zero", scale="linear", invariant=ABOUT_ZERO)
def zero_rows(statistics: ClassStatistics, unit: ClassStatistics) -> Tensor:
    """Number of rows of norm zero, which have no direction and are left out of cosines."""
    return torch.zeros_like(statistics.active) + (statistics.counts.sum() - unit.counts.sum())


@metric(
    *UNITS_EXIST,
    *WEIGHT_EXISTS,
    ZERO_ROW,
    title="NC3: mean cosine of features with their row of $W$",
    target=1.0,
    scale="linear",
    invariant=ABOUT_ZERO,
)
def nc3_cosine(unit: ClassStatistics, classifier: Tensor) -> Tensor:
    """(1/N) sum_i cos(z_i, w_{y_i}): the mean cosine of features with the row of the last weight of their class."""
    rows, _ = unit_rows(classifier)
    return (unit.counts * (unit.means * rows).sum(-1)).sum(-1) / unit.counts.sum().clamp(min=1)


# --- about the mean of all rows: this has to be known first ----------------------------------------------------------


@row_sum(shape=lambda num_classes, num_features: (num_classes, num_features + 1))
def centred_units(rows: Rows) -> Tensor:
    """Sums by class of rows less the mean of all, at length one, and how many have a direction, `(..., K, d + 1)`."""
    own = rows.own
    # By the anchor of the row's class: an offset common to all rows cancels before anything rounds.
    offsets = own.centred_means - own.drifts
    centred = rows.deviations + offsets.index_select(-2, rows.labels)
    has_direction = (centred.square().sum(-1) > own.noise_floor[..., None])[..., None]
    units = torch.where(has_direction, unit_rows(centred)[0], 0.0)
    summed = torch.cat([units, has_direction.to(units)], -1)
    sums = summed.new_zeros(*summed.shape[:-2], own.num_classes, summed.shape[-1])
    return sums.index_add_(-2, rows.labels, summed)


def _centred_means(centred_units: Tensor) -> Tensor:
    return centred_units[..., :-1] / centred_units[..., -1:]


def _centred_inter(statistics: ClassStatistics, centred_units: Tensor) -> Tensor:
    return _of_pairs(_centred_means(centred_units), statistics.pairs)


@metric(
    *MEANS_EXIST,
    NO_CENTRED,
    title="Smallest cosine within a class, about the mean",
    target=1.0,
    scale="linear",
    invariant=ANY_MOTION,
)
def cos_centred_intra_min(statistics: ClassStatistics, centred_units: Tensor) -> Tensor:
    """`cos_intra_min` of rows less the mean of all rows."""
    return _centred_means(centred_units).square().sum(-1).amin(-1)


@metric(
    *MEANS_EXIST,
    NO_CENTRED,
    title="Mean cosine within classes, about the mean",
    target=1.0,
    scale="linear",
    invariant=ANY_MOTION,
)
def cos_centred_intra_mean(statistics: ClassStatistics, centred_units: Tensor) -> Tensor:
    """`cos_intra_mean` of rows less the mean of all rows."""
    return _centred_means(centred_units).square().sum(-1).mean(-1)


@metric(
    *MEANS_EXIST,
    NO_CENTRED,
    title="Largest cosine between classes, about the mean",
    scale="linear",
    invariant=ANY_MOTION,
)
def cos_centred_inter_max(statistics: ClassStatistics, centred_units: Tensor) -> Tensor:
    """`cos_inter_max` of rows less the mean of all rows; -1/(K-1) for a simplex."""
    return _centred_inter(statistics, centred_units).amax(-1)


@metric(
    *MEANS_EXIST,
    NO_CENTRED,
    title="Mean cosine between classes, about the mean",
    scale="linear",
    invariant=ANY_MOTION,
)
def cos_centred_inter_mean(statistics: ClassStatistics, centred_units: Tensor) -> Tensor:
    """`cos_inter_mean` of rows less the mean of all rows; -1/(K-1) for a simplex."""
    return _centred_inter(statistics, centred_units).mean(-1)


# --- of each class ---------------------------------------------------------------------------------------------------


@class_value("cos_intra", *UNITS_COUNT, of_class=(NO_DIRECTION,), title="Mean cosine within the class", target=1.0)
def intra_of_classes(unit: ClassStatistics) -> Tensor:
    """Mean cosine of two rows of the class, pairs of a row with itself included."""
    return intra(unit)


@class_value(
    "cos_intra_off",
    *UNITS_COUNT,
    of_class=(NO_DIRECTION, ONE_ROW),
    title="Mean cosine of different rows of the class",
    target=1.0,
)
def intra_off_of_classes(unit: ClassStatistics) -> Tensor:
    """Mean cosine of two different rows of the class."""
    return intra_off(unit)


@class_value(
    "cos_centred_intra",
    *CLASSES_COUNT,
    of_class=(AT_MEAN,),
    title="Mean cosine within the class, about the mean",
    target=1.0,
)
def centred_intra_of_classes(statistics: ClassStatistics, centred_units: Tensor) -> Tensor:
    """`cos_intra` of rows less the mean of all rows."""
    return _centred_means(centred_units).square().sum(-1)
