"""Rows on their way into the state of a stream: into sums, tile by tile, or in blocks, until there are enough of them.

Merging class statistics costs as much as taking in many rows, above all where d x d matrices are among them. So rows go
into sums about anchors that stay (`ClassSums`), and these into the state when somebody asks for it. What is declared
of rows that have to be there (`Statistic.of_sums` is false), and what lies on a GPU, is taken in block by block.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from pipeline.metrics.engine.buffer import Buffer
from pipeline.metrics.engine.native_sums import NativeSums, library
from pipeline.metrics.engine.plan import Plan
from pipeline.metrics.engine.statistics import ClassStatistics, is_wide, roundoff_of
from pipeline.metrics.engine.sums import ClassSums

# Features of a tile, which stay in a core's cache as float64; with a d x d matrix, in which each tile is added, it is
# of no fewer rows than this, or d.
TILE_ELEMENTS = 1 << 17
TILE_ROWS = 512
# Rows of sums about the same anchors: their rounding grows with these (`ClassStatistics.of_sums`).
SUMMED_ROWS = 1 << 16
# Features of a block: what stays in a core's cache, or, where d x d matrices have to be merged, 16 d rows, up to 16 MiB
# of float32. Memory touched for the first time costs as much as the work on it.
CACHED_ELEMENTS = 1 << 19
BLOCK_ELEMENTS = 1 << 22


def rows_of_tile(width: int, wide: bool) -> int:
    """How many rows `(n, d)` are a tile."""
    return max(1, TILE_ELEMENTS // width, min(TILE_ROWS, width) if wide else 1)


def rows_of_block(width: int) -> int:
    """How many rows `(n, d)` are a block."""
    return max(1, CACHED_ELEMENTS // width, min(16 * width, BLOCK_ELEMENTS // width))


class Intake:
    """Takes batches of rows `(n, d)`, and gives class statistics of them when it is asked for them or there are many.

    Args:
        plan: of what is to be measured.
        num_classes: K.
        width: d.
    """

    def __init__(self, plan: Plan, num_classes: int, width: int) -> None:
        self._plan, self._num_classes, self._width = plan, num_classes, width
        self._wide = is_wide(plan.statistics, num_classes, width)
        self._tile = Buffer(rows_of_tile(width, self._wide))
        self._block = Buffer(rows_of_block(width))
        self._sums: ClassSums | None = None
        self._roundoff = 0.0

    def __len__(self) -> int:
        """How many rows there are."""
        return len(self._tile) + len(self._block) + (self._sums.samples if self._sums else 0)

    def add(self, features: Tensor, labels: Tensor) -> Iterator[ClassStatistics]:
        """Take a batch, the memory of which may be used again, once all that this gives has been taken."""
        if not self._plan.of_sums or features.device.type != "cpu":
            if not self._block.add(features, labels):
                yield from self.emptied()
                if not self._block.add(features, labels):
                    yield self._plan.first_look(features, labels, self._num_classes)
        elif library() is not None:  # which fills tiles without another copy
            yield from self._sum(features, labels)
        elif not self._tile.add(features, labels):
            yield from self._sum(*self._tile.emptied())
            if not self._tile.add(features, labels):
                yield from self._sum(features, labels)

    def emptied(self) -> Iterator[ClassStatistics]:
        """Class statistics of all that waits; nothing waits any more."""
        yield from self._sum(*self._tile.emptied())
        yield from self._summed()
        if len(self._block):
            yield self._plan.first_look(*self._block.emptied(), self._num_classes)

    def forget(self) -> None:
        """Nothing waits any more."""
        self._tile.emptied()
        self._block.emptied()
        self._sums = None

    def _sum(self, features: Tensor, labels: Tensor) -> Iterator[ClassStatistics]:
        """Add rows to the sums; gives these when they are of many rows, and begins new ones."""
        start, samples = 0, len(labels)
        while start < samples:
            if self._sums is None:
                self._sums, self._roundoff = self._new_sums(), 0.0
            end = start + min(self._tile.capacity, SUMMED_ROWS - self._sums.samples)
            self._sums.add(features[start:end].detach(), labels[start:end])
            self._roundoff = max(self._roundoff, roundoff_of(features.dtype))
            if self._sums.samples == SUMMED_ROWS:
                yield from self._summed()
            start = end

    def _new_sums(self) -> ClassSums:
        sums = ClassSums if library() is None else NativeSums
        with torch.inference_mode(False):  # a tensor made in it could not be written outside
            scratch = torch.empty(2, self._tile.capacity, self._width, dtype=torch.float64)
            return sums(self._num_classes, scratch, self._wide)

    def _summed(self) -> Iterator[ClassStatistics]:
        sums, self._sums = self._sums, None
        if sums is not None:
            yield ClassStatistics.of_sums(sums, self._plan.statistics, self._roundoff)
