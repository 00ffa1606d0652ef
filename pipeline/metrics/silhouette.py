"""Silhouettes of rows, exact at O(N K d), for squared Euclidean and cosine distance.

The mean squared distance of a row to a class is ||z - mu_c||^2 + v_c, to the other rows of its own class n_c/(n_c-1)
times that; cosine distance is half the squared distance of rows at length one. So s = (b - a) / max(a, b) is
scikit-learn's, to rounding. Plain Euclidean distance has no such form. [Derived.]
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pipeline.metrics.cosine import UNITS_EXIST
from pipeline.metrics.engine.cases import MEANS_EXIST
from pipeline.metrics.engine.rows import Rows
from pipeline.metrics.engine.statistics import ClassStatistics, distances
from pipeline.metrics.registry import metric, optional, row_sum

optional(__name__)


def silhouettes(rows: Tensor, labels: Tensor, statistics: ClassStatistics, origin: Tensor | None = None) -> Tensor:
    """Silhouette of each row `(..., n, d)` less the origin `(..., 1, d)` among the classes of `statistics`, `(..., n)`;
    0 for the only row of a class, and where all distances are zero."""
    counts = statistics.counts
    variances = statistics.scatter / counts.clamp(min=1)
    means = (statistics.anchors if origin is None else statistics.anchors - origin) + statistics.drifts
    apart = distances(rows, means).square() + variances[..., None, :]
    own = labels.expand(apart.shape[:-1])[..., None]
    others = counts.index_select(0, labels)
    within = apart.gather(-1, own).squeeze(-1) * others / (others - 1).clamp(min=1)
    apart = apart.masked_fill(counts == 0, math.inf).scatter(-1, own, math.inf)
    nearest = apart.amin(-1)
    larger = torch.maximum(within, nearest)
    found = torch.where(larger > 0, (nearest - within) / larger, 0.0)
    return torch.where(others > 1, found, 0.0)


@row_sum()
def silhouettes_sqeuclidean(rows: Rows) -> Tensor:
    """Sum of the silhouettes for squared Euclidean distance, `(...)`."""
    own = rows.own
    origin = own.anchors.index_select(-2, (own.counts > 0).byte().argmax().reshape(1))
    placed = rows.deviations + (own.anchors - origin).index_select(-2, rows.labels)
    return silhouettes(placed, rows.labels, own, origin).sum(-1)


@row_sum(needs=("unit",))
def silhouettes_cosine(rows: Rows) -> Tensor:
    """Sum of the silhouettes for cosine distance of the rows that have a direction, `(...)`."""
    units, has_direction = rows.unit
    own = rows.own.views["unit"].emptied(rows.own.counts > 0)
    found = silhouettes(units, rows.labels, own)
    return torch.where(has_direction, found, 0.0).sum(-1)


@metric(
    *MEANS_EXIST,
    title="Silhouette, squared distance",
    target=1.0,
    scale="linear",
    invariant=("rotation", "scaling", "translation"),
)
def silhouette_sqeuclidean(statistics: ClassStatistics, silhouettes_sqeuclidean: Tensor) -> Tensor:
    """Mean over rows of (b - a) / max(a, b), a and b mean squared distances to the own class and the nearest other."""
    return silhouettes_sqeuclidean / statistics.counts.sum()


@metric(*UNITS_EXIST, title="Silhouette, cosine", target=1.0, scale="linear", invariant=("rotation", "scaling"))
def silhouette_cosine(unit: ClassStatistics, silhouettes_cosine: Tensor) -> Tensor:
    """The same for the cosine distance 1 - cos, of the rows that have a direction."""
    return silhouettes_cosine / unit.counts.sum()
