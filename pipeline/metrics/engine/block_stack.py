"""Blocks that follow one another, with their Jacobians and the way of samples through them: what formulas take."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from pipeline.metrics.functions.block_jacobians import couplings, singular_triples


@dataclass(frozen=True)
class BlockStack:
    """L blocks of one shape in a row.

    Attributes:
        jacobians: of their branches at n samples, `(L, n, d, d)`.
        points: what enters the first and leaves each, `(n, L + 1, d)`.
        rank: K, singular triples that couplings count, at most d.
        num_classes: C.
    """

    jacobians: Tensor
    points: Tensor
    rank: int
    num_classes: int

    @property
    def depth(self) -> int:
        """L."""
        return len(self.jacobians)

    @cached_property
    def couplings(self) -> Tensor:
        """m_K(J_i, J_j), `(L, L)`: the mean over samples at which it is a number."""
        return self._coupled(absolute=False)

    @cached_property
    def couplings_abs(self) -> Tensor:
        """The same of absolute values."""
        return self._coupled(absolute=True)

    @cached_property
    def decomposed(self) -> tuple[Tensor, Tensor, Tensor]:
        """U `(L, n, d, d)`, singular values `(L, n, d)` (NaN where a Jacobian is not finite), V^T of the Jacobians."""
        return singular_triples(self.jacobians.double())

    def _coupled(self, *, absolute: bool) -> Tensor:
        return couplings(self.jacobians, min(self.rank, self.jacobians.shape[-1]), absolute).nanmean(-1)


@dataclass(frozen=True)
class BlockOfStack:
    """One block of a stack, the `at`-th from 0 on."""

    stack: BlockStack
    at: int

    def with_others(self, couplings: Tensor) -> Tensor:
        """Mean of a row `(L, L)` of couplings over the other blocks, those that are no number left out."""
        others = torch.arange(self.stack.depth, device=couplings.device) != self.at
        return couplings[self.at][others].nanmean()

    @property
    def decomposed(self) -> tuple[Tensor, Tensor, Tensor]:
        """U `(n, d, d)`, singular values `(n, d)`, V^T of this block's Jacobians."""
        left, values, right = self.stack.decomposed
        return left[self.at], values[self.at], right[self.at]
