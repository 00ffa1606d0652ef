"""What is to be measured at a place, and what that takes: the one machine behind the pipeline's pass, the tracker,
`CollapseMetrics` and `layer_metrics`.

A place is measured in a first look at its rows, which accumulates class statistics; where some metric needs it, in a
second look, which adds up what rows come to once class means are known; and in formulas of both and of weights. How
rows come, are kept, and are shared by ranks is for the callers; what is done with them is done here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from pipeline.metrics import registry
from pipeline.metrics.engine.rows import second_look, sums_at_once
from pipeline.metrics.engine.statistics import ClassStatistics, finite_part
from pipeline.metrics.engine.undefined import reason_of
from pipeline.metrics.registry import Metric, RowSum, Statistic


@dataclass(frozen=True)
class Plan:
    """Metrics to measure.

    Attributes:
        metrics: in the order in which they are recorded.
        substitutes: whether sums over rows come from accumulated statistics instead of a second look, where they can.
    """

    metrics: tuple[Metric, ...]
    substitutes: bool = False

    @classmethod
    def full(cls, without: Iterable[str] = ()) -> Plan:
        """All registered metrics but those that take or need one of `without`."""
        lacking = set(without)
        return cls(tuple(metric for metric in registry.metrics().values() if not lacking & _takes(metric)))

    @classmethod
    def one_pass(cls, names: Iterable[str] | None = None, substitutes: bool = True) -> Plan:
        """The metrics of these names; by default those that come from one pass over the rows and from no decomposition
        of a weight. Raises ValueError for unknown names."""
        if names is not None:
            return cls(registry.chosen(names), substitutes)
        plans = (cls((metric,), substitutes) for metric in registry.metrics().values())
        chosen = (plan.metrics[0] for plan in plans if not plan.row_sums and "spectrum" not in plan.metrics[0].takes)
        return cls(tuple(chosen), substitutes)

    @property
    def of_rows(self) -> Plan:
        """Without the metrics of weights alone, which are the same for every split."""
        return replace(self, metrics=tuple(metric for metric in self.metrics if metric.of_rows))

    @cached_property
    def statistics(self) -> tuple[Statistic, ...]:
        """What the first look accumulates besides counts, means and scatter."""
        known = registry.statistics()
        taken = {name: None for metric in self.metrics for name in metric.takes}
        for row_sum in self._substituted:
            taken |= dict.fromkeys(row_sum.instead_takes)
        return tuple(known[name] for name in taken if name in known)

    @cached_property
    def row_sums(self) -> tuple[RowSum, ...]:
        """What the second look adds up; none if there is no need for one."""
        return tuple(row_sum for row_sum in self._row_sums if row_sum not in self._substituted)

    @property
    def needs_decisions(self) -> bool:
        """Whether the second look needs the decisions of the network."""
        return any("decisions" in row_sum.needs for row_sum in self.row_sums)

    @property
    def takes_reference(self) -> bool:
        """Whether some metric compares the rows with those of the training split."""
        return any("reference" in metric.takes for metric in self.metrics)

    @cached_property
    def _row_sums(self) -> tuple[RowSum, ...]:
        known = registry.row_sums()
        return tuple(known[name] for name in dict.fromkeys(n for m in self.metrics for n in m.takes) if name in known)

    @cached_property
    def _substituted(self) -> tuple[RowSum, ...]:
        return tuple(row_sum for row_sum in self._row_sums if self.substitutes and row_sum.instead is not None)

    def first_look(
        self, features: Tensor, labels: Tensor, num_classes: int, computed_in: torch.dtype | None = None
    ) -> ClassStatistics:
        """Class statistics of rows `(..., n, d)`; those of several parts are merged by `ClassStatistics.merged`."""
        return ClassStatistics.from_features(
            features, labels, num_classes, extras=self.statistics, computed_in=computed_in
        )

    def directions(self, own: ClassStatistics) -> dict[str, Tensor]:
        """What the second look needs to be told, of the class statistics of all rows."""
        return {row_sum.name: row_sum.along(own) for row_sum in self.row_sums if row_sum.along is not None}

    def second_look(
        self,
        own: ClassStatistics,
        reference: ClassStatistics,
        directions: Mapping[str, Tensor],
        decisions: Tensor | None,
    ) -> Tensor:
        """Sums over the rows in the source of `own`, one for each of `row_sums`; those of several parts add up."""
        return second_look(own, reference, self.row_sums, directions, decisions)

    def at_once(
        self,
        statistics: ClassStatistics,
        reference: ClassStatistics | None = None,
        weight: Tensor | None = None,
        next_weight: Tensor | None = None,
        decisions: Tensor | None = None,
    ) -> tuple[dict[str, Tensor], dict[str, str]]:
        """`evaluate` of statistics that have their `source` `(..., N, d)` at hand, which gets its second look here."""
        judged = len(statistics.source[1])
        sums = sums_at_once(self.row_sums, statistics, reference or statistics, decisions) if self.row_sums else {}
        return self.evaluate(Inputs(statistics, reference, weight, next_weight, sums, judged))

    def evaluate(self, at: Inputs) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Values of the metrics that can be had of these inputs, `(...)` each, and why some of them are not finite."""
        for row_sum in self._substituted:
            at.sums[row_sum.name] = row_sum.instead(*(at[name] for name in row_sum.instead_takes))
        calls = {m.name: (m.formula, *(at[name] for name in m.takes)) for m in self.metrics if at.offers(m.takes)}
        values = {name: formula(*arguments) for name, (formula, *arguments) in calls.items()}
        # One question to the device for all of them, as all are finite as a rule.
        if not values or bool(torch.stack([value.isfinite().all() for value in values.values()]).all()):
            return values, {}
        reasons = {name: reason_of(*calls[name]) for name, value in values.items() if not value.isfinite().all()}
        return values, {name: reason for name, reason in reasons.items() if reason is not None}


class Inputs:
    """What formulas may take at a place, by name (`registry.INPUTS`, statistics, sums over rows).

    Args:
        statistics: of the rows.
        reference: of the training split's rows; those of the rows themselves by default.
        weight, next_weight: what the rows enter, and what comes after it, of any float dtype; None where not known.
        sums: those over rows, by name.
        judged: how many rows they are of.
    """

    def __init__(
        self,
        statistics: ClassStatistics,
        reference: ClassStatistics | None = None,
        weight: Tensor | None = None,
        next_weight: Tensor | None = None,
        sums: Mapping[str, Tensor] | None = None,
        judged: Tensor | int | None = None,
    ) -> None:
        self.sums = dict(sums or {})
        double = lambda matrix: None if matrix is None else matrix.detach().to(statistics.means)  # noqa: E731
        self._values = {
            "statistics": statistics,
            "reference": reference or statistics,
            "weight": double(weight),
            "next_weight": double(next_weight),
            "judged": judged,
            **statistics.extras,
        }
        if weight is not None:
            last = next_weight is None and weight.shape[-2] == statistics.num_classes
            self._values["classifier"] = self._values["weight"] if last else None

    def offers(self, names: Iterable[str]) -> bool:
        """Whether all of these are there."""
        return all(self[name] is not None for name in names)

    def __getitem__(self, name: str) -> Tensor | ClassStatistics | int | None:
        if name == "spectrum" and self._values["weight"] is not None:
            self._values.setdefault(name, spectrum(self._values["weight"]))
        return self._values.get(name, self.sums.get(name))


def spectrum(matrix: Tensor) -> Tensor:
    """Singular values of a float64 matrix `(..., m, n)`, largest first; NaN for a member that is not finite."""
    finite = matrix.isfinite().all(-1).all(-1)[..., None]
    return torch.where(finite, torch.linalg.svdvals(finite_part(matrix)), float("nan"))


def _takes(metric: Metric) -> set[str]:
    """What it takes, and what the sums over rows that it takes need."""
    known = registry.row_sums()
    return {*metric.takes, *(need for name in metric.takes if name in known for need in known[name].needs)}
