"""How close features come to those of a deep unconstrained features model, with and without a best rotation."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.metrics.engine.checks import check_features


@dataclass(frozen=True)
class FeatureAlignment:
    """Features H against reference features H*, float64 scalars.

    Attributes:
        cosine: <H, H*> / (||H|| ||H*||): 1 when H is a positive multiple of H*.
        cosine_rotated: the same after the best rotation of H*.
        distance: ||H - H*|| / ||H*||, the spread within classes included.
        distance_rotated: the same after the best rotation of H*.
    """

    cosine: Tensor
    cosine_rotated: Tensor
    distance: Tensor
    distance_rotated: Tensor


def feature_alignment(features: Tensor, labels: Tensor, reference: Tensor) -> FeatureAlignment:
    """Compare features with the collapsed features that have one reference vector per class.

    An orthogonal map R of the feature space, (H_1, W_1) -> (H_1 R, W_1 R), leaves all outputs and norms of a deep
    unconstrained features model as they are: it is the symmetry of its optimum in the features. So H* = reference of
    every sample's class is compared as it is, and after the best such map (orthogonal Procrustes problem, Schönemann
    1966): max_R <H, H* R> is the nuclear norm of H^T H*, and needs K x K matrices only, because H* has rank K at most.

    Args:
        features: `(N, d)`, any float dtype.
        labels: int64 `(N,)` in [0, K).
        reference: `(K, d)`, not all zero.

    Returns:
        Cosines are NaN if H is zero, and all values are if it is not finite.

    Raises:
        ValueError: on other shapes, labels out of range, or a reference of zeros.
    """
    check_features(features, labels, len(reference))
    if reference.ndim != 2 or reference.shape[1] != features.shape[-1] or not bool(reference.any()):
        raise ValueError(
            f"reference must be (K, {features.shape[-1]}) and not all zero, got shape {tuple(reference.shape)}."
        )
    rows, reference = features.detach().to(torch.float64), reference.detach().to(torch.float64)
    membership = torch.nn.functional.one_hot(labels, len(reference)).to(torch.float64)
    counts = membership.sum(0)
    sums = membership.mT @ rows  # (K, d): H^T H* = sums^T reference
    inner = (sums * reference).sum()
    triangles = [torch.linalg.qr(matrix.mT, mode="r").R for matrix in (sums, reference)]
    product = triangles[0] @ triangles[1].mT
    # LAPACK refuses what is not finite.
    rotated = torch.linalg.matrix_norm(product, "nuc") if bool(product.isfinite().all()) else product.sum() * torch.nan
    own, other = rows.square().sum(), (counts[:, None] * reference.square()).sum()

    def distance(product: Tensor) -> Tensor:
        return ((own - 2 * product + other).clamp(min=0) / other).sqrt()

    scale = (own * other).sqrt()
    return FeatureAlignment(inner / scale, rotated / scale, distance(inner), distance(rotated))
