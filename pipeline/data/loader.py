"""Mini-batches from tensors that lie in memory, or are mapped into it: no worker processes, no Python per image."""

import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, islice
from typing import Any

import torch
from torch import Tensor

from pipeline.data.augment import Augmentation
from pipeline.data.images import Split
from pipeline.runtime.randomness import generator

ROUND = 10
"""Batches between two moments at which a training looks at the clock, for signals, and updates its progress."""


class ResidentLoader:
    """Iterate over a split in batches (standardised float32 images (n, C, H, W), int64 labels (n,)) on `device`.

    The labels are those that training is told (`Split.targets`); a text gives tokens (n, T) and labels (n, T). Where
    outputs are fitted to numbers, these stand in for them, (n, outputs) float64.

    The order of epoch e, and the crop and flip of every image in it, are functions of (seed, e) alone. So a run that
    is resumed in the middle of an epoch sees the batches it would have seen, whatever was drawn elsewhere.

    Made for Lightning, which calls `loader.sampler.set_epoch(epoch)` before each epoch, and `state_dict` and
    `load_state_dict` around a checkpoint. The state is the position only: Lightning restores it only when it resumes
    inside an epoch, and counts epochs itself. `Rounds` hands out several batches to a step of Lightning's.

    Args:
        split: images and labels; moved to `device` once, except images that lie on disk.
        batch_size: images per batch, >= 1; the last batch of an epoch is smaller unless `drop_last`.
        seed: of order and augmentation.
        standardise: uint8 batch -> float32 batch, as `ImageData.standardise`.
        shuffle: a new order each epoch; otherwise the split's own.
        augment, padding: what happens to each image before standardising, see `Augmentation`.
        device: where the batches are wanted.
        drop_last: leave out the incomplete batch.
        part: (rank, number of ranks): of each batch only this rank's part is handed out. Batches, order and moves are
            the same however many ranks share them; the parts differ by one image at most.

    Raises:
        ValueError: for a batch size below 1, an unknown augmentation, or when no batch at all would come out.
    """

    def __init__(
        self,
        split: Split,
        batch_size: int,
        *,
        seed: int,
        standardise: Callable[[Tensor], Tensor],
        shuffle: bool = True,
        augment: str = "none",
        padding: int = 4,
        device: torch.device | str = "cpu",
        drop_last: bool = False,
        part: tuple[int, int] = (0, 1),
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size} is out of range; allowed: an integer >= 1.")
        if len(split) < (batch_size if drop_last else 1):
            raise ValueError(f"batch_size={batch_size} leaves no batch of {len(split)} images; allowed: at most that.")
        self._device = torch.device(device)
        self._split = split.to(device)
        self._batch_size = batch_size
        self._seed = seed
        self._standardise = standardise
        self._shuffle = shuffle
        self._augment = Augmentation(augment, padding)
        self._drop_last = drop_last
        self._rank, self._ranks = part
        self._epoch = 0
        self._position = 0
        self._resume_at = 0

    def __len__(self) -> int:
        """Batches in an epoch."""
        full, rest = divmod(len(self._split), self._batch_size)
        return full + (rest > 0 and not self._drop_last)

    def batch_length(self, batch: int) -> int:
        """Images in a batch of an epoch, those of all ranks together."""
        return min(self._batch_size, len(self._split) - batch * self._batch_size)

    @property
    def sampler(self) -> "ResidentLoader":
        """The object whose `set_epoch` Lightning calls."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration runs through."""
        self._epoch = epoch

    def state_dict(self) -> dict[str, int]:
        """Batches already handed out in the current epoch."""
        return {"position": self._position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Let the next iteration begin after `state["position"]` batches.

        After all of them it begins afresh: a checkpoint taken at the last step of an epoch resumes in the next one.
        """
        self._resume_at = self._position = state["position"] % len(self)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        # Runs at the first `next`, not at `iter`: Lightning asks for the iterator before it sets the epoch.
        order, moves = self._plan()
        start, self._resume_at = self._resume_at, 0
        for batch, rows, images in self._gathered(order, start):
            images = self._augment.apply(images, moves[rows])
            # Counted before the batch is out: a checkpoint taken while it is in use must not repeat it.
            self._position = batch + 1
            yield self._standardise(images), self._split.told[rows]

    def _gathered(self, order: Tensor, start: int) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Number, rows and images of every batch from `start` on; of those that lie on disk the next is read ahead."""

        def rows_of(batch: int) -> Tensor:
            rows = order[batch * self._batch_size : (batch + 1) * self._batch_size]
            return rows.tensor_split(self._ranks)[self._rank]

        if self._split.mapped is None:
            for batch in range(start, len(self)):
                rows = rows_of(batch)
                yield batch, rows, self._split.images[rows]
            return
        with ThreadPoolExecutor(max_workers=1) as reader:
            images = reader.submit(self._split.read, rows_of(start)) if start < len(self) else None
            for batch in range(start, len(self)):
                found = images.result()
                if batch + 1 < len(self):
                    images = reader.submit(self._split.read, rows_of(batch + 1))
                yield batch, rows_of(batch), found.to(self._device)

    def _plan(self) -> tuple[Tensor, Tensor]:
        """This epoch's order (N,) and each image's move (N, 3), by row; the same on every rank."""
        count, device = len(self._split), self._split.labels.device
        order = torch.arange(count)
        if self._shuffle:
            order = torch.randperm(count, generator=generator(self._seed, f"data/order/epoch_{self._epoch}"))
        moves = self._augment.draw(count, generator(self._seed, f"data/augment/epoch_{self._epoch}"))
        return order.to(device), moves.to(device)


class Rounds:
    """The batches of a loader, so many to a round (`ROUND`), which are made one by one while it is gone through.

    For Lightning too, whose position in an epoch is then a number of rounds; a checkpoint stands between two of them.
    Rounds of one are the batches themselves.
    """

    def __init__(self, loader: ResidentLoader, size: int | None = None) -> None:
        self._loader = loader
        self.size = ROUND if size is None else size
        self.sampler, self.batch_length = loader.sampler, loader.batch_length
        self.state_dict, self.load_state_dict = loader.state_dict, loader.load_state_dict

    def __len__(self) -> int:
        """Rounds in an epoch; the last one may be shorter."""
        return math.ceil(len(self._loader) / self.size)

    @property
    def position(self) -> int:
        """Batches already handed out in the current epoch."""
        return self._loader.state_dict()["position"]

    def __iter__(self) -> Iterator[Any]:
        batches = iter(self._loader)
        if self.size == 1:
            yield from batches
            return
        # The first one is made at once: what the epoch draws, and moves to the device, is no part of a step.
        while first := next(batches, None):
            yield chain([first], islice(batches, self.size - 1))
