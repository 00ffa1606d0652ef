"""The path of the training rows through a leaky residual network, with momenta: what formulas of paths take."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class LeakyPath:
    """A_l = (1 - rho_l Lt) A_{l-1} + rho_l W_l sigma(A_{l-1}), sigma the ReLU, with a 1 appended for a bias.

    Attributes:
        rows: A_0^T .. A_L^T of all N training rows, `(L + 1, N, w)`, float64.
        momenta: B_1^T .. B_L^T, `(L, N, w)`, B_l = -(1/lambda) dC/dA_l, C the fit with its mean over N.
        weights: W_1 .. W_L, `(L, w, w)`, or `(L, w, w + 1)` with the bias last.
        steps: rho_1 .. rho_L, `(L,)`, which add up to 1.
        depth: Lt, the effective depth.
    """

    rows: Tensor
    momenta: Tensor
    weights: Tensor
    steps: Tensor
    depth: float

    @property
    def bias(self) -> bool:
        """Whether sigma appends a 1."""
        return self.weights.shape[-1] > self.weights.shape[-2]


@dataclass(frozen=True)
class LayerOfPath:
    """Layer l of a path, from 1 on."""

    path: LeakyPath
    layer: int

    @property
    def before(self) -> Tensor:
        """A_{l-1}^T, `(N, w)`."""
        return self.path.rows[self.layer - 1]

    @property
    def after(self) -> Tensor:
        """A_l^T, `(N, w)`."""
        return self.path.rows[self.layer]

    @property
    def momenta(self) -> Tensor:
        """B_l^T, `(N, w)`."""
        return self.path.momenta[self.layer - 1]

    @property
    def velocity(self) -> Tensor:
        """(A_l - A_{l-1})^T / rho_l, `(N, w)`."""
        return (self.after - self.before) / self.path.steps[self.layer - 1]

    @property
    def row_values(self) -> Tensor:
        """Singular values of A_l, largest first."""
        return torch.linalg.svdvals(self.after)

    @property
    def weight_values(self) -> Tensor:
        """Singular values of W_l, largest first."""
        return torch.linalg.svdvals(self.path.weights[self.layer - 1])
