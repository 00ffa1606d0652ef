"""Layer-wise measuring: of a backbone in passes over both splits, of a batch of heads from its tensors.

Metrics of the training split carry plain names (``dnc1``), those of the test split the prefix ``test_``: they are taken
of the test features about their own class means, except ``ncm_accuracy`` and ``nc4``, whose nearest class mean is
always that of the training split.
"""

import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from pipeline import dufm, ranks
from pipeline.data import ImageData, ResidentLoader, Split
from pipeline.metrics import ClassStatistics, layer_metrics, undefined_reasons
from pipeline.metrics.formulas import nearest_class, share_of_nearest
from pipeline.metrics.undefined import reason_of
from pipeline.progress import Progress
from pipeline.taps import Tap, Taps

if TYPE_CHECKING:
    from pipeline.metrics import CollapseMetrics

log = logging.getLogger(__name__)

EVAL_BATCH, EVAL_PIXELS = 512, 512 * 32 * 32
"""Images in a batch, fewer where they are larger than 32 x 32: memory must not grow with their size."""
TEST = "test_"

Place = tuple[str, str]
"""(layer, tap)."""
Listener = Callable[[Place, Tensor, Tensor], None]
Decide = Callable[[Tensor], Tensor]
"""Features (n, d) to outputs (n, K), whose largest entry is the network's decision."""


@dataclass(frozen=True)
class LayerMeasurement:
    """Metrics of one place: ``values`` name -> ``(S,)`` float64, ``reasons`` why some of them are undefined."""

    layer: str
    tap: str
    values: dict[str, Tensor]
    reasons: dict[str, str]


@dataclass(frozen=True)
class BackboneMeasurement:
    """Features of both splits, ``(N, d)``, and the metrics of every block before and after its activation."""

    train: Tensor
    test: Tensor
    layers: list[LayerMeasurement]


def backbone_features(backbone: nn.Module, images: ImageData, split: Split) -> Tensor:
    """Features ``(N, d)`` of a split in eval mode, one pass."""
    return _stream(backbone, images, split)


def measure_backbone(backbone: nn.Module, images: ImageData, decide: Decide | None = None) -> BackboneMeasurement:
    """Measure every block's output (``post``) and, where it ends in an activation, what enters that (``pre``).

    Maps are averaged over space. Two passes over the training split, because the nearest class mean is known only once
    the class means are, and one over the test split; nothing is kept but the features and O(K d + d^2) per place.

    Args:
        decide: the network on top of the backbone; None leaves out nc4.
    """
    train = _Statistics(images.num_classes)
    features = _stream(backbone, images, images.train, train.listen)
    train.join_ranks()
    reference = {place: metric.statistics for place, metric in train.metrics.items()}
    own = _NearestMeans(reference, decide)
    _stream(backbone, images, images.train, own.listen, own.close_batch)
    own.join_ranks()
    test, other = _Statistics(images.num_classes), _NearestMeans(reference, decide)

    def listen(place: Place, values: Tensor, labels: Tensor) -> None:
        test.listen(place, values, labels)
        other.listen(place, values, labels)

    test_features = _stream(backbone, images, images.test, listen, other.close_batch)
    test.join_ranks()
    other.join_ranks()
    layers = []
    for place in reference:
        values, reasons = train.of(place)
        for found, prefix in ((own.of(place), ""), (test.of(place), TEST), (other.of(place), TEST)):
            values |= {f"{prefix}{name}": value for name, value in found[0].items()}
            reasons |= {f"{prefix}{name}": why for name, why in found[1].items()}
        layers.append(LayerMeasurement(*place, {name: value.reshape(1) for name, value in values.items()}, reasons))
    return BackboneMeasurement(features, test_features, layers)


class _Statistics:
    """Streams every place of a split into its own metric."""

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self.metrics: dict[Place, CollapseMetrics] = {}

    def listen(self, place: Place, features: Tensor, labels: Tensor) -> None:
        if place not in self.metrics:
            self.metrics[place] = self._metric(features.shape[1], features.device)
        self.metrics[place].update(features, labels)

    def join_ranks(self) -> None:
        """Add what the other ranks have seen; every rank then has all of the split, in the same order."""
        if ranks.world_size() == 1:
            return
        own = {place: (metric.num_features, metric.state.cpu()) for place, metric in self.metrics.items()}
        device = next((metric.state.device for metric in self.metrics.values()), torch.device("cpu"))
        self.metrics = {}
        for seen in ranks.gather(own):
            for place, (num_features, state) in seen.items():
                part = self._metric(num_features, device)
                part.state = state.to(device)
                self.metrics.setdefault(place, self._metric(num_features, device)).merge_state(part)

    def _metric(self, num_features: int, device: torch.device) -> "CollapseMetrics":
        from pipeline.metrics import CollapseMetrics

        # Ranks are joined once and for all places, by us.
        return CollapseMetrics(self.num_classes, num_features, sync_on_compute=False).to(device)

    def of(self, place: Place) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Values and reasons."""
        metric = self.metrics[place]
        return metric.compute(), dict(metric.undefined)


class _NearestMeans:
    """Counts, place by place, how often the nearest class mean is the label's, and how often not the decision's."""

    def __init__(self, reference: dict[Place, ClassStatistics], decide: Decide | None) -> None:
        self._reference, self._decide = reference, decide
        self._samples = 0
        self._counts = {place: torch.zeros(2, dtype=torch.float64) for place in reference}
        self._nearest: dict[Place, Tensor] = {}

    def listen(self, place: Place, features: Tensor, labels: Tensor) -> None:
        self._nearest[place] = nearest_class(self._reference[place], features)

    def close_batch(self, features: Tensor, labels: Tensor) -> None:
        """The batch has passed: its features ``(n, d)`` decide what the network says."""
        decisions = None if self._decide is None else self._decide(features).argmax(dim=1)
        self._samples += len(labels)
        for place, nearest in self._nearest.items():
            hits = (nearest == labels).sum()
            misses = hits.new_zeros(()) if decisions is None else (nearest != decisions).sum()
            self._counts[place] = self._counts[place].to(hits.device) + torch.stack([hits, misses])

    def join_ranks(self) -> None:
        """Add what the other ranks have counted."""
        if ranks.world_size() == 1:
            return
        seen = ranks.gather((self._samples, {place: count.cpu() for place, count in self._counts.items()}))
        self._samples = sum(samples for samples, _ in seen)
        self._counts = {place: sum(counts[place] for _, counts in seen) for place in self._counts}

    def of(self, place: Place) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Values and reasons."""
        counts = dict(zip(("ncm_accuracy", "nc4"), self._counts[place], strict=True))
        if self._decide is None:
            del counts["nc4"]
        arguments = {name: (self._reference[place], count, self._samples) for name, count in counts.items()}
        values = {name: share_of_nearest(*each) for name, each in arguments.items()}
        reasons = {name: reason_of(share_of_nearest, *arguments[name]) for name in values}
        return values, {name: why for name, why in reasons.items() if why is not None}


@torch.inference_mode()
def _stream(
    backbone: nn.Module,
    images: ImageData,
    split: Split,
    listen: Listener | None = None,
    close_batch: Callable[[Tensor, Tensor], None] | None = None,
) -> Tensor:
    """One pass in eval mode: features ``(N, d)``; ``listen`` hears every place of every batch, in running order.

    Ranks share the batches, not the images of each: a network's outputs depend, in the last digits, on how many images
    pass at once, and every batch is to come out the same however many ranks there are. All get all features.
    """
    device = next(backbone.parameters()).device
    size = min(EVAL_BATCH, max(1, EVAL_PIXELS // math.prod(split.images.shape[2:])))
    batches = ranks.share(math.ceil(len(split) / size))
    mine = slice(batches.start * size, batches.stop * size)
    own = Split(split.images[mine], split.labels[mine])
    loader: Iterable[tuple[Tensor, Tensor]] = ()
    if len(own):
        loader = ResidentLoader(own, size, seed=0, shuffle=False, standardise=images.standardise, device=device)
    features, labels, entering = [], torch.empty(0), {}

    def hear(place: Place, value: Tensor) -> None:
        block, tap = place
        if tap == "pre":
            # Held until the block is done: an activation used at several places of it is heard several times, the
            # last being the one before the output; and a copy, because the activation may work in place.
            entering[block] = value.clone()
            return
        if block in entering:
            listen((block, "pre"), entering.pop(block), labels)
        listen((block, "post"), value, labels)

    training, began = backbone.training, time.monotonic()
    backbone.eval()
    try:
        # A rank without batches hears nothing, and that is no fault of the taps.
        with (
            Taps(backbone, _places(backbone) if listen and len(own) else {}, hear),
            Progress(f"pass over {len(split)} images", len(batches), "batch", brief=True) as progress,
        ):
            for batch, labels in loader:
                features.append(backbone(batch))
                if close_batch is not None:
                    close_batch(features[-1], labels)
                progress.advance_to(len(features))
    finally:
        backbone.train(training)
    log.debug("a pass over %d images took %.2f s", len(split), time.monotonic() - began)
    return ranks.gather_rows(features)


def _places(backbone: nn.Module) -> dict[Place, Tap]:
    taps = {}
    for block in backbone.blocks:
        if block in backbone.activations:
            taps[block, "pre"] = Tap(backbone.activations[block], "pre", repeats=True)
        taps[block, "post"] = Tap(block)
    return taps


@torch.no_grad()
def measure_head(
    features: Tensor,
    weights: Sequence[Tensor],
    labels: Tensor,
    num_classes: int,
    activation: str,
    test: tuple[Tensor, Tensor] | None = None,
) -> Iterator[LayerMeasurement]:
    """Metrics of every layer of S heads at once, layer by layer.

    The metrics of W_l (dnc3, ranks, its balancedness with W_{l+1}, NC3 duality of W_L) stand with what enters W_l:
    ``pre`` for l = 1, ``post`` after.

    Args:
        features: ``(N, d_1)`` or ``(S, N, d_1)``; weights: W_l ``(S, d_{l+1}, d_l)``; labels: ``(N,)``.
        test: features ``(M, d_1)`` and labels ``(M,)`` of the test split, to be measured too.
    """
    splits = [(features, labels)] + ([] if test is None else [test])
    taps = [dufm.layer_taps(inputs, weights, activation) for inputs, _ in splits]
    decisions = [dufm.forward(inputs, weights, activation)[-1].argmax(dim=-1) for inputs, _ in splits]
    for (layer, tap, tensor), *others in zip(*taps, strict=True):
        entered = layer == 1 or tap == "post"
        weight = weights[layer - 1] if entered else None
        following = weights[layer] if entered and layer < len(weights) else None
        tensor = tensor.expand(len(weights[0]), -1, -1)
        values, reasons = _measured(tensor, labels, num_classes, weight, following, decisions[0])
        for (_, _, other), (_, other_labels), decided in zip(others, splits[1:], decisions[1:], strict=True):
            reference = ClassStatistics.from_features(tensor, labels, num_classes)
            other = other.expand(len(weights[0]), -1, -1)
            found = _measured(other, other_labels, num_classes, weight, following, decided, reference)
            values |= {f"{TEST}{name}": value for name, value in found[0].items() if name not in OF_WEIGHTS}
            reasons |= {f"{TEST}{name}": why for name, why in found[1].items() if name not in OF_WEIGHTS}
        yield LayerMeasurement(str(layer), tap, values, reasons)


OF_WEIGHTS = ("rank_weight", "stable_rank_weight", "balancedness")
"""What does not depend on the split."""


def _measured(*arguments: object) -> tuple[dict[str, Tensor], dict[str, str]]:
    values = layer_metrics(*arguments, nearest=True)
    defined = all(bool(value.isfinite().all()) for value in values.values())
    return values, {} if defined else undefined_reasons(*arguments, nearest=True)
