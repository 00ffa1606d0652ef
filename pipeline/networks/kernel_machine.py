"""Kernel ridge regression with a Laplace kernel, and its average gradient outer product (arXiv 2402.13728)."""

from dataclasses import dataclass

import torch
from torch import Tensor

COINCIDENT = 1e-10
"""Rows closer than this are one row: they pull each other nowhere."""
CHUNK = 2048


def unit_rows(rows: Tensor) -> Tensor:
    """Rows ``(n, d)`` at length one; those of zeros stay."""
    norms = torch.linalg.vector_norm(rows, dim=-1, keepdim=True)
    return rows / torch.where(norms > 0, norms, 1.0)


def matrix_root(matrix: Tensor) -> Tensor:
    """The square root of a symmetric matrix, negative eigenvalues taken for 0."""
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values.clamp(min=0).sqrt()) @ vectors.mT


def distances(rows: Tensor, others: Tensor) -> Tensor:
    """||x_i - z_j||, from differences: products of rows that nearly coincide lose all digits."""
    return torch.cdist(rows, others, compute_mode="donot_use_mm_for_euclid_dist")


@dataclass(frozen=True)
class LaplaceMachine:
    """f(x) = sum_j alpha_j exp(-||x - x_j|| / b), ridge regression of targets on rows.

    Attributes:
        rows: x_j ``(N, d)`` float64. alpha: ``(N, K)``. bandwidth: b.
    """

    rows: Tensor
    alpha: Tensor
    bandwidth: float

    @classmethod
    def fitted(cls, rows: Tensor, targets: Tensor, bandwidth: float, ridge: float) -> "LaplaceMachine":
        """alpha = (K + ridge I)^-1 Y."""
        kernel = torch.exp(-distances(rows, rows) / bandwidth)
        kernel.diagonal().add_(ridge)
        factor = torch.linalg.cholesky(kernel)
        return cls(rows, torch.cholesky_solve(targets, factor), bandwidth)

    def __call__(self, rows: Tensor) -> Tensor:
        """Outputs ``(n, K)``."""
        parts = [torch.exp(-distances(part, self.rows) / self.bandwidth) @ self.alpha for part in rows.split(CHUNK)]
        return torch.cat(parts)


def gradient_outer_product(machine: LaplaceMachine) -> Tensor:
    """M = (1/N) sum_ik g_ik g_ik^T ``(d, d)``, with the gradient of output k at row i, without coincident rows:

    g_ik = -(1/b) sum_j alpha_jk k(x_i, x_j) (x_i - x_j)/||x_i - x_j||.
    """
    rows, alpha, bandwidth = machine.rows, machine.alpha, machine.bandwidth
    apart = distances(rows, rows)
    pull = torch.where(apart > COINCIDENT, torch.exp(-apart / bandwidth) / apart.clamp(min=COINCIDENT), 0.0)
    weights, found = pull @ alpha, rows.new_zeros(rows.shape[1], rows.shape[1])
    for output in range(alpha.shape[1]):
        gradients = weights[:, output, None] * rows - pull @ (alpha[:, output, None] * rows)
        found += gradients.mT @ gradients
    return found / bandwidth**2 / len(rows)
