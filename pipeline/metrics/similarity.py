"""Similarity of two places of a network, and of the class means with the weight that they enter.

Linear CKA (Kornblith et al. 2019): ||X^T Y||_F^2 / (||X^T X||_F ||Y^T Y||_F) with columns centred, of the rows of a
place and those of the place before. `cka_batch` averages unbiased HSIC over batches and takes the ratio at the end
(Nguyen et al. 2021), so it depends on the batches, which are those of the pass; it may be negative.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.metrics.engine.cases import MEANS_EXIST, WEIGHT_EXISTS, ZERO_MEANS
from pipeline.metrics.engine.pairing import LEAST, PairStatistics
from pipeline.metrics.engine.statistics import ClassStatistics, finite_part
from pipeline.metrics.engine.undefined import Exceptional
from pipeline.metrics.registry import metric, optional

optional(__name__)


def _norms(pair: PairStatistics) -> tuple[Tensor, Tensor]:
    return torch.linalg.matrix_norm(pair.first.product), torch.linalg.matrix_norm(pair.second.product)


NO_ROWS = Exceptional("there are no samples", lambda pair: torch.as_tensor(pair.cross.count == 0))
NOT_FINITE = Exceptional(
    "the rows of one of the places are not finite", lambda pair: ~torch.stack(_norms(pair)).isfinite().all(0)
)
ALL_EQUAL = Exceptional(
    "all rows of one of the places are the same", lambda pair: (torch.stack(_norms(pair)) == 0).any(0)
)
SMALL_BATCH = Exceptional(f"a batch has fewer than {LEAST} rows", lambda pair: pair.batches.isnan().any(-1))
NOT_POSITIVE = Exceptional(
    "the unbiased HSIC of one of the places with itself is not positive",
    lambda pair: (pair.batches[..., 1:] <= 0).any(-1),
)


@metric(
    NO_ROWS,
    NOT_FINITE,
    ALL_EQUAL,
    title="CKA with the place before",
    scale="linear",
    invariant=("rotation", "scaling", "translation"),
)
def cka(pair: PairStatistics) -> Tensor:
    """||X^T Y||_F^2 / (||X^T X||_F ||Y^T Y||_F), columns centred, of two places: 1 is one up to rotation."""
    first, second = _norms(pair)
    return pair.cross.product.square().sum((-2, -1)) / (first * second)


@metric(
    NO_ROWS,
    NOT_FINITE,
    SMALL_BATCH,
    NOT_POSITIVE,
    title="CKA with the place before, in batches",
    scale="linear",
    invariant=("rotation", "scaling", "translation"),
)
def cka_batch(pair: PairStatistics) -> Tensor:
    """CKA of unbiased HSIC averaged over batches of at least four rows; may be negative."""
    both, first, second = pair.batches.unbind(-1)
    return both / (first.clamp(min=0) * second.clamp(min=0)).sqrt()


@metric(
    *MEANS_EXIST,
    ZERO_MEANS,
    *WEIGHT_EXISTS,
    title="Subspaces of class means and of $W_l$",
    target=1.0,
    scale="linear",
    invariant=("rotation", "scaling"),
)
def subspace_cosine(statistics: ClassStatistics, weight: Tensor) -> Tensor:
    """Mean of the singular values of V^T U, V the K leading right singular vectors of the weight, U of the class means.

    Uncentred means; 1 for d <= K whatever they are. A weight of fewer than K rows has as many vectors.
    """
    most = min(statistics.num_classes, *weight.shape[-2:])
    of_weight = torch.linalg.svd(finite_part(weight), full_matrices=False).Vh[..., :most, :]
    of_means = torch.linalg.svd(finite_part(statistics.means), full_matrices=False).Vh[..., :most, :]
    return torch.linalg.svdvals(of_weight @ of_means.mT).mean(-1)
