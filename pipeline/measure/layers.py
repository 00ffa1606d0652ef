"""Layer-wise measuring: of a backbone in one pass over each split, of a batch of heads from its tensors.

All registered metrics are measured that can be had at a place (see `pipeline.metrics.registry`). Those of the training
split carry plain names (``dnc1``), those of the test split the prefix ``test_``: they are taken of the test features
about their own class means, except where a formula takes the training split's as its ``reference``, as
``ncm_accuracy`` and ``nc4`` do.
"""

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor

from pipeline import dufm
from pipeline.data import ImageData, Split
from pipeline.measure.extraction import Block, Place, run_over
from pipeline.metrics import ClassStatistics
from pipeline.metrics.engine.inputs import Inputs
from pipeline.metrics.engine.plan import Plan
from pipeline.metrics.engine.settings import DEFAULT, MeasureSettings
from pipeline.metrics.registry import OF_WEIGHTS, TEST
from pipeline.networks import Backbone
from pipeline.networks.rows import Rows
from pipeline.runtime import ranks

log = logging.getLogger(__name__)

KEPT_BYTES = 2**30
"""What the rows of all places of a split may take; beyond it they are not kept, and the network passes once more."""
SENT_BYTES = 16 * 2**20
"""What the statistics may take that a process sends at once, unless those of one place take more."""

Value, Result = TypeVar("Value"), TypeVar("Result")
Decide = Callable[[Tensor], Tensor]
"""Features (n, d) to outputs (n, K), whose largest entry is the network's decision."""
Entered = Mapping[Place, tuple[Tensor, Tensor | None]]
"""The weight (out, d) that the rows of a place enter as they are, and the one after it if that is known."""
CLASSIFIER: Place = ("classifier", "pre")
"""The last place of a network under a linear classifier: its rows are the features."""


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


def measure_backbone(
    backbone: Backbone,
    images: ImageData,
    decide: Decide | None = None,
    pooling: str = "average",
    settings: MeasureSettings = DEFAULT,
    entered: Entered | None = None,
) -> BackboneMeasurement:
    """Measure every block's output (``post``) and, where it ends in an activation, what enters that (``pre``).

    The network passes once over each split. Class means, and whatever else O(K d) numbers hold, are accumulated on the
    way. The nearest class mean and the spread along the class means (nc1_pinv, which so needs no covariance) can only
    be judged once the means are known: from the rows of all places, which are kept for that, or where these would take
    more than `KEPT_BYTES`, in a second pass. The numbers are the same, bit for bit.

    Args:
        decide: the network on top of the backbone; None leaves out nc4.
        pooling: ``flatten`` reads layers whole where nothing else is said of them.
        settings: which families; classes of which sizes in a split are left out there, those of the training split
            everywhere.
        entered: weights, whose metrics stand with the rows that enter them; the place `CLASSIFIER` is measured, too, if
            it is one of theirs.
    """
    lacking = (*(() if entered else OF_WEIGHTS), *(() if decide is not None else ("decisions",)))
    plan = Plan.full(lacking, settings)
    train = _measure_split(backbone, images, images.train, plan, decide, pooling, entered=entered)
    test = _measure_split(backbone, images, images.test, plan.of_rows, decide, pooling, train.statistics, entered)
    layers = _shared(dict.fromkeys(train.statistics), lambda place, _: _layer(place, train, test))
    return BackboneMeasurement(train.features, test.features, list(layers.values()))


def _layer(place: Place, train: "_SplitMeasurement", test: "_SplitMeasurement") -> LayerMeasurement:
    found = [(*split.of(place), prefix) for split, prefix in ((train, ""), (test, TEST))]
    values = {f"{prefix}{name}": value.cpu().reshape(1) for own, _, prefix in found for name, value in own.items()}
    reasons = {f"{prefix}{name}": why for _, own, prefix in found for name, why in own.items()}
    return LayerMeasurement(*place, values, reasons)


def state_bytes(widths: Sequence[int], num_classes: int, settings: MeasureSettings = DEFAULT) -> int:
    """What the statistics of both splits take for places of these widths: anchors and drifts, those of views, and
    whatever the families' metrics declare, float64."""
    plan = Plan.full(OF_WEIGHTS, settings)
    of_means = 2 * num_classes * sum(widths) * (1 + len(plan.views))
    of_declared = sum(
        math.prod(statistic.shape(num_classes, width)) for statistic in plan.statistics for width in widths
    )
    return 2 * 8 * (of_means + of_declared)


@dataclass(frozen=True)
class _SplitMeasurement:
    """Features ``(N, d)`` of a split, statistics of its places, and what the second look at the rows came to."""

    features: Tensor
    statistics: dict[Place, ClassStatistics]
    look: "SecondLook"

    def of(self, place: Place) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Values and reasons."""
        return self.look.evaluate(place)


def first_look(plan: Plan, rows: Rows, labels: Tensor, num_classes: int) -> ClassStatistics:
    """Class statistics of the rows of samples with these labels; units count as active where they are not pooled."""
    found = plan.first_look(rows.values, rows.of(labels), num_classes)
    return found if rows.active is None else replace(found, active=rows.active.sum())


@torch.inference_mode()
def _measure_split(
    backbone: Backbone,
    images: ImageData,
    split: Split,
    plan: Plan,
    decide: Decide | None,
    pooling: str,
    reference: dict[Place, ClassStatistics] | None = None,
    entered: Entered | None = None,
) -> _SplitMeasurement:
    """The class means of ``reference``, by default the split's own, are those that nearest ones are sought among."""
    entered = entered or {}
    parts: dict[Place, ClassStatistics] = {}
    kept: list[Block] = []
    size = 0

    def whole(block: Block) -> Block:
        lacks = CLASSIFIER in entered and CLASSIFIER not in block.rows
        return replace(block, rows={**block.rows, CLASSIFIER: Rows(block.features)}) if lacks else block

    def first(block: Block) -> None:
        nonlocal size
        block = whole(block)
        for place, rows in block.rows.items():
            new = first_look(plan, rows, block.labels, images.num_classes)
            parts[place] = ClassStatistics.merged([parts[place], new] if place in parts else [new])
        size += block.nbytes
        if size <= KEPT_BYTES:
            kept.append(block)
        else:
            kept.clear()

    features = run_over(backbone, images, split, pooling, first)
    statistics = _joined(parts)
    look = SecondLook(plan, statistics, reference or statistics, decide, entered)
    if size <= KEPT_BYTES:
        for block in kept:
            look.add(block)
    else:
        log.debug("rows of %d MiB are more than the %d MiB kept: a second pass", size >> 20, KEPT_BYTES >> 20)
        del features  # the same come from the second pass, and are not to be there twice
        features = run_over(backbone, images, split, pooling, lambda block: look.add(whole(block)))
    look.join_ranks()
    return _SplitMeasurement(ranks.gather_rows(features), statistics, look)


def _joined(parts: dict[Place, ClassStatistics]) -> dict[Place, ClassStatistics]:
    """The statistics of all ranks' rows, the same on every rank."""
    if ranks.world_size() == 1:
        return parts
    device = next((part.counts.device for part in parts.values()), torch.device("cpu"))
    sizes: dict[Place, int] = {}
    for own in ranks.gather({place: part.anchors.nbytes + part.drifts.nbytes for place, part in parts.items()}):
        sizes |= own
    joined = {}
    for group in _in_groups(sizes):
        shares = ranks.gather({place: parts[place].to("cpu") for place in group if place in parts})
        for place in group:
            joined[place] = ClassStatistics.merged([own[place].to(device) for own in shares if place in own])
    return joined


def _in_groups(sizes: dict[Place, int]) -> Iterator[list[Place]]:
    """Places in groups of up to `SENT_BYTES`: one by one they would wait for one another, and all at once be large."""
    group: list[Place] = []
    for place, size in sizes.items():
        if group and sum(sizes[other] for other in group) + size > SENT_BYTES:
            yield group
            group = []
        group.append(place)
    if group:
        yield group


def _shared(places: dict[Place, Value], work: Callable[[Place, Value], Result]) -> dict[Place, Result]:
    """``work`` of every place, each done by one rank: many wide places mean as many large SVDs."""
    own = ranks.share(len(places))
    found = [(place, work(place, value)) for place, value in list(places.items())[own.start : own.stop]]
    return dict(pair for pairs in ranks.gather(found) for pair in pairs)


class SecondLook:
    """What rows come to once class means are known, place by place: the sums over rows that the plan's metrics take."""

    def __init__(
        self,
        plan: Plan,
        own: dict[Place, ClassStatistics],
        reference: dict[Place, ClassStatistics],
        decide: Decide | None,
        entered: Entered | None = None,
    ) -> None:
        self._plan, self._own, self._reference, self._entered = plan, own, reference, entered or {}
        self._decide = decide if plan.needs_decisions else None
        self._aims = _shared(own, lambda place, statistics: plan.aim(statistics, reference[place]).to("cpu"))
        self._judged = dict.fromkeys(own, 0)
        self._sums = {place: part.counts.new_zeros(plan.size_of_sums(*part.means.shape)) for place, part in own.items()}

    def add(self, block: Block) -> None:
        """Judge the images of a block."""
        labels = block.labels
        decisions = None if self._decide is None else self._decide(block.features).argmax(dim=1)
        for place, rows in block.rows.items():
            aim, own_labels = self._aims[place].to(rows.values.device), rows.of(labels)
            self._judged[place] += int(aim.judged(own_labels))
            own = replace(self._own[place], source=(rows.values, own_labels))
            decided = None if decisions is None else rows.of(decisions)
            found = self._plan.second_look(own, self._reference[place], aim, decided)
            self._sums[place] = self._sums[place] + found

    def join_ranks(self) -> None:
        """Add what the other ranks have found."""
        if ranks.world_size() == 1:
            return
        seen = ranks.gather((self._judged, {place: sums.cpu() for place, sums in self._sums.items()}))
        self._judged = {place: sum(judged[place] for judged, _ in seen) for place in self._judged}
        self._sums = {place: sum(sums[place] for _, sums in seen).to(own) for place, own in self._sums.items()}

    def evaluate(self, place: Place) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Values of the metrics of a place, and reasons for those that are not finite."""
        own = self._own[place]
        inputs = Inputs(
            own,
            self._reference[place],
            *self._entered.get(place, ()),
            sums=self._plan.sums_of(self._sums[place], *own.means.shape),
            judged=self._judged[place],
            settings=self._plan.settings,
        )
        return self._plan.evaluate(inputs)


@torch.no_grad()
def measure_head(
    features: Tensor,
    weights: Sequence[Tensor],
    labels: Tensor,
    num_classes: int,
    activation: str,
    test: tuple[Tensor, Tensor] | None = None,
    computed_in: torch.dtype | None = None,
    settings: MeasureSettings = DEFAULT,
    *,
    bias: Tensor | None = None,
    classifies: bool = True,
) -> Iterator[LayerMeasurement]:
    """Metrics of every layer of S heads at once, layer by layer.

    The metrics of W_l (dnc3, ranks, its balancedness with W_{l+1}, NC3 duality of W_L) stand with what enters W_l:
    ``pre`` for l = 1, ``post`` after.

    Args:
        features: ``(N, d_1)`` or ``(S, N, d_1)``; weights: W_l ``(S, d_{l+1}, d_l)``; labels: ``(N,)``.
        test: features ``(M, d_1)`` and labels ``(M,)`` of the test split, to be measured too.
        computed_in: the dtype that the features were computed in, by default their own. Means that are dependent up to
            its rounding stay so in the layers after, so it counts in all of them.
        settings: as of `measure_backbone`.
        bias: of the last layer, ``(S, K)``.
        classifies: whether the largest output is a decision between the classes; if not, metrics of decisions are left
            out.
    """
    splits = [(features, labels)] + ([] if test is None else [test])
    taps = [dufm.layer_taps(inputs, weights, activation) for inputs, _ in splits]
    decisions: list[Tensor | None] = [None] * len(splits)
    if classifies:
        decisions = [dufm.forward(inputs, weights, activation, bias)[-1].argmax(dim=-1) for inputs, _ in splits]
    plan = Plan.full(() if classifies else ("decisions",), settings=settings)
    members = dufm.num_members(features, weights)
    for (layer, tap, tensor), *others in zip(*taps, strict=True):
        entered = layer == 1 or tap == "post"
        weight = weights[layer - 1] if entered and weights else None
        following = weights[layer] if entered and layer < len(weights) else None
        statistics = plan.first_look(tensor.expand(members, -1, -1), labels, num_classes, computed_in)
        values, reasons = plan.at_once(statistics, None, weight, following, decisions[0])
        for (_, _, other), (_, other_labels), decided in zip(others, splits[1:], decisions[1:], strict=True):
            rows = other.expand(members, -1, -1)
            found = plan.of_rows.first_look(rows, other_labels, num_classes, computed_in)
            own, why = plan.of_rows.at_once(found, statistics, weight, following, decided)
            values |= {f"{TEST}{name}": value for name, value in own.items()}
            reasons |= {f"{TEST}{name}": reason for name, reason in why.items()}
        yield LayerMeasurement(str(layer), tap, values, reasons)
