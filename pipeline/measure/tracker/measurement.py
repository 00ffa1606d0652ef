"""One measurement: the metrics of every tapped place over a stream of batches, on any number of ranks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor, distributed, nn

from pipeline.measure.extraction import Block
from pipeline.measure.gradients import GradientLook
from pipeline.measure.looks import FirstLook, of_pairs
from pipeline.measure.tracker.classes import of_few_classes
from pipeline.measure.tracker.evaluation import flat_weight
from pipeline.metrics.engine.checks import check_labels
from pipeline.metrics.engine.plan import Plan
from pipeline.metrics.engine.settings import DEFAULT, MeasureSettings
from pipeline.metrics.engine.unit_counts import OTHERS
from pipeline.metrics.progress import ALONG, falling
from pipeline.networks.rows import Rows
from pipeline.networks.taps import Place

if TYPE_CHECKING:
    from pipeline.metrics import ClassStatistics, CollapseMetrics

KEPT_BYTES = 2**30
"""What rows may take that are kept for a second look; beyond it they have to come a second time."""

Value = TypeVar("Value")
Quantity = tuple[str, str, str]
"""(layer, tap, metric)."""


class Measurement:
    """Streams the features of every place into a `CollapseMetrics` of its own, in the order in which they come.

    Batches are added; `settle` brings together what all ranks have; where some metric needs a second look, all batches
    are judged, by `judge_kept` or, where they took too much memory, one by one; `compute` gives the values.

    Args:
        num_classes: K.
        weights: the linear modules that the features of some places enter.
        covariance, metrics: those of `CollapseMetrics`.
        settings: families, and which classes count.
        groups: names of the groups that samples are of, if they are told.

    Attributes:
        looks_again: whether some metric needs a second look.
        needs_decisions: whether that needs the decisions of the network.
        classes: what `compute` has found of each class, by place: values `(K,)` as "cos_intra/class=", and reasons.
    """

    def __init__(
        self,
        num_classes: int,
        weights: Mapping[Place, nn.Linear],
        covariance: bool,
        metrics: Iterable[str] | None = None,
        settings: MeasureSettings = DEFAULT,
        groups: Sequence[str] = (),
    ) -> None:
        self._num_classes, self._weights = num_classes, weights
        self._covariance, self._names = covariance, metrics
        self._settings = settings
        self._groups = tuple(groups)
        plan = Plan.one_pass(metrics, covariance, settings, () if groups else ("groups",))
        self.looks_again = plan.looks_again or bool(groups)
        self.needs_decisions = plan.needs_decisions
        self.takes_gradients = plan.takes("gradients")
        self.gradients = GradientLook(weights)
        self.takes_foreign = plan.takes("foreign") or bool(plan.row_values)
        self.counts_units = any(statistic.name == "counted_units" for statistic in plan.statistics)
        self._is_merged_early = self.looks_again or plan.takes_reference or self.takes_foreign
        # What is between places is accumulated as the pipeline's pass does it, without parts of rows.
        self._between = FirstLook(plan, (), num_classes)
        self._plan = plan
        self._metrics: dict[Place, CollapseMetrics] = {}
        self._statistics: dict[Place, ClassStatistics] = {}
        self._reference: dict[Place, ClassStatistics] = {}
        self.classes: dict[Place, tuple[dict[str, Tensor], dict[str, str]]] = {}
        self._kept: list[tuple[Mapping[Place, Rows], Tensor, Tensor | None]] | None = []
        self._kept_bytes = self._added = self._judged = 0

    def add(
        self,
        features: Mapping[Place, Rows],
        labels: Tensor,
        decisions: Tensor | None = None,
        groups: Tensor | None = None,
    ) -> None:
        """Add a batch, rows of every place, labels and groups `(n,)`: all of it, or nothing if it is malformed."""
        labels_beside = {}
        for place, rows in features.items():
            beside = labels.to(rows.values.device)
            try:
                check_labels(beside, rows.values if rows.samples is None else beside.new_empty(rows.num_samples, 1))
            except ValueError as error:
                raise ValueError(f"layer {place[0]!r} ({place[1]}): {error}") from None
            labels_beside[place] = rows.of(beside)
        for place, rows in features.items():
            metric = self._metric(place, rows.values.shape[1], rows.values.device)
            metric.update(rows.values, labels_beside[place], rows.active, _units_of(rows), _beside(rows, groups))
        self._between.add(Block(labels, labels, dict(features), 0, (len(labels),)))
        self._added += len(labels)
        if self.looks_again and self._kept is not None:
            self._kept_bytes += sum(rows.nbytes for rows in features.values())
            bare = {place: replace(rows, units=None) for place, rows in features.items()}
            self._kept.append((bare, labels, decisions, groups))
            if self._kept_bytes > KEPT_BYTES:
                self._kept = None

    def settle(self, device: torch.device, training: Measurement | None = None) -> None:
        """Bring together what all ranks have added; `device` holds the state of an idle rank.

        Args:
            training: the settled measurement of the training split, if this is one of another.

        Raises:
            ValueError: if no rank had a batch.
        """
        sizes = self._sizes_on_all_ranks()
        if not sizes:
            raise ValueError("nothing to measure: there was not a single batch (has an iterator been used up?).")
        for place, size in sizes.items():
            metric = self._metric(place, size, device)
            if not metric.update_called:
                metric.update(torch.zeros(0, size, device=device), torch.zeros(0, dtype=torch.int64, device=device))
            if self._is_merged_early:
                self._statistics[place] = metric.merged_statistics()
        # In the order of all ranks, in which they will compute.
        self._metrics = {place: self._metrics[place] for place in sizes}
        self._reference = {} if training is None else training._statistics
        self._between.join_ranks()

    def add_foreign(self, features: Mapping[Place, Rows], *_: object) -> None:
        """Show a batch of foreign rows, after all is settled."""
        for place, rows in features.items():
            self._metrics[place].look_at_foreign(rows.values, self._reference.get(place))

    def judge(
        self,
        features: Mapping[Place, Rows],
        labels: Tensor,
        decisions: Tensor | None = None,
        groups: Tensor | None = None,
    ) -> None:
        """Look at a batch a second time."""
        self._judged += len(labels)
        for place, rows in features.items():
            decided = None if decisions is None else rows.of(decisions.to(rows.values.device))
            reference = self._reference.get(place)
            beside = rows.of(labels.to(rows.values.device))
            self._metrics[place].look_again(rows.values, beside, decided, reference, _beside(rows, groups))

    @property
    def has_kept_all(self) -> bool:
        """Whether the rows of all batches are at hand, or none is needed."""
        return self._kept is not None

    def judge_kept(self) -> None:
        """Look at all batches a second time, if they are at hand."""
        for batch in self._kept or ():
            self.judge(*batch)
        self._kept = self._kept and []

    def compute(self) -> tuple[dict[Quantity, float], dict[Quantity, str]]:
        """Values of all ranks together, and why some of them are undefined.

        Raises:
            ValueError: if the second look was not at as many rows as the first.
        """
        if self.looks_again and self._judged != self._added:
            raise ValueError(
                f"metrics that look at the rows a second time need the same ones, got {self._added} samples and then "
                f"{self._judged}: pass a loader that can be iterated twice, or leave out these metrics."
            )
        values: dict[Quantity, float] = {}
        reasons: dict[Quantity, str] = {}
        seen = self.takes_gradients and any(self.gradients.counts.values())
        gradients = self.gradients.found() if seen else {}
        for place, metric in self._metrics.items():
            weight = _whole(place, self._weights[place].weight) if place in self._weights else None
            pair, others = of_pairs(self._between.pairs, place, self._plan)
            found = metric.compute(
                weight=weight, reference=self._reference.get(place), pair=pair, gradients=gradients.get(place)
            )
            values |= {(*place, name): float(value) for name, value in (found | others[0]).items()}
            reasons |= {(*place, name): why for name, why in (metric.undefined | others[1]).items()}
            if metric.classes:
                self.classes[place] = metric.classes, metric.why_of_classes
                few, why = of_few_classes(*self.classes[place])
                values |= {(*place, name): value for name, value in few.items()}
                reasons |= {(*place, name): reason for name, reason in why.items()}
        self._tell_progress(values, reasons)
        return values, reasons

    def _tell_progress(self, values: dict[Quantity, float], reasons: dict[Quantity, str]) -> None:
        """Add what metrics do along the places, with the last one, and the straightness of ways through them."""
        places = [place for place in self._metrics if place[1] == "post"]
        of_profiles, of_paths = self._plan.of_input("profile"), self._plan.of_input("path")
        found: dict[Quantity, tuple[Plan, str, Tensor]] = {}
        for name in ALONG if of_profiles.metrics else ():
            profile = [values[*place, name] for place in places if (*place, name) in values]
            if profile:
                found[*places[-1], f"/{name}"] = of_profiles, "profile", falling(name, profile)
        found |= {(*place, ""): (of_paths, "path", sums) for place, sums in self._between.paths.items()}
        for (layer, tap, suffix), (plan, given, numbers) in found.items():
            own, why = plan.of_inputs({given: numbers})
            values |= {(layer, tap, f"{metric}{suffix}"): float(value) for metric, value in own.items()}
            reasons |= {(layer, tap, f"{metric}{suffix}"): reason for metric, reason in why.items()}

    @property
    def left_out(self) -> list[int]:
        """Classes that have too few samples or too many, once all is settled."""
        for metric in self._metrics.values():
            counts = metric.merged_statistics().counts.tolist()
            return [label for label, count in enumerate(counts) if not self._settings.counts(count)]
        return []

    def _metric(self, place: Place, size: int, device: torch.device) -> CollapseMetrics:
        if place not in self._metrics:
            from pipeline.metrics import CollapseMetrics  # with torchmetrics, which takes seconds

            metric = CollapseMetrics.of_settings(
                self._num_classes, size, self._covariance, self._names, self._settings, self._groups
            )
            self._metrics[place] = metric.to(device)
        return self._metrics[place]

    def _sizes_on_all_ranks(self) -> dict[Place, int]:
        """Places and their d; every rank must gather the same ones in the same order, or all would wait for ever."""
        sizes = {place: metric.num_features for place, metric in self._metrics.items()}
        of_ranks = _on_all_ranks(sizes)
        return {place: size for sizes in reversed(of_ranks) for place, size in sizes.items()}


def _on_all_ranks(own: Value) -> list[Value]:
    """What every rank has, in their order."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return [own]
    found: list = [None] * distributed.get_world_size()
    distributed.all_gather_object(found, own)
    return found


def _units_of(rows: Rows) -> Tensor | None:
    if rows.units is None or not bool(rows.units.isnan().any()):
        return None if rows.units is None else rows.units.sum(0)
    nothing = rows.units.new_full((rows.values.shape[1] + OTHERS,), float("nan"))  # a function made the rows
    return nothing


def _beside(rows: Rows, groups: Tensor | None) -> Tensor | None:
    return None if groups is None else rows.of(groups.to(rows.values.device))


def _whole(place: Place, weight: Tensor) -> Tensor:
    """A weight of which each rank may hold a shard, gathered."""
    if isinstance(getattr(weight, "device_mesh", None), distributed.device_mesh.DeviceMesh):
        return weight.full_tensor()  # every rank computes, so all take part
    if weight.ndim != 2:
        raise ValueError(flat_weight(place[0]))
    return weight
