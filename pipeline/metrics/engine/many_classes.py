"""From how many classes on formulas go other ways, to the same numbers but for rounding: decompositions of triangles.

Below `MANY` classes everything stays as it was, to the bit.
"""

from __future__ import annotations

import torch
from torch import Tensor

MANY = 512
"""Classes from which on K x K matrices are worth avoiding, and a decomposition is the larger part of all formulas."""


def triangle(matrix: Tensor) -> Tensor:
    """R `(..., r, r)`, r the smaller side of a matrix `(..., m, n)`: the triangle of its rows or columns.

    It has the matrix's singular values, and its right singular vectors if m >= n, else its left ones as right ones. A
    QR decomposition is as exact as a singular value decomposition; a Gram matrix would square the condition number.
    """
    tall = matrix if matrix.shape[-2] >= matrix.shape[-1] else matrix.mT
    return torch.linalg.qr(tall, mode="r").R


def singular_values(matrix: Tensor) -> Tensor:
    """All of a finite matrix `(..., m, n)`, largest first, `(..., min(m, n))`."""
    return torch.linalg.svdvals(triangle(matrix))


def right_vectors(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Singular values of a finite matrix `(..., m, n)`, largest first, and right singular vectors `(..., r, n)`.

    Vectors of a singular value s are exact to eps times the largest over s; of zeros they are anything.
    """
    _, values, vectors = torch.linalg.svd(triangle(matrix), full_matrices=False)
    if matrix.shape[-2] < matrix.shape[-1]:  # U^T M = S V^T
        scale = torch.where(values > 0, values, 1.0)
        vectors = (vectors @ matrix) / scale[..., None]
    return values, vectors
