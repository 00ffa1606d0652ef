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
    # Written as floats at once and added as such, many times as fast as booleans; exact up to 2^24 positions.
    active = torch.ne(values, 0, out=torch.empty_like(values, dtype=torch.float32))
    nan = active.new_zeros(values.shape[:-1])
    if bool(values.sum().isnan()):
        nan = values.isnan().sum(-1).to(active)
        active.masked_fill_(values.isnan(), 0)
    inside = active.new_ones(values.shape[:-1])
    if counting is not None:
        inside = counting.to(inside).expand(inside.shape)
        active = active * inside[..., None]
    at_position = active.sum(-1).double()
    bins = (at_position * (BINS / values.shape[-1])).long().clamp_(max=BINS - 1)
    histogram = at_position.new_zeros(*at_position.shape[:-1], BINS).scatter_add_(-1, bins, inside.double())
    sums = [inside.double().sum(-1), (nan * inside).double().sum(-1), at_position.sum(-1), at_position.square().sum(-1)]
    return torch.cat([active.sum(-2).double(), torch.stack(sums, -1), histogram], -1)
