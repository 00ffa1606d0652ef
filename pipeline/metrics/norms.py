"""How long rows are: mean and spread of their norms.

Mean feature norm ||h||: of "Neural collapse dynamics: depth, activation, regularisation, and feature norm threshold"
(arXiv 2604.00230, abstract read), where it says when collapse begins. Rows as they are, none centred.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.metrics.engine.cases import CLASSES_COUNT, NO_SAMPLES, NOT_FINITE
from pipeline.metrics.engine.chunks import Chunk
from pipeline.metrics.engine.statistics import ClassStatistics
from pipeline.metrics.engine.undefined import Exceptional
from pipeline.metrics.registry import class_value, metric, optional, statistic

optional(__name__)

ZERO_ROWS = Exceptional("all rows are zero", lambda statistics, lengths: lengths[..., 0].sum(-1) == 0)


@statistic(shape=lambda num_classes, num_features: (num_classes, 2), merge="sum")
def lengths(chunk: Chunk) -> Tensor:
    """Sums over the rows of each class of their norms and of the squares of these, `(..., K, 2)`."""
    norms = torch.linalg.vector_norm(chunk.features.double(), dim=-1)
    return chunk.class_sums(torch.stack([norms, norms.square()], -1))


@metric(NOT_FINITE, NO_SAMPLES, title=r"Mean norm $\|h\|$ of rows", invariant=("rotation",))
def feature_norm(statistics: ClassStatistics, lengths: Tensor) -> Tensor:
    """(1/N) sum_i ||z_i||, the mean norm of the rows."""
    return lengths[..., 0].sum(-1) / statistics.counts.sum()


@metric(
    NOT_FINITE,
    NO_SAMPLES,
    ZERO_ROWS,
    title="Spread of the norms of rows",
    target=0.0,
    scale="linear",
    invariant=("rotation", "scaling"),
)
def feature_norm_cov(statistics: ClassStatistics, lengths: Tensor) -> Tensor:
    """Standard deviation over mean of ||z_i||: 0 if all rows are equally long.

    From sums of float64, so a spread below some 1e-8 is not told from none.
    """
    count = statistics.counts.sum()
    mean, square = (lengths[..., part].sum(-1) / count for part in (0, 1))
    return (square - mean.square()).clamp(min=0).sqrt() / mean


@class_value("feature_norm", *CLASSES_COUNT, title=r"Mean norm $\|h\|$ of rows of the class", scale="log")
def norms_of_classes(statistics: ClassStatistics, lengths: Tensor) -> Tensor:
    """(1/n_c) sum_i ||z_i|| over the class."""
    return lengths[..., 0] / statistics.counts
