"""One measurement: the metrics of every tapped place over a stream of batches, on any number of ranks."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, distributed, nn

from pipeline.measure.tracker.layers import Place
from pipeline.metrics import ClassStatistics, CollapseMetrics, formulas
from pipeline.metrics.checks import check_labels
from pipeline.metrics.undefined import reason_of

Quantity = tuple[str, str, str]
"""(layer, tap, metric)."""


class Measurement:
    """Streams the features of every place into a `CollapseMetrics` of its own, in the order in which they come.

    Args:
        num_classes: K.
        weights: the linear modules whose rows are compared with the class means that enter them, by place.
        covariance: that of `CollapseMetrics`.
    """

    def __init__(self, num_classes: int, weights: Mapping[Place, nn.Linear], covariance: bool) -> None:
        self._num_classes, self._weights, self._covariance = num_classes, weights, covariance
        self._metrics: dict[Place, CollapseMetrics] = {}

    def add(self, features: Mapping[Place, Tensor], labels: Tensor) -> None:
        """Add a batch, features `(n, d)` of every place and labels `(n,)`: all of it, or nothing if it is malformed."""
        labels_beside = {place: labels.to(values.device) for place, values in features.items()}
        for place, values in features.items():
            try:
                check_labels(labels_beside[place], values)
            except ValueError as error:
                raise ValueError(f"layer {place[0]!r} ({place[1]}): {error}") from None
        for place, values in features.items():
            self._metric(place, values.shape[1], values.device).update(values, labels_beside[place])

    def compute(self, device: torch.device) -> tuple[dict[Quantity, float], dict[Quantity, str]]:
        """Values of all ranks together, and why some of them are undefined; `device` holds those of an idle rank.

        Raises:
            ValueError: if no rank had a batch.
        """
        values: dict[Quantity, float] = {}
        reasons: dict[Quantity, str] = {}
        for place, size in self._sizes_on_all_ranks().items():
            metric = self._metric(place, size, device)
            if not metric.update_called:
                metric.update(torch.zeros(0, size, device=device), torch.zeros(0, dtype=torch.int64, device=device))
            with metric.sync_context():
                merged = metric.statistics  # now, because compute() ends the synchronisation
                values |= {(*place, name): float(value) for name, value in metric.compute().items()}
                reasons |= {(*place, name): why for name, why in metric.undefined.items()}
                for name, (formula, *arguments) in self._weight_calls(place, merged).items():
                    values[*place, name] = float(formula(*arguments))
                    if (why := reason_of(formula, *arguments)) is not None:
                        reasons[*place, name] = why
        if not values:
            raise ValueError("nothing to measure: there was not a single batch (has an iterator been used up?).")
        return values, reasons

    def _metric(self, place: Place, size: int, device: torch.device) -> CollapseMetrics:
        if place not in self._metrics:
            # Not by itself: the weights are compared with the same merged means.
            metric = CollapseMetrics(self._num_classes, size, covariance=self._covariance, sync_on_compute=False)
            self._metrics[place] = metric.to(device)
        return self._metrics[place]

    def _weight_calls(self, place: Place, statistics: ClassStatistics) -> dict[str, tuple]:
        """What to evaluate where a weight matrix is entered: name -> (formula, *arguments)."""
        if place not in self._weights:
            return {}
        weight = self._weights[place].weight.detach().to(statistics.means)
        calls = {"dnc3": (formulas.dnc3, statistics, weight)}
        if len(weight) == self._num_classes:
            calls["nc3_duality"] = (formulas.nc3_duality, statistics, weight)
        return calls

    def _sizes_on_all_ranks(self) -> dict[Place, int]:
        """Places and their d; every rank must gather the same ones in the same order, or all would wait for ever."""
        sizes = {place: metric.num_features for place, metric in self._metrics.items()}
        if not (distributed.is_available() and distributed.is_initialized()):
            return sizes
        of_ranks: list[dict[Place, int]] = [{}] * distributed.get_world_size()
        distributed.all_gather_object(of_ranks, sizes)
        return {place: size for sizes in reversed(of_ranks) for place, size in sizes.items()}
