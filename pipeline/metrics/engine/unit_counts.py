"""Counts of units that are not zero: of rows, and of activations before their positions are pooled."""

from __future__ import annotations

import torch
from torch import Tensor

BINS = 64
"""Of the histogram of how many units are active at a position."""
OTHERS = 4 + BINS
"""Numbers beside those of the units: positions, NaN, sums of active units and of their squares, histogram."""


def unit_counts(values: Tensor, counting: Tensor | None = None) -> Tensor:
    """What is counted at positions `(..., P, C)`, as one vector of sums `(..., C + 68)`, float64.

    At how many positions each of the C units is not zero; then how many positions there are, how many entries are NaN
    (which are not active), sum and sum of squares over positions of the number of active units, and in how many
    positions the share of active units falls into each of 64 bins of [0, 1].

    Args:
        counting: `(..., P)`, the positions that count; all by default.
    """
    nan = values.isnan()
    active = ((values != 0) & ~nan).to(torch.float64)
    inside = torch.ones(values.shape[:-1], dtype=torch.float64, device=values.device)
    if counting is not None:
        inside = inside * counting.to(inside)
        active = active * inside[..., None]
    units = values.shape[-1]
    at_position = active.sum(-1)
    bins = (at_position * BINS / units).floor().clamp(max=BINS - 1).long()
    histogram = at_position.new_zeros(*at_position.shape[:-1], BINS).scatter_add_(-1, bins, inside)
    sums = torch.stack(
        [
            inside.sum(-1),
            (nan.sum(-1) * inside).sum(-1),
            at_position.sum(-1),
            at_position.square().sum(-1),
        ],
        -1,
    )
    return torch.cat([active.sum(-2), sums, histogram], -1)
