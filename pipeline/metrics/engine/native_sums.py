"""`ClassSums` by the C++ kernel `sums_kernel.cpp`: one pass over the rows instead of PyTorch's eight.

The kernel is compiled on first use by whatever C++ compiler there is (a second) and kept in the user's cache folder;
without a compiler PyTorch does the same, but for rounding.
"""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from pipeline.metrics.engine.sums import ClassSums
from pipeline.runtime.native import built

SOURCE = Path(__file__).with_name("sums_kernel.cpp")


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
        if features.dtype not in (torch.float32, torch.float64):
            features = features.float()  # exact for half types
        features, labels = features.contiguous(), labels.contiguous()
        is_double = features.dtype == torch.float64
        kernel = self._kernels.sum_rows_float64 if is_double else self._kernels.sum_rows_float32
        sizes = *features.shape, self.num_classes
        deviations = None if self._gram is None else self._tile[self._filled :].data_ptr()
        self.nonzero += kernel(features.data_ptr(), labels.data_ptr(), *sizes, deviations, *self._pointers)
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


@cache
def library() -> ctypes.CDLL | None:
    """The compiled kernel, or None where it cannot be had."""
    kernels = built(SOURCE, "streams of features are summed in plain PyTorch")
    if kernels is not None:
        for function in (kernels.sum_rows_float32, kernels.sum_rows_float64):
            function.argtypes = [*[ctypes.c_void_p] * 2, *[ctypes.c_int64] * 3, *[ctypes.c_void_p] * 5]
            function.restype = ctypes.c_int64
    return kernels
