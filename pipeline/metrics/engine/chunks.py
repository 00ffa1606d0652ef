"""A chunk of labelled rows, worked on in float64 in scratch buffers that all chunks share."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache, cached_property

import numpy as np
import torch
from threadpoolctl import ThreadpoolController
from torch import Tensor

# Elements worked on at once: on a CPU they stay in a core's cache, on a GPU they make each kernel launch worth while.
CHUNK_ELEMENTS_CPU = 1 << 18
CHUNK_ELEMENTS_GPU = 1 << 24
# Columns from which half of a symmetric product is worth a call of its own.
SYRK_COLUMNS = 16


def chunks_of(features: Tensor, at_least: int = 1) -> list[slice]:
    """Slices of the sample dimension of features `(..., N, d)`, at least one, each worth one chunk of elements, or
    `at_least` so many samples."""
    *members, samples, width = features.shape
    elements = CHUNK_ELEMENTS_CPU if features.device.type == "cpu" else CHUNK_ELEMENTS_GPU
    size = max(at_least, elements // max(1, math.prod(members) * width))
    return [slice(start, start + size) for start in range(0, max(1, samples), size)]


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
            with threads.limit(limits=1, user_api="blas"):  # scipy's has threads of its own
                self._half = dsyrk(1.0, columns, beta=1.0, c=self._half, overwrite_c=1)

    def total(self) -> Tensor:
        """The sum, `(..., d, d)`."""
        if self._half is None:
            return self._whole
        half = torch.from_numpy(self._half.T)  # zero above the diagonal
        whole = half + half.mT
        whole.diagonal().mul_(0.5)
        return whole


@cache
def _blas() -> tuple[Callable[..., np.ndarray], ThreadpoolController]:
    from scipy.linalg.blas import dsyrk  # half a second, for which runs without convolutions or streams have no use

    return dsyrk, ThreadpoolController()


class Chunk:
    """Rows in the first look at them, before the class means of all are known.

    A chunk is gone through tile by tile, each as much as stays in a core's cache. The tensors of float64 rows are
    overwritten by the next chunk.

    Attributes:
        features: as they came, `(..., n, d)` of any float dtype.
        labels: `(n,)`; samples whose label is outside [0, K) belong to no class.
        counts: samples per class, `(K,)`.
        anchors: one sample of each class, zero for a class without samples, `(..., K, d)`.
        drifts: class mean in this chunk less the anchor, `(..., K, d)`.
    """

    def __init__(
        self, features: Tensor, labels: Tensor, num_classes: int, scratch: Tensor, with_gram: bool = False
    ) -> None:
        self.features, self.labels, self.num_classes = features, labels, num_classes
        # Labels by which a table of K rows can be indexed; those outside [0, K) have a bin of their own.
        self._rows = labels.clamp(0, num_classes - 1)
        self._bins = torch.where(labels == self._rows, labels, num_classes)
        self._scratch = scratch
        self.counts = self.class_sums(scratch.new_ones(len(labels), 1)).squeeze(-1)
        self.anchors = scratch.new_zeros(*features.shape[:-2], num_classes, features.shape[-1])
        if len(labels):
            firsts = features.index_select(-2, self._firsts()).double()
            self.anchors = torch.where(self.counts[:, None] > 0, firsts, self.anchors)
        self._gram = Gram() if with_gram else None
        self._lengths, self._nonzero = [], []
        sums = scratch.new_zeros(*features.shape[:-2], num_classes + 1, features.shape[-1])
        for tile in self._tiles():
            self._sweep(tile, sums)
        self.drifts = sums[..., :-1, :] / self.counts.clamp(min=1)[:, None]

    def _tiles(self) -> list[slice]:
        if self.features.ndim > 2 or self.features.device.type != "cpu":
            return [slice(0, len(self.labels))]
        return chunks_of(self.features)

    def _sweep(self, tile: slice, sums: Tensor) -> None:
        """Add what is needed of a tile's rows, as long as they are at hand."""
        features, bins = self.features[..., tile, :], self._bins[tile]
        deviations = self._deviations(tile)
        if sums.device.type == "cpu":  # four times as fast as a product with so few rows
            sums.index_add_(-2, bins, deviations)
        else:
            sums[..., :-1, :] += self.class_sums(deviations)
        self._lengths.append(torch.linalg.vector_norm(deviations, dim=-1, keepdim=True))
        # Written as floats at once, five times as fast as a sum of booleans; exact for a tile's 2^24 entries. In the
        # buffer that is free again: memory that is got anew takes twice as long.
        ones = self._scratch[1].flatten().view(torch.float32)[: features.numel()].view(features.shape)
        self._nonzero.append(torch.ne(features, 0, out=ones).sum((-2, -1)).to(torch.float64))
        if self._gram is not None:
            self._gram.add(deviations)

    def _deviations(self, rows: slice) -> Tensor:
        return minus_rows(self.features[..., rows, :], self.anchors, self._rows[rows], self._scratch)

    @cached_property
    def deviations(self) -> Tensor:
        """Rows less the anchor of their class, `(..., n, d)`."""
        return self._deviations(slice(None))

    @property
    def gram(self) -> Tensor:
        """deviations^T deviations `(..., d, d)`."""
        if self._gram is None:
            self._gram = Gram()
            self._gram.add(self.deviations)
        return self._gram.total()

    @cached_property
    def centred(self) -> Tensor:
        """Rows less the mean of their class in this chunk, `(..., n, d)`."""
        buffer = self._scratch[1]
        if buffer.shape != self.deviations.shape:
            buffer = torch.empty_like(self.deviations)
        return torch.sub(self.deviations, torch.index_select(self.drifts, -2, self._rows, out=buffer), out=buffer)

    @cached_property
    def squares(self) -> Tensor:
        """Sum over the samples of a class of their squared distance from its anchor, `(..., K)`."""
        return self.class_sums(torch.cat(self._lengths, -2).square_()).squeeze(-1)

    @property
    def nonzero(self) -> Tensor:
        """Number of non-zero entries of the features, `(...)` float64."""
        return torch.stack(self._nonzero).sum(0)

    def class_sums(self, values: Tensor) -> Tensor:
        """Sums over the samples of each class, `(..., K, m)`, of float64 values `(..., n, m)`."""
        if values.device.type == "cpu":
            sums = values.new_zeros(*values.shape[:-2], self.num_classes + 1, values.shape[-1])
            return sums.index_add_(-2, self._bins, values)[..., :-1, :]
        # On a GPU that would add in any order, and one after another.
        return (self._bins == torch.arange(self.num_classes, device=self._bins.device)[:, None]).double() @ values

    def class_maxima(self, values: Tensor) -> Tensor:
        """Largest over the samples of each class, `(..., K)`, of values `(..., n)`; minus infinity for none."""
        largest = values.new_full((*values.shape[:-1], self.num_classes + 1), -math.inf)
        return largest.scatter_reduce_(-1, self._bins.expand(values.shape), values, "amax")[..., :-1]

    def _firsts(self) -> Tensor:
        """The number of a sample of each class, its first one, `(K,)`; any number for a class without samples."""
        numbers = torch.arange(len(self._rows), device=self._rows.device)
        found = numbers.new_full((self.num_classes + 1,), len(numbers) - 1)
        return found.scatter_reduce_(0, self._bins, numbers, "amin")[:-1]
