"""Second moments of the rows of two places of a network, of the same samples: what their similarity is made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.runtime.devices import moved, with_float64

LEAST = 4
"""Rows that a batch must have for an unbiased estimate."""


@dataclass(frozen=True, eq=False)
class Cross:
    """Sum of (x - mean_x)(y - mean_y)^T over rows x `(..., N, p)` and y `(..., N, q)`, float64, and what merging needs.

    Rows are measured from an anchor, the first of them, so that an offset costs no digits; parts merge by the pairwise
    update of Chan, Golub & LeVeque (1983).

    Attributes:
        count: N, `()`.
        anchors: the first rows, `(..., p)` and `(..., q)`; zero where there is none.
        drifts: the means less these.
        product: the sum, `(..., p, q)`.
    """

    count: Tensor
    anchors: tuple[Tensor, Tensor]
    drifts: tuple[Tensor, Tensor]
    product: Tensor

    @classmethod
    def of_rows(cls, first: Tensor, second: Tensor) -> Cross:
        """That of rows of any float dtype."""
        rows = tuple(each.detach().to(torch.float64) for each in (first, second))
        count = first.shape[-2]
        anchors = tuple(each[..., 0, :] if count else each.new_zeros(*each.shape[:-2], each.shape[-1]) for each in rows)
        away = tuple(each - anchor[..., None, :] for each, anchor in zip(rows, anchors, strict=True))
        drifts = tuple(each.sum(-2) / max(1, count) for each in away)
        x, y = (each - drift[..., None, :] for each, drift in zip(away, drifts, strict=True))
        return cls(rows[0].new_full((), count), anchors, drifts, x.mT @ y)

    @classmethod
    def merged(cls, parts: Sequence[Cross]) -> Cross:
        """That of the rows of all parts."""
        if len(parts) == 1:
            return parts[0]
        counts = torch.stack([part.count for part in parts])
        largest, total = parts[int(counts.argmax())], counts.sum()
        drifts, shifts = [], []
        for side in range(2):
            anchor = largest.anchors[side]
            means = torch.stack([(part.anchors[side] - anchor) + part.drifts[side] for part in parts])  # (R, ..., p)
            weights = counts.view(-1, *[1] * (means.ndim - 1))
            drift = (weights * means).sum(0) / total.clamp(min=1)
            drifts.append(drift)
            shifts.append(means - drift)
        product = torch.stack([part.product for part in parts]).sum(0)
        for count, x, y in zip(counts, *shifts, strict=True):
            product = product + count * x[..., :, None] * y[..., None, :]
        return cls(total, largest.anchors, (drifts[0], drifts[1]), product)

    def member(self, index: tuple[int, ...]) -> Cross:
        """That of one member; all where there are none."""
        if self.product.ndim == 2:
            return self
        anchors, drifts = (tuple(each[index] for each in pair) for pair in (self.anchors, self.drifts))
        return Cross(self.count, anchors, drifts, self.product[index])

    def to(self, device: torch.device | str) -> Cross:
        """The same on another device."""
        return moved(self, device)


@dataclass(frozen=True, eq=False)
class PairStatistics:
    """What the similarity of two places takes.

    Attributes:
        cross: of the two.
        first, second: of each with itself.
        batches: sums over batches of the unbiased HSIC of the two, of the first and of the second with itself,
            `(..., 3)`; NaN where a batch had fewer rows than `LEAST`.
    """

    cross: Cross
    first: Cross
    second: Cross
    batches: Tensor

    @classmethod
    def of_rows(cls, first: Tensor, second: Tensor, batches: Sequence[slice] | None = None) -> PairStatistics:
        """Those of rows `(..., n, p)` and `(..., n, q)`, which are one batch, or those of `batches` that are large
        enough."""
        first, second = with_float64(first, second)
        crosses = (Cross.of_rows(*pair) for pair in ((first, second), (first, first), (second, second)))
        if batches is None:
            return cls(*crosses, unbiased_hsic(first, second))
        found = [
            unbiased_hsic(first[..., rows, :], second[..., rows, :])
            for rows in batches
            if rows.stop - rows.start >= LEAST
        ]
        nothing = torch.zeros(*first.shape[:-2], 3, dtype=torch.float64, device=first.device)
        return cls(*crosses, sum(found, start=nothing))

    @classmethod
    def nothing(cls, first: int, second: int) -> PairStatistics:
        """Those of no rows of two places so wide, without member dimensions."""
        return cls.of_rows(torch.zeros(0, first), torch.zeros(0, second), [])

    @classmethod
    def merged(cls, parts: Sequence[PairStatistics]) -> PairStatistics:
        """Those of the batches of all parts."""
        crosses = (Cross.merged([getattr(part, name) for part in parts]) for name in ("cross", "first", "second"))
        return cls(*crosses, torch.stack([part.batches for part in parts]).sum(0))

    def member(self, index: tuple[int, ...]) -> PairStatistics:
        """Those of one member."""
        if self.batches.ndim == 1:
            return self
        return PairStatistics(*(it.member(index) for it in (self.cross, self.first, self.second)), self.batches[index])

    def to(self, device: torch.device | str) -> PairStatistics:
        """The same on another device."""
        return moved(self, device)


def unbiased_hsic(first: Tensor, second: Tensor) -> Tensor:
    """Unbiased HSIC with linear kernels (Song et al. 2012) of the two, the first and the second alone, `(..., 3)`.

    NaN for fewer than four rows; zeros for none, which is no batch.
    """
    rows = first.shape[-2]
    if rows < LEAST:
        value = 0.0 if rows == 0 else float("nan")
        return torch.full((*first.shape[:-2], 3), value, dtype=torch.float64, device=first.device)
    kernels = []
    for each in (first, second):
        exact = each.detach().to(torch.float64)
        exact = exact - exact.mean(-2, keepdim=True)  # changes nothing but the rounding
        kernel = exact @ exact.mT
        kernel.diagonal(dim1=-2, dim2=-1).zero_()
        kernels.append(kernel)
    pairs = ((kernels[0], kernels[1]), (kernels[0], kernels[0]), (kernels[1], kernels[1]))
    return torch.stack([_hsic(*pair, rows) for pair in pairs], -1)


def _hsic(one: Tensor, other: Tensor, rows: int) -> Tensor:
    sums, other_sums = one.sum(-1), other.sum(-1)
    trace = (one * other).sum((-2, -1))
    product = sums.sum(-1) * other_sums.sum(-1) / ((rows - 1) * (rows - 2))
    mixed = 2 * (sums * other_sums).sum(-1) / (rows - 2)
    return (trace + product - mixed) / (rows * (rows - 3))
