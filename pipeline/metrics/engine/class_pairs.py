"""What pairs of very many classes come to, tile by tile from products of their means, with nothing K x K in memory.

Distances by products lose digits where two means are close to each other: such pairs are measured by differences. All
that needs the products is made in one pass. Shapes: K classes, d features; "..." are member dimensions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from pipeline.metrics.engine import many_classes
from pipeline.metrics.engine.pairs import tiles
from pipeline.metrics.engine.statistics import ClassStatistics, distances

CLOSE = 1e-3
"""Squared distance over the two squared lengths, up to which a pair is measured by differences: a product is off by
some eps of the lengths, so by 1e-12 of such a distance."""
MOSTLY = 1 / 16
"""Share of close pairs in a tile from which on the whole tile is."""


@dataclass(frozen=True)
class PairTotals:
    """Of all pairs of classes; each `(...)`.

    Attributes:
        cdnv: mean over pairs i < j of (v_i + v_j) / (2 ||mu_i - mu_j||^2).
        closest: least ||mu_i - mu_j||^2.
        off_frame: ||M M^T / ||M M^T||_F - I / sqrt(K)||_F of the means M, one per row.
        off_simplex: ||G / ||G||_F - (I - 1 1^T / K) / sqrt(K - 1)||_F, G of the means less their own mean.
    """

    cdnv: Tensor
    closest: Tensor
    off_frame: Tensor
    off_simplex: Tensor


_known: WeakKeyDictionary[ClassStatistics, PairTotals] = WeakKeyDictionary()


def are_many(statistics: ClassStatistics) -> bool:
    """Whether there are so many classes that they are measured this way."""
    return statistics.num_classes >= many_classes.MANY


def pair_totals(statistics: ClassStatistics) -> PairTotals:
    """Those of the pairs of classes, measured once for each object."""
    if statistics not in _known:
        _known[statistics] = _totals(statistics)
    return _known[statistics]


def closest_pair(statistics: ClassStatistics) -> Tensor:
    """Least ||mu_i - mu_j||^2, `(...)`."""
    if are_many(statistics):
        return pair_totals(statistics).closest
    return statistics.pair_distances.amin(-1)


def _totals(statistics: ClassStatistics) -> PairTotals:
    classes, means = statistics.num_classes, statistics.balanced_means
    centre = statistics.means.mean(-2, keepdim=True)
    # <mu_i, mu_j> = <b_i, b_j> + a_i + a_j of the balanced means b.
    along = (means @ centre.mT).squeeze(-1) + centre.square().sum(-1) / 2
    squares, variances = means.square().sum(-1), statistics.scatter / statistics.counts
    of_simplex, of_frame = _gram_norm(means), _gram_norm(statistics.means)
    ratios = off_frame = off_simplex = torch.zeros_like(statistics.active)
    closest = torch.full_like(statistics.active, math.inf)
    for first, second, _ in tiles(classes, statistics.active.numel()):
        twice = 1 if first == second else 2
        gram = means[..., first, :] @ means[..., second, :].mT
        near = _square_distances(gram, means, squares, first, second)
        closest = torch.minimum(closest, near.amin((-2, -1)))
        inverse = near.reciprocal_()
        of_rows, of_columns = inverse.sum(-1) * variances[..., first], inverse.sum(-2) * variances[..., second]
        ratios = ratios + twice * (of_rows.sum(-1) + of_columns.sum(-1)) / 2
        frame = torch.add(gram, along[..., first, None], out=inverse).add_(along[..., None, second])
        off_frame = off_frame + twice * _off(frame, of_frame, 0.0, 1 / math.sqrt(classes), first == second)
        level, peak = -1 / (classes * math.sqrt(classes - 1)), 1 / math.sqrt(classes - 1)
        off_simplex = off_simplex + twice * _off(gram, of_simplex, level, peak, first == second)
    return PairTotals(ratios / (classes * (classes - 1)), closest, off_frame.sqrt(), off_simplex.sqrt())


def _square_distances(gram: Tensor, means: Tensor, squares: Tensor, first: slice, second: slice) -> Tensor:
    """||mu_i - mu_j||^2 of a tile `(..., m, n)`, infinity for i = j."""
    scale = squares[..., first, None] + squares[..., None, second]
    found = torch.add(scale, gram, alpha=-2)
    if first == second:
        found.diagonal(dim1=-2, dim2=-1).fill_(math.inf)
    close = found <= scale.mul_(CLOSE)
    count = int(close.sum())
    if count > MOSTLY * close.numel():
        found = distances(means[..., first, :], means[..., second, :]).square_()
        if first == second:
            found.diagonal(dim1=-2, dim2=-1).fill_(math.inf)
    elif count:
        *members, rows, columns = close.nonzero(as_tuple=True)
        apart = means[(*members, rows + first.start)] - means[(*members, columns + second.start)]
        found[close] = apart.square_().sum(-1)
    return found


def _off(gram: Tensor, norm: Tensor, level: float, peak: float, on_diagonal: bool) -> Tensor:
    """Sum of squares of a tile of a Gram matrix over its norm, less `level` and, for i = j, `peak`; in place."""
    gram.div_(norm[..., None, None])
    if level:
        gram.sub_(level)
    if on_diagonal:
        gram.diagonal(dim1=-2, dim2=-1).sub_(peak)
    return gram.square_().sum((-2, -1))


def _gram_norm(means: Tensor) -> Tensor:
    """||M M^T||_F = ||M^T M||_F, of the smaller of the two."""
    small = means @ means.mT if means.shape[-2] <= means.shape[-1] else means.mT @ means
    return torch.linalg.matrix_norm(small)
