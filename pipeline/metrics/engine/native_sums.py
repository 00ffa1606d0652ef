"""Sums over labelled rows by the C++ kernel `sums_kernel.cpp`: one pass over the rows instead of PyTorch's eight.

The kernel is compiled on first use by whatever C++ compiler there is (a second) and kept in the user's cache folder;
without a compiler PyTorch does the same, but for rounding.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from pipeline.metrics.engine.sums import ClassSums, minus_rows
from pipeline.runtime.native import built

SOURCE = Path(__file__).with_name("sums_kernel.cpp")
WORTH = 1 << 16
"""Features from which the kernel is built for a chunk: few rows do not pay for a compiler."""


class NativeSums(ClassSums):
    """Of rows `(n, d)` in the memory of a CPU, any number of which may come at a time: they fill tiles as they come.

    With a d x d matrix, a tile of deviations goes into it when it is full.
    """

    def __init__(self, num_classes: int, scratch: Tensor, with_gram: bool) -> None:
        super().__init__(num_classes, scratch, with_gram)
        self._tile, self._filled = scratch[0], 0
        kept = [self.counts, self.anchors, self._sums, self._squares]  # written in place
        self._pointers = [tensor.data_ptr() for tensor in kept]
        self._kernels = library()

    def add(self, features: Tensor, labels: Tensor) -> None:
        """Add rows of any float dtype with int64 labels `(n,)`."""
        start, samples, room = 0, len(labels), self._tile.shape[0]
        while start < samples:
            end = samples if self._gram is None else min(samples, start + room - self._filled)
            self._sweep(features[start:end], labels[start:end])
            start = end
        self.samples += samples

    def _sweep(self, features: Tensor, labels: Tensor) -> None:
        """Add rows for which there is room in the tile."""
        deviations = None if self._gram is None else self._tile[self._filled :].data_ptr()
        self.nonzero += add_rows(self._kernels, features, labels, self.num_classes, deviations, self._pointers)
        if self._gram is not None:
            self._filled += features.shape[0]
            if self._filled == self._tile.shape[0]:
                self._empty_tile()

    def _empty_tile(self) -> None:
        self._gram.add(self._tile[: self._filled])
        self._filled = 0

    @property
    def gram(self) -> Tensor:
        """The sum of (z - a)(z - a)^T over rows z with anchors a, `(..., d, d)`; to be taken once, after the last."""
        self._empty_tile()
        return super().gram


def add_rows(
    kernels: ctypes.CDLL,
    features: Tensor,
    labels: Tensor,
    num_classes: int,
    deviations: int | None,
    into: Sequence[int | None],
) -> int:
    """Add rows `(n, d)` of any float dtype to what lies at addresses; returns how many of their entries are not zero.

    Args:
        deviations: where rows less the anchors of their classes go, `(n, d)`, if they are wanted.
        into: counts `(K,)`, anchors `(K, d)`, sums `(K + 1, d)`, and squared lengths `(K + 1,)` if they are wanted.
    """
    features, labels = _arranged(features), labels.contiguous()
    kernel = kernels.sum_rows_float64 if features.dtype == torch.float64 else kernels.sum_rows_float32
    return kernel(features.data_ptr(), labels.data_ptr(), *features.shape, num_classes, deviations, *into)


def deviations_of(features: Tensor, table: Tensor, labels: Tensor, scratch: Tensor) -> Tensor:
    """`minus_rows`, in one pass where that is worth while, to the same bits."""
    kernels = kernels_for(features)
    if kernels is None or len(features) > scratch.shape[1]:
        return minus_rows(features, table, labels, scratch)
    features, table, labels = _arranged(features), table.contiguous(), labels.contiguous()
    kernel = kernels.minus_rows_float64 if features.dtype == torch.float64 else kernels.minus_rows_float32
    kernel(features.data_ptr(), labels.data_ptr(), *features.shape, table.data_ptr(), scratch.data_ptr())
    return scratch[0, : len(features)]


def _arranged(features: Tensor) -> Tensor:
    """The same rows side by side, in a dtype that the kernel knows."""
    known = features.dtype in (torch.float32, torch.float64)
    return (features if known else features.float()).contiguous()  # exact for half types


def kernels_for(features: Tensor) -> ctypes.CDLL | None:
    """The compiled kernel, if it takes these features and there are enough of them to pay for a compiler."""
    is_taken = features.ndim == 2 and features.device.type == "cpu" and features.numel() >= WORTH
    return library() if is_taken else None


@cache
def library() -> ctypes.CDLL | None:
    """The compiled kernel, or None where it cannot be had."""
    kernels = built(SOURCE, "streams of features are summed in plain PyTorch")
    if kernels is not None:
        pointer, index = ctypes.c_void_p, ctypes.c_int64
        for function in (kernels.sum_rows_float32, kernels.sum_rows_float64):
            function.argtypes, function.restype = [*[pointer] * 2, *[index] * 3, *[pointer] * 5], index
        for function in (kernels.minus_rows_float32, kernels.minus_rows_float64):
            function.argtypes, function.restype = [*[pointer] * 2, *[index] * 2, *[pointer] * 2], None
    return kernels
