"""The measures of collapse of Súkeník, Mondelli & Lampert (2023) and of those they cite, as formulas.

Notation: class means mu_c, mean of all samples mu_G, M = [mu_1 .. mu_K]; within- and between-class covariances
Sigma_W = 1/N sum (z - mu_c)(z - mu_c)^T and Sigma_B = 1/K sum_c (mu_c - mu_G)(mu_c - mu_G)^T. Means are the rows of a
`(..., K, d)` tensor here; "..." are member dimensions. Every value is float64. The functions of the same names in
`pipeline.metrics` take features, and their docstrings say more.
"""

from __future__ import annotations

from collections.abc import Sequence
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from pipeline.metrics.engine.cases import (
    DEPENDENT_MEANS,
    EQUAL_MEANS,
    MEANS_EXIST,
    NEXT_WEIGHT_NOT_FINITE,
    NO_BETWEEN_SCATTER,
    NO_SAMPLES,
    NOT_COUNTED,
    NOT_FINITE,
    SPECTRUM_NOT_FINITE,
    WEIGHT_EXISTS,
    ZERO_MEANS,
    ZERO_SPECTRUM,
)
from pipeline.metrics.engine.class_pairs import are_many, pair_totals
from pipeline.metrics.engine.many_classes import right_vectors
from pipeline.metrics.engine.rows import Rows
from pipeline.metrics.engine.statistics import ClassStatistics, finite_part
from pipeline.metrics.engine.sums import ClassSums
from pipeline.metrics.engine.undefined import Exceptional, except_when
from pipeline.metrics.registry import metric, row_sum, statistic

# Weight decay shrinks an unused direction exponentially but never to zero: a thousandth of the largest is out of use.
RANK_RTOL = 1e-3

ROWS_BY_CLASSES = 1 << 22
"""Products of rows of a weight with class means that are made at once."""

ABOUT_ZERO = ("rotation", "scaling")
ANY_MOTION = (*ABOUT_ZERO, "translation")


# --- what has to be accumulated --------------------------------------------------------------------------------------


def _merged_scatter(values: Sequence[Tensor], shifts: Tensor, counts: Tensor) -> Tensor:
    weighted = counts * shifts
    between_parts = weighted.movedim(0, -3).flatten(-3, -2).mT @ shifts.movedim(0, -3).flatten(-3, -2)
    return sum(values, start=between_parts)


@statistic(shape=lambda _, num_features: (num_features, num_features), merge=_merged_scatter, within=True, of_sums=True)
def pooled(sums: ClassSums) -> Tensor:
    """Within-class scatter matrix, sum of (z - mu_c)(z - mu_c)^T over all samples, `(..., d, d)`."""
    drifts = sums.drifts
    if not sums.samples:
        return drifts.new_zeros(*drifts.shape[:-2], *[drifts.shape[-1]] * 2)
    # As for the scatter in `ClassStatistics`: about the anchors, and what the means are off them.
    return sums.gram.sub_((sums.counts[:, None] * drifts).mT @ drifts)


_kept: WeakKeyDictionary[ClassStatistics, Tensor] = WeakKeyDictionary()


def _spread(statistics: ClassStatistics) -> tuple[Tensor, Tensor, Tensor]:
    """Singular values `(..., r)` of the K centred means, their right singular vectors `(..., r, d)`, and which of the
    at most K - 1 are more than rounding of the features (`ClassStatistics.negligible`)."""
    means = finite_part(statistics.centred_means)
    values, rows = right_vectors(means) if are_many(statistics) else torch.linalg.svd(means, full_matrices=False)[1:]
    rank = min(statistics.num_classes - 1, values.shape[-1])
    values, rows = values[..., :rank], rows[..., :rank, :]
    _kept[statistics] = values > statistics.negligible(values[..., 0])[..., None]
    return values, rows, _kept[statistics]


def _directions_kept(statistics: ClassStatistics) -> Tensor:
    """The last of these, from one decomposition for all who ask, `(..., r)`."""
    return _kept[statistics] if statistics in _kept else _spread(statistics)[-1]


def _no_direction(statistics: ClassStatistics, *_: object) -> Tensor:
    return ~_directions_kept(statistics).any(-1)


NO_DIRECTION = Exceptional("the class means differ by no more than the rounding of the features", _no_direction)


def inverse_spread(statistics: ClassStatistics) -> Tensor:
    """V S^-1 `(..., d, r)` of the thin SVD U S V^T of the K centred means, without its negligible directions.

    Sigma_B^+ = K V S^-2 V^T, so tr(Sigma_W Sigma_B^+) / K is the mean squared length of the deviations along these
    K - 1 directions at most, and there is no d x d inverse.
    """
    values, rows, kept = _spread(statistics)
    return torch.where(kept[..., None], rows / values[..., None], 0.0).mT


def _squares_of_scatter(statistics: ClassStatistics, pooled: Tensor) -> Tensor:
    directions = inverse_spread(statistics)
    return (directions * (pooled @ directions)).sum((-2, -1))


@row_sum(along=inverse_spread, instead=_squares_of_scatter)
def squares(rows: Rows, along: Tensor) -> Tensor:
    """Sum of the deviations' squared length along `inverse_spread`, `(...)`."""
    return along.square().sum((-2, -1))


@row_sum(needs=("nearest",))
def hits(rows: Rows) -> Tensor:
    """How many samples are nearest to the mean of their own class, `(...)`."""
    return (rows.nearest == rows.labels).sum(-1)


@row_sum(needs=("decisions",))
def misses(rows: Rows) -> Tensor:
    """How many samples are nearest to the mean of another class than the network decides for, `(...)`."""
    return (rows.nearest != rows.decisions).sum(-1)


# --- metrics of the features -----------------------------------------------------------------------------------------


@metric(
    *MEANS_EXIST,
    NO_BETWEEN_SCATTER,
    title="DNC1: within / between variability",
    target=0.0,
    panel=True,
    invariant=ANY_MOTION,
)
def dnc1(statistics: ClassStatistics) -> Tensor:
    """Within-class over between-class variability, tr(Sigma_W) / tr(Sigma_B)."""
    return statistics.within_trace / statistics.between_trace


@metric(
    *MEANS_EXIST,
    NO_BETWEEN_SCATTER,
    title="DNC1, every class counting alike",
    target=0.0,
    invariant=ANY_MOTION,
)
def dnc1_balanced(statistics: ClassStatistics) -> Tensor:
    """Mean variance of a class over that of the class means about their own mean: dnc1 without the class sizes."""
    variances = (statistics.scatter / statistics.counts).sum(-1)
    return variances / statistics.balanced_means.square().sum((-2, -1))


@metric(
    *MEANS_EXIST,
    NO_BETWEEN_SCATTER,
    NO_DIRECTION,
    title="NC1: spread along the class means",
    target=0.0,
    invariant=ANY_MOTION,
    version=2,
)
def nc1_pinv(statistics: ClassStatistics, squares: Tensor) -> Tensor:
    """tr(Sigma_W Sigma_B^+) / K, the pseudo-inverse truncated to the `effective_rank` directions, K - 1 at most."""
    return squares / statistics.counts.sum().clamp(min=1)


@metric(*MEANS_EXIST, title="Directions in which class means differ", scale="linear", invariant=("rotation", "scaling"))
def effective_rank(statistics: ClassStatistics) -> Tensor:
    """Number of singular values of the centred class means above the rounding of the features, K - 1 at most."""
    return _directions_kept(statistics).sum(-1).to(torch.float64)


@metric(*MEANS_EXIST, EQUAL_MEANS, title="CDNV: class-distance normalised variance", target=0.0, invariant=ANY_MOTION)
def cdnv(statistics: ClassStatistics) -> Tensor:
    """Mean over pairs of classes of (v_i + v_j) / (2 ||mu_i - mu_j||^2), v_c the variance of class c."""
    if are_many(statistics):
        return pair_totals(statistics).cdnv
    variances = statistics.scatter / statistics.counts
    first, second = statistics.pairs
    return ((variances[..., first] + variances[..., second]) / (2 * statistics.pair_distances)).mean(-1)


@metric(
    *MEANS_EXIST,
    ZERO_MEANS,
    DEPENDENT_MEANS,
    title="DNC2: condition number of class means",
    target=1.0,
    panel=True,
    invariant=ABOUT_ZERO,
    version=2,
)
def dnc2(statistics: ClassStatistics) -> Tensor:
    """Largest over K-th singular value of the uncentred M: 1 is an orthogonal frame."""
    return statistics.mean_singular_values[..., 0] / statistics.mean_singular_values[..., -1]


@metric(
    *MEANS_EXIST,
    ZERO_MEANS,
    title="Distance of the class means to an orthogonal frame",
    target=0.0,
    invariant=ABOUT_ZERO,
)
def nc2_frame(statistics: ClassStatistics) -> Tensor:
    """|| M^T M / ||M^T M||_F - I_K / sqrt(K) ||_F of the uncentred M."""
    if are_many(statistics):
        return pair_totals(statistics).off_frame
    return _gram_distance(statistics.means, torch.eye(statistics.num_classes, **_like(statistics)))


@metric(
    *MEANS_EXIST,
    NO_BETWEEN_SCATTER,
    title="NC2: distance of the class means to a simplex",
    target=0.0,
    invariant=ANY_MOTION,
)
def nc2_simplex(statistics: ClassStatistics) -> Tensor:
    """|| G / ||G||_F - (I_K - 1 1^T / K) / sqrt(K - 1) ||_F, G the Gram matrix of the means less their own mean."""
    if are_many(statistics):
        return pair_totals(statistics).off_simplex
    # Centred at the unweighted mean of the class means: with unequal class sizes mu_G would leave a simplex ETF
    # (and, for K = 2, any two means) at a non-zero distance from itself.
    simplex = torch.eye(statistics.num_classes, **_like(statistics)) - 1 / statistics.num_classes
    return _gram_distance(statistics.balanced_means, simplex)


@metric(*MEANS_EXIST, title="Rank of the class means", scale="linear", invariant=ABOUT_ZERO, version=2)
def rank_means(statistics: ClassStatistics) -> Tensor:
    """Number of singular values of M above a thousandth of the largest and the rounding of the features."""
    values = statistics.mean_singular_values
    above = values > statistics.negligible(values[..., 0])[..., None]
    return rank_of_spectrum(torch.where(above, values, 0.0))


@metric(*MEANS_EXIST, ZERO_MEANS, title="Stable rank of the class means", scale="linear", invariant=ABOUT_ZERO)
def stable_rank_means(statistics: ClassStatistics) -> Tensor:
    """||M||_F^2 / ||M||_2^2."""
    return stable_rank_of_spectrum(statistics.mean_singular_values)


@metric(NOT_FINITE, title="Classes that are measured", scale="linear", invariant=ANY_MOTION)
def classes_counted(statistics: ClassStatistics) -> Tensor:
    """K', the number of classes that have `min_samples` samples or more, and so are measured."""
    return torch.full_like(statistics.active, statistics.num_counted)


@metric(NOT_FINITE, title="Classes left out", scale="linear", invariant=ANY_MOTION)
def classes_left_out(statistics: ClassStatistics) -> Tensor:
    """Number of classes that have fewer than `min_samples` samples, and so are left out of all metrics."""
    return torch.full_like(statistics.active, statistics.left_out)


@metric(
    NOT_FINITE,
    NO_SAMPLES,
    NOT_COUNTED,
    version=2,
    title="Share of active units",
    scale="linear",
    invariant=("scaling",),
)
def active_units(statistics: ClassStatistics) -> Tensor:
    """Share of non-zero entries among the activations, counted before any pooling."""
    return statistics.active / (statistics.samples * statistics.means.shape[-1])


@metric(*MEANS_EXIST, title="Accuracy of the nearest class mean", target=1.0, scale="linear", invariant=ANY_MOTION)
def ncm_accuracy(reference: ClassStatistics, hits: Tensor, judged: Tensor | int) -> Tensor:
    """Share of samples whose nearest class mean, of the training split, is that of their own class."""
    return hits.to(torch.float64) / judged


# --- metrics of weights, and of features with them -------------------------------------------------------------------


@metric(
    *MEANS_EXIST,
    ZERO_MEANS,
    *WEIGHT_EXISTS,
    title="DNC3: rows of $W_l$ to class means (sine)",
    target=0.0,
    panel=True,
    invariant=ABOUT_ZERO,
)
def dnc3(statistics: ClassStatistics, weight: Tensor) -> Tensor:
    """sum_i w_i sin(row_i, closest class mean) / sum_i w_i of the rows of a weight, w_i = ||row_i||^2."""
    norms = statistics.mean_norms[..., None]
    directions = torch.where(norms > 0, statistics.means / norms, 0.0)
    rows = max(1, ROWS_BY_CLASSES // statistics.num_classes)
    closest = [(some @ directions.mT).abs_().argmax(-1, keepdim=True) for some in weight.split(rows, -2)]
    closest = torch.cat(closest, -2)  # (..., out, 1)
    directions = directions.expand(*closest.shape[:-2], *directions.shape[-2:])
    nearest = torch.take_along_dim(directions, closest, dim=-2)  # (..., out, d)
    # ||row|| sin(angle) is the length of what projection leaves: exact for tiny angles, unlike sqrt(1 - cos^2).
    residual = weight - (weight * nearest).sum(-1, keepdim=True) * nearest
    row_norms = torch.linalg.vector_norm(weight, dim=-1)
    return (row_norms * torch.linalg.vector_norm(residual, dim=-1)).sum(-1) / row_norms.square().sum(-1)


@metric(SPECTRUM_NOT_FINITE, title="Rank of $W_l$", scale="linear", invariant=("rotation",))
def rank_weight(spectrum: Tensor) -> Tensor:
    """Number of singular values of the weight above a thousandth of the largest."""
    return rank_of_spectrum(spectrum)


@metric(SPECTRUM_NOT_FINITE, ZERO_SPECTRUM, title="Stable rank of $W_l$", scale="linear", invariant=("rotation",))
def stable_rank_weight(spectrum: Tensor) -> Tensor:
    """||W||_F^2 / ||W||_2^2 of the weight."""
    return stable_rank_of_spectrum(spectrum)


@metric(
    NEXT_WEIGHT_NOT_FINITE,
    *WEIGHT_EXISTS,
    title="Imbalance of $W_{l+1}$ and $W_l$",
    target=0.0,
    invariant=("rotation",),
)
def balancedness(next_weight: Tensor, weight: Tensor) -> Tensor:
    """||W_{l+1}^T W_{l+1} - W_l W_l^T||_F / ||W_l W_l^T||_F of consecutive weights."""
    gram = weight @ weight.mT
    return torch.linalg.matrix_norm(next_weight.mT @ next_weight - gram) / torch.linalg.matrix_norm(gram)


@metric(
    *MEANS_EXIST,
    NO_BETWEEN_SCATTER,
    *WEIGHT_EXISTS,
    title="NC3: last weight to its class means",
    target=0.0,
    invariant=ANY_MOTION,
    version=2,
)
def nc3_duality(statistics: ClassStatistics, classifier: Tensor) -> Tensor:
    """|| W / ||W||_F - B / ||B||_F ||_F of the last weight and the means that enter it, B, less their own mean."""
    # Centred as for nc2_simplex: about mu_G the rows would not sum to zero where classes differ in size, as those of a
    # collapsed classifier do.
    return torch.linalg.matrix_norm(_unit(classifier) - _unit(statistics.balanced_means))


@metric(
    *MEANS_EXIST,
    title="NC4: decisions unlike the nearest class mean's",
    target=0.0,
    scale="linear",
    invariant=ANY_MOTION,
)
def nc4(reference: ClassStatistics, misses: Tensor, judged: Tensor | int) -> Tensor:
    """Share of samples on which the network's decision differs from the nearest class mean of the training split."""
    return misses.to(torch.float64) / judged


# --- parts -----------------------------------------------------------------------------------------------------------


@except_when(SPECTRUM_NOT_FINITE)
def rank_of_spectrum(singular_values: Tensor, rtol: float = RANK_RTOL) -> Tensor:
    """How many singular values `(..., r)` exceed `rtol` times the largest, `(...)`."""
    largest = singular_values[..., :1]
    return ((singular_values > rtol * largest) & (largest > 0)).sum(-1).to(torch.float64)


@except_when(SPECTRUM_NOT_FINITE, ZERO_SPECTRUM)
def stable_rank_of_spectrum(singular_values: Tensor) -> Tensor:
    """Sum of the squares over the largest square, `(...)`."""
    return (singular_values / singular_values[..., :1]).square().sum(-1)


def _gram_distance(means: Tensor, target: Tensor) -> Tensor:
    """|| G / ||G||_F - target / ||target||_F ||_F for the Gram matrix G of the rows of `means`."""
    return torch.linalg.matrix_norm(_unit(means @ means.mT) - _unit(target))


def _unit(matrix: Tensor) -> Tensor:
    return matrix / torch.linalg.matrix_norm(matrix, keepdim=True)


def _like(statistics: ClassStatistics) -> dict[str, object]:
    return {"dtype": torch.float64, "device": statistics.means.device}
