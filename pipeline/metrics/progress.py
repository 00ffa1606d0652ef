"""How a network collapses along its way: of the values of a metric at its places, and of the way that samples take.

After "Progressive feedforward collapse" (arXiv 2405.00985): PFC1 is nc1_pinv, PFC2 nc2_simplex, PFC3 1 - ncm_accuracy,
at every block. `straightness` is ours, after the claim of arXiv 2102.09235 that trained ResNets have line-shaped
tracks. Blocks of another width are not comparable as points: it is of blocks of one width in a row.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from pipeline.metrics.engine.undefined import Exceptional
from pipeline.metrics.registry import metric, optional

optional(__name__)

ALONG = ("dnc1", "nc1_pinv", "nc2_simplex", "ncm_accuracy", "cdnv", "dnc2")
"""The metrics whose values along a network are recorded."""


def falling(name: str, values: Sequence[float]) -> Tensor:
    """Values of a metric at places, `(places,)`; 1 - value where collapse makes it rise, such as `ncm_accuracy`."""
    numbers = torch.tensor(values, dtype=torch.float64)
    return 1 - numbers if name.endswith("accuracy") else numbers


TOO_FEW = Exceptional(
    "fewer than two places have a value", lambda profile: torch.as_tensor(_defined(profile).shape[-1] < 2)
)
ALL_TIED = Exceptional(
    "all places have the same value",
    lambda profile: torch.as_tensor(bool((_defined(profile) == _defined(profile)[..., :1]).all())),
)
NO_WAY = Exceptional("no sample moves from block to block", lambda path: path[..., 1] == 0)


def _defined(profile: Tensor) -> Tensor:
    return profile[~profile.isnan()]


@metric(TOO_FEW, title="Share of places that collapse further", target=1.0, scale="linear")
def decreasing_share(profile: Tensor) -> Tensor:
    """Share of consecutive places at which the metric is at most what it was at the place before."""
    values = _defined(profile)
    return (values[1:] <= values[:-1]).to(torch.float64).sum() / max(1, len(values) - 1)


@metric(TOO_FEW, ALL_TIED, title="Rank correlation with depth", target=-1.0, scale="linear")
def spearman(profile: Tensor) -> Tensor:
    """Spearman's correlation of the metric with the place; ties have their mean rank."""
    values = _defined(profile)
    ranks = _ranks(values)
    depth = torch.arange(len(values), dtype=torch.float64, device=values.device)
    x, y = depth - depth.mean(), ranks - ranks.mean()
    return (x * y).sum() / (x.square().sum() * y.square().sum()).sqrt()


def _ranks(values: Tensor) -> Tensor:
    below = (values[None] < values[:, None]).sum(1).to(torch.float64)
    ties = (values[None] == values[:, None]).sum(1).to(torch.float64)
    return below + (ties - 1) / 2


def path_sums(places: Sequence[Tensor]) -> Tensor:
    """Two sums over samples of length over way, and how many samples move, `(2,)`, of their rows at blocks of one
    width in a row, `(n, d)` each."""
    rows = [place.detach().to(torch.float64) for place in places]
    way = sum(torch.linalg.vector_norm(after - before, dim=-1) for before, after in pairwise(rows))
    length = torch.linalg.vector_norm(rows[-1] - rows[0], dim=-1)
    moves = way > 0
    ratio = torch.where(moves, length / torch.where(moves, way, 1.0), 0.0)
    return torch.stack([ratio.sum(), moves.sum().to(torch.float64)])


@metric(NO_WAY, title="Straightness of the way through blocks", target=1.0, scale="linear")
def straightness(path: Tensor) -> Tensor:
    """Mean over samples of ||z^L - z^0|| / sum_l ||z^(l+1) - z^l|| over blocks of one width: 1 is a straight line."""
    return path[..., 0] / path[..., 1]
