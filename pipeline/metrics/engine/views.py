"""Views of rows: what else class statistics are taken of, besides the rows as they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from pipeline.metrics.engine.chunks import chunks_of

NOBODY = -1
"""The label of rows that belong to no class."""
PIECE = 1 << 22
"""Elements of a view that are made at once: class statistics go through them in chunks of their own."""


def unit_rows(features: Tensor) -> tuple[Tensor, Tensor]:
    """Rows at length one, `(..., n, d)` float64, and which of them have a direction, `(..., n)`.

    A row is divided by its largest entry first, so that no square overflows or vanishes.
    """
    rows = features.to(torch.float64)
    largest = rows.abs().amax(-1, keepdim=True)
    rows = rows / torch.where(largest > 0, largest, 1.0)
    lengths = torch.linalg.vector_norm(rows, dim=-1, keepdim=True)
    return rows / torch.where(largest > 0, lengths, 1.0), largest.squeeze(-1) != 0


def _unit(features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    rows, has_direction = unit_rows(features)
    return rows, torch.where(has_direction, labels, NOBODY)


TRANSFORMS: dict[str, Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]] = {"unit": _unit}
"""Rows `(n, d)` and labels `(n,)` as another view has them; rows that it leaves out get the label `NOBODY`."""


def viewed(name: str, features: Tensor, labels: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """The view of rows `(N, d)` piece by piece, at least one."""
    pieces = chunks_of(features, max(1, PIECE // features.shape[-1]))
    for piece in pieces:
        yield TRANSFORMS[name](features[piece], labels[piece])
