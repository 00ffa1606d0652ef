"""Rows that wait until there are enough of them: taking in a block costs little more than taking in a small batch."""

from __future__ import annotations

import torch
from torch import Tensor


class Buffer:
    """Batches of rows `(n, d)` of one dtype on one device, copied side by side.

    Args:
        capacity: how many rows there is room for.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._rows: Tensor | None = None
        self._labels: Tensor | None = None
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def add(self, rows: Tensor, labels: Tensor) -> bool:
        """Copy a batch; False if there is no room for it beside those that wait, or it is large enough by itself."""
        count, kept = rows.shape[0], self._rows
        end = self._size + count
        if end > self.capacity or 2 * count >= self.capacity:
            return False
        if kept is None or kept.dtype != rows.dtype or kept.device != rows.device:
            if self._size:
                return False
            # Memory that is never written costs nothing. A tensor made in inference mode could not be written outside.
            with torch.inference_mode(False):
                kept = self._rows = torch.empty(self.capacity, rows.shape[1], dtype=rows.dtype, device=rows.device)
                self._labels = torch.empty(self.capacity, dtype=labels.dtype, device=rows.device)
        kept[self._size : end].copy_(rows.detach())
        self._labels[self._size : end].copy_(labels)
        self._size = end
        return True

    def emptied(self) -> tuple[Tensor, Tensor]:
        """The rows and labels that waited, valid until the next batch is added; none wait any more."""
        rows, labels = self._rows, self._labels
        size, self._size = self._size, 0
        if rows is None:
            return torch.empty(0), torch.empty(0, dtype=torch.int64)
        return rows[:size], labels[:size]

    def __getstate__(self) -> dict[str, object]:
        # The empty place is got anew where it is needed.
        return {"capacity": self.capacity, "_rows": None, "_labels": None, "_size": 0}
