"""One measurement: the metrics of every tapped place over a stream of batches, on any number of ranks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, distributed, nn

from pipeline.measure.tracker.evaluation import flat_weight
from pipeline.metrics.engine.checks import check_labels
from pipeline.metrics.engine.plan import Plan
from pipeline.metrics.engine.settings import DEFAULT, MeasureSettings
from pipeline.networks.rows import Rows
from pipeline.networks.taps import Place

if TYPE_CHECKING:
    from pipeline.metrics import ClassStatistics, CollapseMetrics

KEPT_BYTES = 2**30
"""What rows may take that are kept for a second look; beyond it they have to come a second time."""

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

    Attributes:
        looks_again: whether some metric needs a second look.
        needs_decisions: whether that needs the decisions of the network.
    """

    def __init__(
        self,
        num_classes: int,
        weights: Mapping[Place, nn.Linear],
        covariance: bool,
        metrics: Iterable[str] | None = None,
        settings: MeasureSettings = DEFAULT,
    ) -> None:
        self._num_classes, self._weights = num_classes, weights
        self._covariance, self._names = covariance, metrics
        self._settings = settings
        plan = Plan.one_pass(metrics, covariance, settings)
        self.looks_again, self.needs_decisions = bool(plan.row_sums), plan.needs_decisions
        self._is_merged_early = self.looks_again or plan.takes_reference
        self._metrics: dict[Place, CollapseMetrics] = {}
        self._statistics: dict[Place, ClassStatistics] = {}
        self._reference: dict[Place, ClassStatistics] = {}
        self._kept: list[tuple[Mapping[Place, Rows], Tensor, Tensor | None]] | None = []
        self._kept_bytes = self._added = self._judged = 0

    def add(self, features: Mapping[Place, Rows], labels: Tensor, decisions: Tensor | None = None) -> None:
        """Add a batch, rows of every place and labels `(n,)`: all of it, or nothing if it is malformed."""
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
            metric.update(rows.values, labels_beside[place], rows.active)
        self._added += len(labels)
        if self.looks_again and self._kept is not None:
            self._kept_bytes += sum(rows.nbytes for rows in features.values())
            self._kept.append((features, labels, decisions))
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

    def judge(self, features: Mapping[Place, Rows], labels: Tensor, decisions: Tensor | None = None) -> None:
        """Look at a batch a second time."""
        self._judged += len(labels)
        for place, rows in features.items():
            decided = None if decisions is None else rows.of(decisions.to(rows.values.device))
            reference = self._reference.get(place)
            beside = rows.of(labels.to(rows.values.device))
            self._metrics[place].look_again(rows.values, beside, decided, reference)

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
        for place, metric in self._metrics.items():
            weight = _whole(place, self._weights[place].weight) if place in self._weights else None
            found = metric.compute(weight=weight, reference=self._reference.get(place))
            values |= {(*place, name): float(value) for name, value in found.items()}
            reasons |= {(*place, name): why for name, why in metric.undefined.items()}
        return values, reasons

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

            metric = CollapseMetrics.of_settings(self._num_classes, size, self._covariance, self._names, self._settings)
            self._metrics[place] = metric.to(device)
        return self._metrics[place]

    def _sizes_on_all_ranks(self) -> dict[Place, int]:
        """Places and their d; every rank must gather the same ones in the same order, or all would wait for ever."""
        sizes = {place: metric.num_features for place, metric in self._metrics.items()}
        if not (distributed.is_available() and distributed.is_initialized()):
            return sizes
        of_ranks: list[dict[Place, int]] = [{}] * distributed.get_world_size()
        distributed.all_gather_object(of_ranks, sizes)
        return {place: size for sizes in reversed(of_ranks) for place, size in sizes.items()}


def _whole(place: Place, weight: Tensor) -> Tensor:
    """A weight of which each rank may hold a shard, gathered."""
    if isinstance(getattr(weight, "device_mesh", None), distributed.device_mesh.DeviceMesh):
        return weight.full_tensor()  # every rank computes, so all take part
    if weight.ndim != 2:
        raise ValueError(flat_weight(place[0]))
    return weight
