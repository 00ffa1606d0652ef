"""A pass of a network over a split of images: its features, and what every block puts out, in blocks of images.

Layers are read as the backbone says (`Backbone.taps`), or, with `backbone.pooling=flatten`, whole where nothing else is
said of them.
"""

import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor, nn

from pipeline.data import ImageData, ResidentLoader, Split
from pipeline.networks import Backbone
from pipeline.networks.reading import Reading
from pipeline.networks.rows import Rows
from pipeline.networks.taps import Place, Tap, Taps
from pipeline.runtime import ranks
from pipeline.runtime.modes import evaluating
from pipeline.runtime.progress import Progress

log = logging.getLogger(__name__)

EVAL_BATCH, EVAL_PIXELS = 512, 512 * 32 * 32
"""Images in a batch, fewer where they are larger than 32 x 32: memory must not grow with their size."""
CACHED_BATCH, CACHED_PIXELS = 128, 128 * 32 * 32
"""The same for networks with convolutions on a CPU: the maps of a batch should stay in its cache."""
BLOCK_IMAGES, BLOCK_BYTES = 4096, 64 * 2**20
"""A block is handed on when it has so many images, or its rows take so much memory."""


@dataclass(frozen=True)
class Block:
    """Consecutive images of a split: labels ``(n,)``, features ``(n, d)``, and the rows of every place.

    first: the number of the first image in the split.
    batches: how many images passed at once.
    all_labelled: whether it is known that every sample, or position of a text, has a label, so that a GPU need not be
        waited for to know it.
    """

    labels: Tensor
    features: Tensor
    rows: dict[Place, Rows]
    first: int = 0
    batches: tuple[int, ...] = ()
    all_labelled: bool = False

    @property
    def nbytes(self) -> int:
        """Memory that it takes."""
        return sum(part.nbytes for part in (self.labels, self.features, *self.rows.values()))

    @classmethod
    def joined(cls, parts: Sequence["Block"]) -> "Block":
        """One block of the images of several, in their order."""
        rows = {place: Rows.joined([part.rows[place] for part in parts]) for place in parts[0].rows}
        labels, features = (torch.cat([getattr(part, name) for part in parts]) for name in ("labels", "features"))
        batches = tuple(size for part in parts for size in part.batches)
        return cls(labels, features, rows, parts[0].first, batches, all(part.all_labelled for part in parts))


@dataclass(frozen=True)
class SplitFeatures:
    """Features of a split, of which this rank has those of consecutive images.

    own: `(n, d)`, n may be 0; images: which these are.
    """

    own: Tensor
    images: range

    @classmethod
    def of(cls, rows: Tensor | None) -> "SplitFeatures":
        """From what each rank's pass gave, see `run_over`; collective."""
        # An empty tensor is made on the CPU: even a copy of nothing would have a GPU waited for.
        empty = None if rows is None else torch.empty(0, *rows.shape[1:], dtype=rows.dtype)
        told = ranks.gather(None if rows is None else (len(rows), empty))
        counts = [0 if each is None else each[0] for each in told]
        if rows is None:
            rows = next(each[1] for each in told if each is not None)
        first = sum(counts[: ranks.rank()])
        return cls(rows, range(first, first + len(rows)))

    @classmethod
    def known(cls, rows: Tensor) -> "SplitFeatures":
        """Where every rank has all of them already."""
        own = ranks.share(len(rows))
        found = cls(rows[own.start : own.stop], own)
        found.__dict__["all"] = rows
        return found

    @cached_property
    def all(self) -> Tensor:
        """All of them, `(N, d)`, on every rank; collective, the first time."""
        return ranks.gather_rows(self.own if len(self.own) else None)


def backbone_features(backbone: Backbone, images: ImageData, split: Split) -> Tensor:
    """Features ``(N, d)`` of a split in eval mode, one pass; every rank gets all of them."""
    return ranks.gather_rows(run_over(backbone, images, split))


def places(backbone: Backbone, pooling: str) -> dict[Place, Tap]:
    """Where layers are read, and how."""
    if pooling == "average":
        return backbone.taps
    return {place: replace(tap, read=pooling) if tap.read == Reading() else tap for place, tap in backbone.taps.items()}


@torch.inference_mode()
def readings(backbone: Backbone, pooling: str) -> dict[Place, tuple[int, int, str]]:
    """Of every place the rows of an image, d, and what is read in words, from a pass of one image.

    Raises:
        Unreadable: a layer cannot be read.
    """
    device = next(backbone.parameters()).device
    found: dict[Place, Rows] = {}
    with evaluating(backbone), Taps(backbone, places(backbone, pooling), found.__setitem__) as taps:
        backbone(backbone.blank(1).to(device))
    return {
        place: (len(found[place].values), found[place].values.shape[1], tap.description(taps.shapes[place]))
        for place, tap in taps.taps.items()
    }


def in_words(found: Mapping[Place, tuple[int, int, str]]) -> dict[str, str]:
    """What is read -> of which layers, "first .. last (how many)", from `readings`."""
    blocks: dict[str, list[str]] = {}
    for (block, _), (_, _, text) in found.items():
        blocks.setdefault(text, []).append(block)
    unique = {text: list(dict.fromkeys(names)) for text, names in blocks.items()}
    return {
        text: names[0] if len(names) == 1 else f"{names[0]} .. {names[-1]} ({len(names)})"
        for text, names in unique.items()
    }


@torch.inference_mode()
def run_over(
    backbone: Backbone,
    images: ImageData,
    split: Split,
    pooling: str = "average",
    listen: Callable[[Block], None] | None = None,
    units: bool = False,
) -> Tensor | None:
    """One pass in eval mode; returns this rank's features, ``(n, d)``, if it has any images. ``listen`` gets every
    block in turn, with ``units`` also how many units are active before positions are pooled.

    Ranks share the batches, not the images of each: a network's outputs depend, in the last digits, on how many images
    pass at once, and every batch is to come out the same however many ranks there are.
    """
    device = next(backbone.parameters()).device
    cached = device.type == "cpu" and any(isinstance(part, nn.Conv2d) for part in backbone.modules())
    most, pixels = (min(CACHED_BATCH, EVAL_BATCH), CACHED_PIXELS) if cached else (EVAL_BATCH, EVAL_PIXELS)
    size = min(most, max(1, pixels // math.prod(split.images.shape[2:])))
    batches = ranks.share(math.ceil(len(split) / size))
    mine = slice(batches.start * size, batches.stop * size)
    own = replace(split[mine], given=None, goals=None)  # what is measured goes by the true labels
    loader: Iterable[tuple[Tensor, Tensor]] = ()
    if len(own):
        loader = ResidentLoader(own, size, seed=0, shuffle=False, standardise=images.standardise, device=device)
    features: Tensor | None = None
    all_labelled = listen is not None and bool((own.labels >= 0).all())
    done = 0
    rows: dict[Place, Rows] = {}
    entering: dict[str, Rows] = {}
    waiting: list[Block] = []
    taken = 0  # memory, by those that wait

    repeated = {place for place, tap in places(backbone, pooling).items() if tap.repeats}

    def on_activation(place: Place, value: Rows) -> None:
        block, _ = place
        if place in repeated:
            # Held until the block is done: an activation used at several places of it fires several times, the last
            # time before the output; and a copy, because the activation may work in place.
            entering[block] = value.clone()
            return
        if block in entering:
            rows[block, "pre"] = entering.pop(block)
        rows[place] = value.clone()

    def hand_on() -> None:
        nonlocal taken
        if waiting:
            listen(Block.joined(waiting))
            waiting.clear()
            taken = 0

    began = time.monotonic()
    with evaluating(backbone):
        arrange = channels_last if cached and takes_channels_last(backbone, images, split) else _as_it_is
        # On a rank without batches nothing fires, and that is no fault of the taps.
        with (
            Taps(backbone, places(backbone, pooling) if listen and len(own) else {}, on_activation, units=units),
            Progress(f"pass over {len(split)} images", len(batches), "batch", brief=True) as progress,
        ):
            for batch, labels in loader:
                found = backbone(arrange(batch))
                if features is None:  # at once: pieces would be there twice while they are joined
                    features = found.new_empty(len(own), *found.shape[1:])
                features[done : done + len(found)] = found
                at, done = mine.start + done, done + len(found)
                if listen is not None:
                    waiting.append(Block(labels, found, dict(rows), at, (len(found),), all_labelled))
                    rows.clear()
                    taken += waiting[-1].nbytes
                    if at + len(found) - waiting[0].first >= BLOCK_IMAGES or taken >= BLOCK_BYTES:
                        hand_on()
                progress.advance_to(math.ceil(done / size))
        hand_on()
    log.debug("a pass over %d images took %.2f s", len(split), time.monotonic() - began)
    return features


def _as_it_is(images: Tensor) -> Tensor:
    return images


def channels_last(images: Tensor) -> Tensor:
    """The same images with the channels of a pixel side by side; convolutions then hand on their maps that way.

    Twice as fast on a CPU. A copy into an empty tensor, because images of one channel would count as arranged already.
    """
    return torch.empty_like(images, memory_format=torch.channels_last).copy_(images)


def takes_channels_last(backbone: nn.Module, images: ImageData, split: Split) -> bool:
    """Whether a network's features are the same up to rounding: one that reads its maps by `view` cannot."""
    batch = images.standardise(split.images[:2].to(next(backbone.parameters()).device))
    expected = backbone(batch)
    try:
        found = backbone(channels_last(batch))
    except RuntimeError:
        return False
    largest = float(expected.nan_to_num(posinf=0.0, neginf=0.0).abs().max())
    return torch.allclose(found, expected, rtol=1e-3, atol=1e-4 * largest, equal_nan=True)
