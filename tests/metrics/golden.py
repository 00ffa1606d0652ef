"""The input T of the specification of network measures, section 1, on which all golden values are given."""

import torch

N, D, K = 12, 4, 3


def _grid(rows: int, columns: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.arange(rows, dtype=torch.float64)[:, None], torch.arange(columns, dtype=torch.float64)[None]


Y = torch.tensor([0] * 6 + [1] * 4 + [2] * 2)
"""Labels of the rows."""
G = torch.tensor([0, 0, 0, 1, 1, 1, 0, 0, 1, 1, 0, 1])
"""Their groups."""

_i, _j = _grid(N, D)
H = torch.sin(0.7 * _i + 1.3 * _j + 0.45 * _i * _j) + 1.5 * (_j == Y[:, None])
"""Rows `(12, 4)`."""

_k, _j = _grid(K, D)
W = torch.cos(0.9 * _k + 0.5 * _j) + (_j == _k)
"""A classifier `(3, 4)`."""

_a, _j = _grid(5, D)
W1 = torch.sin(1.1 * _a + 0.6 * _j + 0.2 * _a * _j)
"""Inner weights `(5, 4)`."""

_k, _a = _grid(K, 5)
W2 = torch.cos(0.5 * _k + 0.9 * _a + 0.3 * _k * _a)
"""What comes after them, `(3, 5)`."""

_r, _j = _grid(5, D)
O = torch.sin(2 + 0.9 * _r * (1 + _j) / 3)  # noqa: E741
"""Foreign rows `(5, 4)`."""
