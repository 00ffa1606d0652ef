"""Collapse onto several fixed centres per class.

After neural collapse to multiple centres (NCMC, NeurIPS 2024), whose exact metric could not be read: these are ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from pipeline.metrics.engine.checks import check_features
from pipeline.runtime.devices import where_float64_is


class CentreAlignment(NamedTuple):
    """Of a_i = 1 - cos(h_i, s_{y_i}), s_c the sum of the centres of class c, `(...)` each.

    Attributes:
        mean: `centre_mean`, 0 where every row lies along the sum of its class's centres.
        std: `centre_std`, population standard deviation.
    """

    mean: Tensor
    std: Tensor


@where_float64_is
def centre_alignment(features: Tensor, labels: Tensor, centres: Sequence[Tensor]) -> CentreAlignment:
    """How far rows `(..., N, d)` are from the sum of the centres of their class.

    Args:
        labels: int64 `(N,)`.
        centres: unit centres of each class, `(f_c, d)`: K tensors, or one `(K, f, d)`.

    Raises:
        ValueError: for malformed rows, labels or centres.
    """
    check_features(features, labels, len(centres))
    for centre in centres:
        if centre.ndim != 2 or centre.shape[-1] != features.shape[-1]:
            raise ValueError(f"centres must be of {features.shape[-1]} features each, got {tuple(centre.shape)}.")
    sums = torch.stack([centre.detach().double().sum(0) for centre in centres])
    rows = features.detach().double()
    cosines = torch.nn.functional.cosine_similarity(rows, sums[labels].to(rows.device), dim=-1, eps=0)
    return CentreAlignment(1 - cosines.mean(-1), cosines.std(-1, correction=0))


@where_float64_is
def centre_decisions(features: Tensor, centres: Sequence[Tensor]) -> Tensor:
    """argmax_c of the mean cosine with the centres of class c, int64 `(..., N)`; the centres are at length one."""
    rows = torch.nn.functional.normalize(features.detach().double(), dim=-1)
    return torch.stack([(rows @ centre.detach().double().mT).mean(-1) for centre in centres], -1).argmax(-1)
