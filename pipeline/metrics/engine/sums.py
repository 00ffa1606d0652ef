"""Sums over labelled rows about one row of each class, which grow tile by tile while nothing of the rows is kept."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import cache

import numpy as np
import torch
from threadpoolctl import ThreadpoolController
from torch import Tensor

# Columns from which half of a symmetric product is worth a call of its own.
SYRK_COLUMNS = 16


def scratch_for(features: Tensor) -> Tensor:
    """Two buffers for a chunk of features: memory that is got anew for every chunk costs more than the work."""
    return torch.empty(2, *features.shape, dtype=torch.float64, device=features.device)


def minus_rows(features: Tensor, table: Tensor, rows: Tensor, scratch: Tensor) -> Tensor:
    """Features `(..., n, d)` minus one row each of a float64 table `(..., K, d)`, in `scratch` if it is of that shape.

    The result lies in the first buffer; the second is free again.
    """
    exact, chosen = scratch if scratch.shape[1:] == features.shape else scratch_for(features)
    exact.copy_(features)
    return exact.sub_(torch.index_select(table, -2, rows, out=chosen))


class Gram:
    """Products of all pairs of columns, the sum of rows^T rows over tiles of float64 rows `(..., n, d)`.

    On one thread of a CPU half of them is computed, by BLAS's dsyrk, and mirrored at the end.
    """

    def __init__(self) -> None:
        self._half: np.ndarray | None = None
        self._whole: Tensor | None = None

    def add(self, rows: Tensor) -> None:
        """Add a tile."""
        if rows.device.type != "cpu" or rows.ndim > 2 or rows.shape[1] < SYRK_COLUMNS or torch.get_num_threads() > 1:
            product = rows.mT @ rows
            self._whole = product if self._whole is None else self._whole.add_(product)
            return
        columns = rows.numpy().T
        if self._half is None:
            self._half = np.zeros((len(columns), len(columns)), order="F")
        if rows.shape[0]:
            dsyrk, threads = _blas()
            # SciPy's has threads of its own. To ask for their number is cheap, to set it is not.
            on_one = all(library.num_threads == 1 for library in threads.lib_controllers)
            with nullcontext() if on_one else threads.limit(limits=1):
                self._half = dsyrk(1.0, columns, beta=1.0, c=self._half, overwrite_c=1)

    def total(self) -> Tensor:
        """The sum, `(..., d, d)`."""
        if self._half is None:
            return self._whole
        half = torch.from_numpy(self._half.T)  # zero above the diagonal
        whole = half + half.mT
        whole.diagonal().mul_(0.5)
        return whole if self._whole is None else whole.add_(self._whole)  # the number of threads has changed


@cache
def _blas() -> tuple[Callable[..., np.ndarray], ThreadpoolController]:
    from scipy.linalg.blas import dsyrk  # half a second, for which runs without convolutions or streams have no use

    return dsyrk, ThreadpoolController().select(user_api="blas")


class ClassSums:
    """Sums over labelled rows `(..., n, d)` about the *anchor* of their class, the first row of it that came.

    Rows come in tiles, as many at once as `scratch` has room for: on a CPU, as much as stays in a core's cache. Never
    waits for a GPU.

    Attributes:
        samples: how many rows came, those included that belong to no class.
        counts: samples per class, `(K,)`.
        anchors: one sample of each class, zero for a class without samples, `(..., K, d)`.
        nonzero: number of non-zero entries of the features, `(...)`, float64.
    """

    def __init__(self, num_classes: int, scratch: Tensor, with_gram: bool) -> None:
        *members, _, width = scratch.shape[1:]
        self.num_classes = num_classes
        self.samples = 0
        self.counts = scratch.new_zeros(num_classes)
        self.anchors = scratch.new_zeros(*members, num_classes, width)
        self.nonzero = scratch.new_zeros(members)
        self._scratch = scratch
        # Rows whose label is outside [0, K) have a bin of their own.
        self._sums = scratch.new_zeros(*members, num_classes + 1, width)
        self._squares = scratch.new_zeros(*members, num_classes + 1, 1)
        self._gram = Gram() if with_gram else None
        self._all_have_anchors = False

    def add(self, features: Tensor, labels: Tensor) -> None:
        """Add rows of any float dtype with int64 labels `(n,)`."""
        rows, bins = bins_of(labels, self.num_classes)
        self._count(features, bins)
        room = self._scratch if features.ndim > 2 else self._scratch[:, : len(labels)]
        deviations = minus_rows(features, self.anchors, rows, room)
        add_by_class(self._sums, bins, deviations)
        self._add_lengths(deviations, bins)
        # Written as floats at once, five times as fast as a sum of booleans; exact for a tile's 2^24 entries. In the
        # buffer that is free again: memory that is got anew takes twice as long.
        ones = self._scratch[1].flatten().view(torch.float32)[: features.numel()].view(features.shape)
        self.nonzero += torch.ne(features, 0, out=ones).sum((-2, -1))
        if self._gram is not None:
            self._gram.add(deviations)

    def _add_lengths(self, deviations: Tensor, bins: Tensor) -> None:
        add_by_class(self._squares, bins, torch.linalg.vector_norm(deviations, dim=-1, keepdim=True).square_())

    def _count(self, features: Tensor, bins: Tensor) -> None:
        """Count rows by class, and make the first one the anchor of a class that has none."""
        self.samples += len(bins)
        counts = self.counts.new_zeros(self.num_classes + 1, 1)
        counts = add_by_class(counts, bins, counts.new_ones(len(bins), 1))[:-1, 0]
        if not self._all_have_anchors and len(bins):
            new = (self.counts == 0) & (counts > 0)
            on_cpu = new.device.type == "cpu"
            if not on_cpu or bool(new.any()):
                firsts = features.index_select(-2, self._firsts(bins)).double()
                self.anchors = torch.where(new[:, None], firsts, self.anchors)
            self._all_have_anchors = on_cpu and bool((self.counts + counts).all())
        self.counts += counts

    def _firsts(self, bins: Tensor) -> Tensor:
        """The number of the first sample of each class, `(K,)`; any number for a class without samples."""
        numbers = torch.arange(len(bins), device=bins.device)
        found = numbers.new_full((self.num_classes + 1,), len(numbers) - 1)
        return found.scatter_reduce_(0, bins, numbers, "amin")[:-1]

    @property
    def drifts(self) -> Tensor:
        """Mean of the rows of a class less its anchor, `(..., K, d)`."""
        return self._sums[..., :-1, :] / self.counts.clamp(min=1)[:, None]

    @property
    def squares(self) -> Tensor:
        """Sum over the samples of a class of their squared distance from its anchor, `(..., K)`."""
        return self._squares[..., :-1, 0]

    @property
    def gram(self) -> Tensor:
        """The sum of (z - a)(z - a)^T over rows z with anchors a, `(..., d, d)`; to be taken once, after the last."""
        return self._gram.total()


def bins_of(labels: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """Labels by which a table of K rows can be indexed, and the same with K for those outside [0, K), `(n,)` each."""
    rows = labels.clamp(0, num_classes - 1)
    return rows, torch.where(labels == rows, labels, num_classes)


def add_by_class(sums: Tensor, bins: Tensor, values: Tensor) -> Tensor:
    """Add float64 values `(..., n, m)` to those of their class in `sums` `(..., K + 1, m)`, which is returned."""
    if sums.device.type == "cpu":  # four times as fast as a product with so few rows
        return sums.index_add_(-2, bins, values)
    # On a GPU that would add in any order, and one after another.
    classes = torch.arange(sums.shape[-2] - 1, device=bins.device)
    sums[..., :-1, :] += (bins == classes[:, None]).double() @ values
    return sums
