"""What pairs of class means come to, tile by tile: never K x K at once, and once for all metrics that ask.

Distances are taken by differences. Shapes: K classes, d features; "..." are member dimensions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from pipeline.metrics.engine.statistics import ClassStatistics, distances

TILE = 1024
"""Classes whose pairs with as many others are looked at together."""
SORTED = 1 << 22
"""Pairs up to which a median is taken of all values at once; beyond it of those in one bin of a histogram."""
BIN_BITS = 44
"""Bits of a positive float64 that a bin of the histogram leaves open: bins are 2^-8 wide, relatively."""


@dataclass(frozen=True)
class Moments:
    """Mean and population variance of a quantity over pairs, `(...)` each."""

    mean: Tensor
    variance: Tensor

    @property
    def variation(self) -> Tensor:
        """Standard deviation over the absolute mean."""
        return self.variance.sqrt() / self.mean.abs()


@dataclass(frozen=True)
class PairSummary:
    """Of all pairs of classes i < j; M are the class means less their unweighted mean, m = M / ||M||.

    Attributes:
        cdnv: (v_i + v_j) / 2 over ||mu_i - mu_j||^2.
        cdnv_squared: the same over ||mu_i - mu_j||^4.
        cosine: <m_i, m_j>.
        off_simplex: |<m_i, m_j> + 1 / (K - 1)|.
        logarithm, distance, riesz: of ||m_i - m_j||: -log, itself, sign(d - 2) times its -(d - 2)-th power.
        closest: least ||mu_i - mu_j||^2, `(...)`.
        closest_directions: least ||m_i - m_j||^2, `(...)`.
    """

    cdnv: Moments
    cdnv_squared: Moments
    cosine: Moments
    off_simplex: Moments
    logarithm: Moments
    distance: Moments
    riesz: Moments
    closest: Tensor
    closest_directions: Tensor


_known: WeakKeyDictionary[ClassStatistics, PairSummary] = WeakKeyDictionary()


def pair_summary(statistics: ClassStatistics) -> PairSummary:
    """Summary of the pairs of classes, measured once for each object."""
    if statistics not in _known:
        _known[statistics] = _summary(statistics)
    return _known[statistics]


def directions(statistics: ClassStatistics) -> Tensor:
    """m_c = M_c / ||M_c|| of the class means less their unweighted mean, `(..., K, d)`; NaN for a mean of zero."""
    means = statistics.balanced_means
    return means / torch.linalg.vector_norm(means, dim=-1, keepdim=True)


def tiles(num_classes: int, members: int = 1) -> Iterator[tuple[slice, slice, Tensor]]:
    """Two slices of classes, the second not before the first, and which of their pairs have i < j, `(m, n)`."""
    size = max(16, int(TILE / math.sqrt(max(1, members))))
    starts = range(0, num_classes, size)
    for first in starts:
        for second in starts[first // size :]:
            rows, columns = (torch.arange(start, min(start + size, num_classes)) for start in (first, second))
            yield slice(first, first + size), slice(second, second + size), rows[:, None] < columns


def _summary(statistics: ClassStatistics) -> PairSummary:
    units, width = directions(statistics), statistics.means.shape[-1]
    found: dict[str, tuple[float, Tensor, Tensor]] = {}
    closest = closest_directions = torch.full_like(statistics.active, math.inf)
    for first, second, ordered in _of_pairs(statistics):
        ratio, square = _ratios(statistics, first, second, ordered)
        apart = distances(units[..., first, :], units[..., second, :])[..., ordered]
        cosine = 1 - apart.square() / 2
        values = {
            "cdnv": ratio,
            "cdnv_squared": ratio / square,
            "cosine": cosine,
            "off_simplex": (cosine + 1 / (statistics.num_classes - 1)).abs(),
            "logarithm": -apart.log(),
            "distance": apart,
            "riesz": math.copysign(width != 2, width - 2) * apart ** (2 - width),
        }
        found = {name: _joined(found.get(name), value) for name, value in values.items()}
        closest = torch.minimum(closest, square.amin(-1))
        closest_directions = torch.minimum(closest_directions, apart.square().amin(-1))
    moments = {name: Moments(mean, squares / count) for name, (count, mean, squares) in found.items()}
    return PairSummary(**moments, closest=closest, closest_directions=closest_directions)


def _of_pairs(statistics: ClassStatistics) -> Iterator[tuple[slice, slice, Tensor]]:
    """Tiles that hold pairs."""
    for first, second, ordered in tiles(statistics.num_classes, statistics.active.numel()):
        if ordered.any():
            yield first, second, ordered.to(statistics.means.device)


def _ratios(statistics: ClassStatistics, first: slice, second: slice, ordered: Tensor) -> tuple[Tensor, Tensor]:
    """CDNV and squared distance of the means of the pairs of a tile, `(..., P)` each."""
    means, variances = statistics.balanced_means, statistics.scatter / statistics.counts
    square = distances(means[..., first, :], means[..., second, :]).square()[..., ordered]
    spread = (variances[..., first, None] + variances[..., None, second])[..., ordered] / 2
    return spread / square, square


def _joined(known: tuple[float, Tensor, Tensor] | None, values: Tensor) -> tuple[float, Tensor, Tensor]:
    """Count, mean and sum of squared deviations, with the values `(..., P)` of one more tile (Chan et al. 1983)."""
    own = values.shape[-1]
    mean = values.mean(-1)
    squares = (values - mean[..., None]).square().sum(-1)
    if known is None:
        return own, mean, squares
    count, before, so_far = known
    shift, total = mean - before, count + own
    return total, before + shift * (own / total), so_far + squares + shift.square() * (count * own / total)


def median_cdnv(statistics: ClassStatistics) -> Tensor:
    """Median over pairs of classes of (v_i + v_j) / (2 ||mu_i - mu_j||^2), `(...)`, exact for any number of classes."""
    ratios = lambda: (_ratios(statistics, *tile)[0] for tile in _of_pairs(statistics))  # noqa: E731
    count = statistics.num_classes * (statistics.num_classes - 1) // 2
    members = statistics.active.numel()
    if count * members <= SORTED:
        return _middle(torch.cat(list(ratios()), -1), (count - 1) // 2, count // 2)
    found = [_median_by_bins(lambda m=m: (r.reshape(members, -1)[m] for r in ratios()), count) for m in range(members)]
    return torch.stack(found).view(statistics.active.shape)


def _middle(values: Tensor, lower: int, upper: int) -> Tensor:
    """Mean of the values of two ranks, `(...)`; NaN for values that are NaN."""
    ordered = values.sort(-1).values
    middle = (ordered[..., lower] + ordered[..., upper]) / 2
    return torch.where(values.isnan().any(-1), math.nan, middle)


def _median_by_bins(values: Callable[[], Iterator[Tensor]], count: int) -> Tensor:
    """The same of values >= 0 that come tile by tile, twice: counted first, and then those of the middle bins."""
    bins = sum(torch.bincount(_bin(tile), minlength=1 << (63 - BIN_BITS)) for tile in values())
    below = bins.cumsum(0)
    lower, upper = (count - 1) // 2, count // 2
    first, last = (int(torch.searchsorted(below, rank, right=True)) for rank in (lower, upper))
    kept = torch.cat([tile[(_bin(tile) >= first) & (_bin(tile) <= last)] for tile in values()])
    before = int(below[first]) - int(bins[first])
    return _middle(kept, lower - before, upper - before)


def _bin(values: Tensor) -> Tensor:
    """Bin of a float64 value >= 0: its leading bits order it."""
    return values.contiguous().view(torch.int64) >> BIN_BITS
