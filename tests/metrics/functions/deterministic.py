"""The deterministic inputs of the specification's golden numbers."""

import torch
from torch import Tensor


def waves(rows: int, columns: int, start: float) -> Tensor:
    """D(r, c; a)_k = sin(a + k), row by row."""
    return torch.sin(start + torch.arange(rows * columns, dtype=torch.float64)).view(rows, columns)


def powers(rows: int, columns: int, start: float) -> Tensor:
    """P(r, c; a)_k = sin(a + k^1.3), row by row."""
    return torch.sin(start + torch.arange(rows * columns, dtype=torch.float64) ** 1.3).view(rows, columns)


def two_clouds(samples: int, dim: int) -> tuple[Tensor, Tensor]:
    """G(N, d): around -2 and +2 in every coordinate; and its labels."""
    labels = torch.arange(2).repeat_interleave(samples // 2)
    return 0.5 * waves(samples, dim, 1) + (4.0 * labels - 2)[:, None], labels
