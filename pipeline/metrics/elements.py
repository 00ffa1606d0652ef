"""Which units are active, element by element, before positions are pooled.

After "The lazy neuron phenomenon" (arXiv 2210.06313): a unit (a channel of a map, a column of tokens) is active at a
position of a sample if its activation is not zero; -0.0 is zero, and NaN is not active and counted apart. Of maps and
tokens that are averaged later every position counts; padding does not. For functions without exact zeros (GELU) all
shares are 1: they say something after a ReLU only. `rate_top10` is of the tenth of the units that is most active
(rounded up).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pipeline.metrics.engine.chunks import Chunk
from pipeline.metrics.engine.undefined import Exceptional
from pipeline.metrics.engine.unit_counts import OTHERS, unit_counts
from pipeline.metrics.registry import metric, optional, statistic

optional(__name__)


@statistic(shape=lambda num_classes, num_features: (num_features + OTHERS,), merge="sum", of_all_rows=True)
def counted_units(chunk: Chunk) -> Tensor:
    """`unit_counts` of the rows, each a position, `(..., d + 68)`."""
    return unit_counts(chunk.features)


def unit_rate(counted_units: Tensor) -> Tensor:
    """Share of positions at which each unit is active, `(..., C)`, of `unit_counts`."""
    return counted_units[..., :-OTHERS] / counted_units[..., -OTHERS, None]


def histogram(counted_units: Tensor) -> Tensor:
    """In how many positions the share of active units falls into each of 64 bins of [0, 1], `(..., 64)`."""
    return counted_units[..., 4 - OTHERS :]


UNCOUNTED = Exceptional(
    "a function made the rows, so that active units could not be counted", lambda c: c[..., -OTHERS].isnan()
)
NO_POSITIONS = Exceptional("there are no samples", lambda c: c[..., -OTHERS] == 0)
NEVER_ACTIVE = Exceptional("no unit is ever active", lambda c: c[..., 2 - OTHERS] == 0)
CASES = (UNCOUNTED, NO_POSITIONS)


@metric(*CASES, title="Share of active entries", scale="linear", invariant=("scaling",))
def active_share(counted_units: Tensor) -> Tensor:
    """Share of entries that are not zero, over samples, positions and units."""
    return unit_rate(counted_units).mean(-1)


@metric(*CASES, title="Share of dead units", scale="linear", invariant=("scaling",))
def dead_share(counted_units: Tensor) -> Tensor:
    """Share of units that are active at no position."""
    return (unit_rate(counted_units) == 0).to(torch.float64).mean(-1)


@metric(*CASES, title="Share of units that are always active", scale="linear", invariant=("scaling",))
def always_share(counted_units: Tensor) -> Tensor:
    """Share of units that are active at every position."""
    return (unit_rate(counted_units) == 1).to(torch.float64).mean(-1)


@metric(*CASES, NEVER_ACTIVE, title="Activity of the most active tenth", scale="linear", invariant=("scaling",))
def rate_top10(counted_units: Tensor) -> Tensor:
    """Share of all activity that the most active tenth of the units carries."""
    rates = unit_rate(counted_units)
    most = rates.topk(math.ceil(rates.shape[-1] / 10), -1).values
    return most.sum(-1) / rates.sum(-1)


@metric(*CASES, title="Active units at a position", scale="linear", invariant=("scaling",))
def active_per_input_mean(counted_units: Tensor) -> Tensor:
    """Mean over samples and positions of the number of active units."""
    return counted_units[..., 2 - OTHERS] / counted_units[..., -OTHERS]


@metric(*CASES, title="Spread of active units at a position", scale="linear", invariant=("scaling",))
def active_per_input_std(counted_units: Tensor) -> Tensor:
    """Standard deviation over samples and positions of the number of active units."""
    total, squares, positions = (counted_units[..., at - OTHERS] for at in (2, 3, 0))
    return (squares / positions - (total / positions).square()).clamp(min=0).sqrt()


@metric(*CASES, title="Entries that are NaN", target=0.0, scale="linear", invariant=("scaling",))
def nan_entries(counted_units: Tensor) -> Tensor:
    """Number of entries that are NaN, which do not count as active."""
    return counted_units[..., 1 - OTHERS]
