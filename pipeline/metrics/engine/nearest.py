"""The nearest of very many class means: by products in float32 where these are sure, and otherwise in float64."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pipeline.metrics.engine.native_nearest import PackedMeans, library
from pipeline.metrics.engine.pairs import TILE

UNIT = torch.finfo(torch.float32).eps / 2


class Nearest:
    """Finds argmin_k ||z - mu_k||^2 = argmin_k (||mu_k||^2 / 2 - <z, mu_k>) of rows z, some classes after others.

    A product in float32 takes half the time, and is off by (d + 8) u (||z|| max ||mu|| + max ||mu||^2 / 2) at most, u
    its unit roundoff (the bound for sums of products in any order). A row whose two least scores are nearer to each
    other than twice that is looked at again in float64, so the result is that of float64.

    Args:
        means: `(..., K, d)`, float64, from a common origin.
        half: ||mu_k||^2 / 2, or infinity for a class that does not count, `(..., 1, K)`.
    """

    def __init__(self, means: Tensor, half: Tensor) -> None:
        self._means, self._half = means, half
        largest = means.abs().amax()
        self._scale = torch.where((largest > 0) & largest.isfinite(), largest, 1.0)
        self._means32 = self._packed = None
        if means.ndim == 2:
            scaled = (means / self._scale).float()
            if means.device.type == "cpu" and library() is not None:
                self._packed = PackedMeans(scaled)
            else:
                self._means32 = scaled
        self._longest = torch.linalg.vector_norm(means / self._scale, dim=-1).amax()

    def of(self, rows: Tensor) -> Tensor:
        """The first of equally near means of rows `(..., n, d)`, float64, from the same origin, `(..., n)`."""
        if rows.ndim > 2 or rows.device.type != "cpu" or not _float32_is_ieee():
            return self._exact(rows)
        largest = rows.abs().amax() if len(rows) else rows.new_ones(())
        scale = torch.where(largest > 0, largest, 1.0)
        found, apart = self._quick((rows / scale).float(), (self._half[0] / (scale * self._scale)).float())
        lengths = torch.linalg.vector_norm(rows, dim=-1) / scale
        at_most = lengths * self._longest + self._longest.square() * (self._scale / scale) / 2
        sure = apart > 2 * (rows.shape[-1] + 8) * UNIT * at_most
        if not bool(sure.all()):  # NaN is not sure either
            again = (~sure).nonzero().squeeze(-1)
            found[again] = self._exact(rows.index_select(0, again))
        return found

    def _quick(self, rows: Tensor, half: Tensor) -> tuple[Tensor, Tensor]:
        """The class of the least score in float32, and how far off the next one is, `(n,)` each."""
        if self._packed is not None:
            return self._packed.nearest(rows, half)
        least, second = rows.new_full((2, len(rows)), math.inf)
        found = torch.zeros(len(rows), dtype=torch.int64)
        for start in range(0, len(self._means32), TILE):
            classes = slice(start, start + TILE)
            scores = torch.addmm(half[classes], rows, self._means32[classes].T, alpha=-1)
            values, at = scores.min(-1)
            others = scores.scatter_(1, at[:, None], math.inf).amin(-1)
            second = torch.minimum(torch.minimum(second, others), torch.maximum(least, values))
            found = torch.where(values < least, at + start, found)
            least = torch.minimum(least, values)
        return found, second.double() - least.double()

    def _exact(self, rows: Tensor) -> Tensor:
        least = found = None
        for start in range(0, self._means.shape[-2], TILE):
            classes = slice(start, start + TILE)
            scores = rows @ self._means[..., classes, :].mT
            values, at = torch.sub(self._half[..., classes], scores, out=scores).min(-1)
            if least is None:
                least, found = values, at
            else:
                nearer = values < least
                least, found = torch.where(nearer, values, least), torch.where(nearer, at + start, found)
        return found


def _float32_is_ieee() -> bool:
    """Whether products of float32 on the CPU are what they say, and not those of a shorter type."""
    return torch.backends.mkldnn.matmul.fp32_precision in ("none", "ieee")
