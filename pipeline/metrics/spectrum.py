"""Spectra of the rows: effective rank, participation ratio, stable rank, and how negative they are.

Singular values s are those of the rows less the mean of all (`_uncentred`: of the rows as they are), by the eigenvalues
l = s^2 of their scatter, cut at 1e-7 of the largest. The effective rank is exp of the entropy of s / sum s [as in the
code of MONAI, read; its docstring says s^2], uncentred known as RankMe. Negativity is of arXiv 2410.04887 [read in a
digest], its energy ours.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.metrics.engine.cases import MEANS_EXIST, NO_BETWEEN_SCATTER, NO_SAMPLES, NOT_FINITE
from pipeline.metrics.engine.chunks import Chunk
from pipeline.metrics.engine.statistics import ClassStatistics, finite_part
from pipeline.metrics.engine.undefined import Exceptional
from pipeline.metrics.registry import metric, optional, statistic

optional(__name__)

ABOUT_ZERO = ("rotation", "scaling")
ANY_MOTION = (*ABOUT_ZERO, "translation")
CUT = 1e-7
"""Singular values below this share of the largest are rounding of a scatter matrix."""

NO_SPREAD = Exceptional(
    "all rows are equal", lambda s, *_: _total_trace(s) <= s.noise_floor * s.counts.sum().clamp(min=1)
)
NO_ROWS = Exceptional("all rows are zero", lambda s, *_: s.energy == 0)
NO_DEVIATION = Exceptional(
    "all rows are at their class means",
    lambda s, *_: s.scatter.sum(-1) <= s.noise_floor * s.counts.sum().clamp(min=1),
)
SPREAD = (NOT_FINITE, NO_SAMPLES, NO_SPREAD)
ROWS = (NOT_FINITE, NO_SAMPLES, NO_ROWS)


@statistic(shape=lambda num_classes, num_features: (num_features, num_features), merge="sum")
def negative_gram(chunk: Chunk) -> Tensor:
    """Sum over the rows of min(z, 0) min(z, 0)^T, `(..., d, d)`."""
    known = (chunk.labels >= 0) & (chunk.labels < chunk.num_classes)
    rows = chunk.features.to(torch.float64).clamp(max=0) * known[:, None]
    return rows.mT @ rows


def _total_trace(statistics: ClassStatistics) -> Tensor:
    between = (statistics.counts * statistics.centred_means.square().sum(-1)).sum(-1)
    return statistics.scatter.sum(-1) + between


def total_scatter(statistics: ClassStatistics, pooled: Tensor) -> Tensor:
    """sum (z - mu_G)(z - mu_G)^T, `(..., d, d)`."""
    return pooled + _weighted(statistics, statistics.centred_means)


def uncentred_gram(statistics: ClassStatistics, pooled: Tensor) -> Tensor:
    """sum z z^T, `(..., d, d)`."""
    return pooled + _weighted(statistics, statistics.means)


def _weighted(statistics: ClassStatistics, means: Tensor) -> Tensor:
    return (statistics.counts[:, None] * means).mT @ means


def eigenvalues(scatter: Tensor) -> Tensor:
    """Eigenvalues `(..., d)` of a scatter matrix, smallest first, rounding set to zero."""
    values = torch.linalg.eigvalsh(finite_part(scatter))
    return torch.where(values > CUT**2 * values[..., -1:], values, 0.0)


def effective_rank_of(values: Tensor) -> Tensor:
    """exp of the entropy of s / sum s, s the square roots of eigenvalues `(..., r)`, `(...)`."""
    roots = values.clamp(min=0).sqrt()
    shares = roots / roots.sum(-1, keepdim=True)
    return torch.special.entr(shares).sum(-1).exp()


def participation_of(values: Tensor) -> Tensor:
    """(sum l)^2 / sum l^2 of eigenvalues `(..., r)`, `(...)`."""
    return values.sum(-1).square() / values.square().sum(-1)


def stable_rank_of(values: Tensor) -> Tensor:
    """sum l / max l of eigenvalues `(..., r)`, `(...)`."""
    return values.sum(-1) / values.amax(-1)


# --- of all rows -----------------------------------------------------------------------------------------------------


@metric(*SPREAD, title="Effective rank", scale="linear", invariant=ANY_MOTION)
def erank(statistics: ClassStatistics, pooled: Tensor) -> Tensor:
    """exp of the entropy of s / sum s, s the singular values of the rows less their mean."""
    return effective_rank_of(eigenvalues(total_scatter(statistics, pooled)))


@metric(*SPREAD, title="Participation ratio", scale="linear", invariant=ANY_MOTION)
def participation(statistics: ClassStatistics, pooled: Tensor) -> Tensor:
    """(sum l)^2 / sum l^2 of the eigenvalues l of the covariance."""
    return participation_of(eigenvalues(total_scatter(statistics, pooled)))


@metric(*SPREAD, title="Stable rank of the rows", scale="linear", invariant=ANY_MOTION)
def stable_rank(statistics: ClassStatistics, pooled: Tensor) -> Tensor:
    """sum l / max l of the eigenvalues l of the covariance."""
    return stable_rank_of(eigenvalues(total_scatter(statistics, pooled)))


@metric(*ROWS, title="Effective rank, uncentred (RankMe)", scale="linear", invariant=ABOUT_ZERO)
def erank_uncentred(statistics: ClassStatistics, pooled: Tensor) -> Tensor:
    """`erank` of the rows as they are."""
    return effective_rank_of(eigenvalues(uncentred_gram(statistics, pooled)))


@metric(*ROWS, title="Participation ratio, uncentred", scale="linear", invariant=ABOUT_ZERO)
def participation_uncentred(statistics: ClassStatistics, pooled: Tensor) -> Tensor:
    """`participation` of the rows as they are."""
    return participation_of(eigenvalues(uncentred_gram(statistics, pooled)))


@metric(*ROWS, title="Stable rank of the rows, uncentred", scale="linear", invariant=ABOUT_ZERO)
def stable_rank_uncentred(statistics: ClassStatistics, pooled: Tensor) -> Tensor:
    """`stable_rank` of the rows as they are."""
    return stable_rank_of(eigenvalues(uncentred_gram(statistics, pooled)))


@metric(NOT_FINITE, NO_SAMPLES, NO_DEVIATION, title="Stable rank within classes", scale="linear", invariant=ANY_MOTION)
def stable_rank_within(statistics: ClassStatistics, pooled: Tensor) -> Tensor:
    """sum l / max l of the deviations of all rows from the means of their classes."""
    return stable_rank_of(eigenvalues(pooled))


# --- of the class means ----------------------------------------------------------------------------------------------


@metric(*MEANS_EXIST, NO_BETWEEN_SCATTER, title="Effective rank of class means", scale="linear", invariant=ANY_MOTION)
def erank_means(statistics: ClassStatistics) -> Tensor:
    """exp of the entropy of s / sum s, s the singular values of the class means less their unweighted mean; K - 1 for
    a simplex."""
    return effective_rank_of(_of_means(statistics))


@metric(
    *MEANS_EXIST, NO_BETWEEN_SCATTER, title="Participation ratio of class means", scale="linear", invariant=ANY_MOTION
)
def participation_means(statistics: ClassStatistics) -> Tensor:
    """(sum l)^2 / sum l^2, l the squared singular values of the class means less their mean; K - 1 for a simplex."""
    return participation_of(_of_means(statistics))


def _of_means(statistics: ClassStatistics) -> Tensor:
    """Squared singular values of the centred class means, `(..., min(K, d))`, without rounding."""
    values = torch.linalg.svdvals(finite_part(statistics.balanced_means))
    return torch.where(values > statistics.negligible(values[..., 0])[..., None], values, 0.0).square()


# --- how negative ----------------------------------------------------------------------------------------------------


@metric(*ROWS, title="Negativity: ||Z - relu(Z)|| / ||Z||, operator norms", scale="linear", invariant=("scaling",))
def negativity(statistics: ClassStatistics, pooled: Tensor, negative_gram: Tensor) -> Tensor:
    """||min(Z, 0)||_2 / ||Z||_2 of the matrix of all rows, operator norms; at most 1."""
    of_rows = torch.linalg.eigvalsh(finite_part(uncentred_gram(statistics, pooled)))[..., -1]
    of_negative = torch.linalg.eigvalsh(finite_part(negative_gram))[..., -1].clamp(min=0)
    return (of_negative / of_rows).sqrt() + 0 * negative_gram.sum((-2, -1))


@metric(*ROWS, title="Share of squares below zero", scale="linear", invariant=("scaling",))
def negative_energy(statistics: ClassStatistics, negative_gram: Tensor) -> Tensor:
    """sum min(z, 0)^2 / sum z^2 over all entries of all rows."""
    below = negative_gram.diagonal(dim1=-2, dim2=-1).sum(-1)
    return below / (statistics.energy * statistics.counts.sum())
