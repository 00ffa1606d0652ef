"""Layer-wise measuring of a backbone in one pass over each split (of heads: `pipeline.measure.heads`).

All registered metrics are measured that can be had at a place (see `pipeline.metrics.registry`). Those of the training
split carry plain names (``dnc1``), those of the test split the prefix ``test_``: they are taken of the test features
about their own class means, except where a formula takes the training split's as its ``reference``, as
``ncm_accuracy`` and ``nc4`` do.
"""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pipeline.data import ImageData, Split
from pipeline.measure.blocks import block_stacks, couplings_with, inputs_of
from pipeline.measure.extraction import Block, Place, SplitFeatures, run_over
from pipeline.measure.flows import Fitting, flow_inputs, is_leaky, leaky_layers, more_values
from pipeline.measure.foreign_look import ForeignLook
from pipeline.measure.gradients import output_gradients
from pipeline.measure.joining import joined
from pipeline.measure.looks import FirstLook, Found, Key, of_pairs, parts_of
from pipeline.measure.second_look import Decide, Entered, SecondLook, shared
from pipeline.metrics import ClassStatistics
from pipeline.metrics.engine.plan import Plan
from pipeline.metrics.engine.settings import DEFAULT, MeasureSettings
from pipeline.metrics.progress import ALONG, falling
from pipeline.metrics.registry import GROUP, OF_WEIGHTS, TEST
from pipeline.networks import Backbone
from pipeline.networks.rows import Rows, each_position
from pipeline.runtime.devices import moved

log = logging.getLogger(__name__)

KEPT_BYTES = 2**30
"""What the rows of all places of a split may take; beyond it they are not kept, and the network passes once more."""

CLASSIFIER: Place = ("classifier", "pre")
"""The last place of a network under a linear classifier: its rows are the features."""


@dataclass(frozen=True)
class LayerMeasurement:
    """Metrics of one place: ``values`` name -> ``(S,)`` float64, or ``(S, K)`` of each class as ``NAME/class=``;
    ``reasons`` why some of them are undefined."""

    layer: str
    tap: str
    values: dict[str, Tensor]
    reasons: dict[str, str]


@dataclass(frozen=True)
class BackboneMeasurement:
    """Features of both splits, as ranks have them, and the metrics of every block before and after its activation."""

    of_train: SplitFeatures
    of_test: SplitFeatures
    layers: list[LayerMeasurement]

    @property
    def train(self) -> Tensor:
        """All features of the training split, ``(N, d)``; collective, the first time."""
        return self.of_train.all

    @property
    def test(self) -> Tensor:
        """The same of the test split."""
        return self.of_test.all


def measure_backbone(
    backbone: Backbone,
    images: ImageData,
    decide: Decide | None = None,
    pooling: str = "average",
    settings: MeasureSettings = DEFAULT,
    entered: Entered | None = None,
    fitting: Fitting | None = None,
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
        fitting: what a leaky network minimises, for the family "paths".
    """
    lacking = [] if entered else list(OF_WEIGHTS)
    there = {
        "decisions": decide is not None,
        "groups": bool(images.groups),
        "foreign": images.foreign is not None,
        "gradients": decide is not None and bool(entered),
    }
    plan = Plan.full([*lacking, *(name for name, given in there.items() if not given)], settings, each_class=True)
    asked = _Asked(backbone, images, decide, pooling, entered or {})
    train = _measure_split(asked, images.train, plan)
    test = _measure_split(asked, images.test, plan.of_rows, train)
    foreign = _measure_foreign(asked, plan, train)
    places = {key: None for key in train.statistics if len(key) == 2}
    gradients: dict[Place, Tensor] = {}
    if plan.takes("gradients"):
        weights = {place: weight for place, (weight, *_) in entered.items()}
        gradients = output_gradients(backbone, images, decide, weights)
    takes_blocks = plan.takes("jacobians") or plan.takes("stack")
    stacks = block_stacks(backbone, images, settings) if takes_blocks else {}
    has_path = plan.takes("leaky") and fitting is not None and is_leaky(backbone)
    flow = leaky_layers(backbone, images, fitting) if has_path else {}

    def measured(place: Place, _: None) -> LayerMeasurement:
        beside = {"gradients": gradients.get(place), **inputs_of(stacks, place), **flow_inputs(flow, place)}
        further = couplings_with(stacks, place, plan) | more_values(flow, place)
        return _layer(place, train, test, foreign, beside, further)

    layers = shared(places, measured)
    return BackboneMeasurement(train.features, test.features, _with_progress(list(layers.values()), plan))


def _layer(
    place: Place,
    train: "_SplitMeasurement",
    test: "_SplitMeasurement",
    foreign: ForeignLook | None,
    beside: Mapping[str, object],
    further: Mapping[str, Tensor],
) -> LayerMeasurement:
    """``beside``: what formulas take of the place that is of the training images alone; ``further``: more values."""
    found = [(*split.of(place, foreign, beside), prefix) for split, prefix in ((train, ""), (test, TEST))]
    found.append((further, {}, ""))
    values = {f"{prefix}{name}": value.cpu()[None] for own, _, prefix in found for name, value in own.items()}
    reasons = {f"{prefix}{name}": why for _, own, prefix in found for name, why in own.items()}
    return LayerMeasurement(*place, values, reasons)


def _with_progress(layers: list[LayerMeasurement], plan: Plan) -> list[LayerMeasurement]:
    """The layers, the last block's with what metrics do along all of them, as ``decreasing_share/dnc1``."""
    along = plan.of_input("profile")
    blocks = [at for at in layers if at.tap == "post"]
    if not along.metrics or not blocks:
        return layers
    values, reasons = dict(blocks[-1].values), dict(blocks[-1].reasons)
    for name in (f"{prefix}{name}" for prefix in ("", TEST) for name in ALONG):
        profile = [float(at.values[name]) for at in blocks if name in at.values]
        if not profile:
            continue
        own, why = along.of_inputs({"profile": falling(name, profile)})
        prefix, base = (TEST, name.removeprefix(TEST)) if name.startswith(TEST) else ("", name)
        values |= {f"{prefix}{metric}/{base}": value.reshape(1) for metric, value in own.items()}
        reasons |= {f"{prefix}{metric}/{base}": reason for metric, reason in why.items()}
    last = replace(blocks[-1], values=values, reasons=reasons)
    return [last if at is blocks[-1] else at for at in layers]


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
class _Asked:
    """What is measured: a network, on what, and how."""

    backbone: Backbone
    images: ImageData
    decide: Decide | None
    pooling: str
    entered: Entered

    def run_over(self, split: Split, listen: Callable[[Block], None], *, units: bool = False) -> Tensor | None:
        """A pass over a split."""
        return run_over(self.backbone, self.images, split, self.pooling, listen, units)

    def whole(self, block: Block) -> Block:
        """The block with the rows that the classifier gets, if that is one of the places."""
        if CLASSIFIER not in self.entered or CLASSIFIER in block.rows:
            return block
        features = block.features
        rows = each_position(features, None) if features.ndim == 3 else Rows(features)
        return replace(block, rows={**block.rows, CLASSIFIER: rows})

    def kept(self, split: Split, plan: Plan) -> Tensor | None:
        """Which classes count, where rows of the others must not go into what is accumulated; None where they do no
        harm, or there are none."""
        if all(statistic.of_all_rows for statistic in plan.statistics):
            return None
        kept = torch.ones(self.images.num_classes, dtype=torch.bool)
        for each in (self.images.train, split):
            counts = torch.bincount(each.labels[each.labels >= 0].flatten().cpu(), minlength=len(kept))
            kept &= torch.tensor([count == 0 or plan.settings.counts(count) for count in counts.tolist()])
        return None if bool(kept.all()) else kept


@dataclass(frozen=True)
class _SplitMeasurement:
    """Features of a split, statistics of its places and parts, and what the looks at the rows came to."""

    features: SplitFeatures
    statistics: dict[Key, ClassStatistics]
    look: SecondLook
    first: FirstLook

    def of(self, place: Place, foreign: ForeignLook | None, beside: Mapping[str, object]) -> Found:
        """Values and reasons of a place: of all rows, and under suffixes of parts of them and of pairs of places."""
        parts = {key[2]: key for key in self.statistics if key[:2] == place and len(key) > 2}
        more: dict[str, object] = {**beside, "path": self.first.paths.get(place)}
        more |= {} if foreign is None else foreign.inputs(place)
        if parts:
            more["groups"] = [self.statistics[key] for suffix, key in parts.items() if suffix.startswith(GROUP)]
        more["pair"], of_pairs_before = of_pairs(self.first.pairs, place, self.look.plan)
        values, reasons = self.look.evaluate(place, more)
        others = [(suffix, self.look.evaluate(key)) for suffix, key in parts.items()] + [("", of_pairs_before)]
        for suffix, (own, why) in others:
            values |= {f"{name}{suffix}": value for name, value in own.items()}
            reasons |= {f"{name}{suffix}": reason for name, reason in why.items()}
        return values, reasons


@torch.inference_mode()
def _measure_split(
    asked: _Asked, split: Split, plan: Plan, training: "_SplitMeasurement | None" = None
) -> _SplitMeasurement:
    """The class means of ``training``, by default the split's own, are those that nearest ones are sought among."""
    parts = parts_of(split, asked.images.groups, plan)
    first = FirstLook(plan, parts, asked.images.num_classes, asked.kept(split, plan))
    kept: list[Block] = []
    size = 0

    def add(block: Block) -> None:
        nonlocal size
        block = asked.whole(block)
        first.add(block)
        block = replace(block, rows={place: replace(rows, units=None) for place, rows in block.rows.items()})
        size += block.nbytes
        if size <= KEPT_BYTES:
            kept.append(block)
        else:
            kept.clear()

    features = asked.run_over(split, add, units=any(it.name == "counted_units" for it in plan.statistics))
    # Formulas and ranks take them on the CPU.
    statistics = joined(moved({key: replace(part, source=None) for key, part in first.statistics.items()}, "cpu"))
    first.join_ranks()
    reference = statistics if training is None else training.statistics
    device = next((part.counts.device for part in first.statistics.values()), "cpu")
    look = SecondLook(plan, statistics, reference, asked.decide, asked.entered, parts, device)
    if size <= KEPT_BYTES:
        for block in kept:
            look.add(block)
    else:
        log.debug("rows of %d MiB are more than the %d MiB kept: a second pass", size >> 20, KEPT_BYTES >> 20)
        del features  # the same come from the second pass, and are not to be there twice
        features = asked.run_over(split, lambda block: look.add(asked.whole(block)))
    look.join_ranks()
    return _SplitMeasurement(SplitFeatures.of(features), statistics, look, first)


@torch.inference_mode()
def _measure_foreign(asked: _Asked, plan: Plan, training: _SplitMeasurement) -> ForeignLook | None:
    """The foreign rows, where some metric takes them."""
    if asked.images.foreign is None or not (plan.takes("foreign") or plan.row_values):
        return None
    look = ForeignLook(plan, [key for key in training.statistics if len(key) == 2], training.look)
    asked.run_over(asked.images.foreign, lambda block: look.add(asked.whole(block)))
    look.join_ranks()
    return look
