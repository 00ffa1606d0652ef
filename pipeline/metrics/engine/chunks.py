"""A chunk of labelled rows, worked on in float64 in scratch buffers that all chunks share."""

from __future__ import annotations

import math
from functools import cached_property

import torch
from torch import Tensor

from pipeline.metrics.engine.native_sums import add_rows, deviations_of, kernels_for
from pipeline.metrics.engine.sums import ClassSums, Gram, add_by_class, bins_of

# Elements worked on at once: on a CPU they stay in a core's cache, on a GPU they make each kernel launch worth while.
CHUNK_ELEMENTS_CPU = 1 << 18
CHUNK_ELEMENTS_GPU = 1 << 24


def chunks_of(features: Tensor, at_least: int = 1) -> list[slice]:
    """Slices of the sample dimension of features `(..., N, d)`, at least one, each worth one chunk of elements, or
    `at_least` so many samples."""
    *members, samples, width = features.shape
    elements = CHUNK_ELEMENTS_CPU if features.device.type == "cpu" else CHUNK_ELEMENTS_GPU
    size = max(at_least, elements // max(1, math.prod(members) * width))
    return [slice(start, start + size) for start in range(0, max(1, samples), size)]


class Chunk(ClassSums):
    """Rows in the first look at them, before the class means of all are known.

    A chunk is gone through tile by tile, each as much as stays in a core's cache. The tensors of float64 rows are
    overwritten by the next chunk.

    Attributes:
        features: as they came, `(..., n, d)` of any float dtype.
        labels: `(n,)`; samples whose label is outside [0, K) belong to no class.
    """

    def __init__(
        self, features: Tensor, labels: Tensor, num_classes: int, scratch: Tensor, with_gram: bool = False
    ) -> None:
        super().__init__(num_classes, scratch, with_gram)
        self.features, self.labels = features, labels
        self._rows, self._bins = bins_of(labels, num_classes)
        for tile in self._tiles():
            self.add(features[..., tile, :], labels[tile])

    def add(self, features: Tensor, labels: Tensor) -> None:
        """Add a tile; by the kernel where that is worth while, to the same bits: lengths of rows stay PyTorch's."""
        kernels = kernels_for(features) if self._gram is None else None
        if kernels is None:
            return super().add(features, labels)
        deviations = self._scratch[0, : len(labels)]
        into = self.counts.data_ptr(), self.anchors.data_ptr(), self._sums.data_ptr(), None
        self.nonzero += add_rows(kernels, features, labels, self.num_classes, deviations.data_ptr(), into)
        self.samples += len(labels)
        self._add_lengths(deviations, bins_of(labels, self.num_classes)[1])

    def _tiles(self) -> list[slice]:
        if self.features.ndim > 2 or self.features.device.type != "cpu":
            return [slice(0, len(self.labels))]
        return chunks_of(self.features)

    @cached_property
    def deviations(self) -> Tensor:
        """Rows less the anchor of their class, `(..., n, d)`."""
        return deviations_of(self.features, self.anchors, self._rows, self._scratch)

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

    def class_sums(self, values: Tensor) -> Tensor:
        """Sums over the samples of each class, `(..., K, m)`, of float64 values `(..., n, m)`."""
        sums = values.new_zeros(*values.shape[:-2], self.num_classes + 1, values.shape[-1])
        return add_by_class(sums, self._bins, values)[..., :-1, :]

    def class_maxima(self, values: Tensor) -> Tensor:
        """Largest over the samples of each class, `(..., K)`, of values `(..., n)`; minus infinity for none."""
        largest = values.new_full((*values.shape[:-1], self.num_classes + 1), -math.inf)
        return largest.scatter_reduce_(-1, self._bins.expand(values.shape), values, "amax")[..., :-1]
