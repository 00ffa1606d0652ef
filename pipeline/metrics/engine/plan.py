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
from pipeline.metrics.engine.checks import check_min_samples
from pipeline.metrics.engine.rows import Aim, second_look, sums_at_once
from pipeline.metrics.engine.statistics import ClassStatistics, finite_part
from pipeline.metrics.engine.undefined import reason_of
from pipeline.metrics.registry import Metric, RowSum, Statistic


@dataclass(frozen=True)
class Plan:
    """Metrics to measure.

    Attributes:
        metrics: in the order in which they are recorded.
        substitutes: whether sums over rows come from accumulated statistics instead of a second look, where they can.
        min_samples: classes with fewer samples are left out of all metrics.
    """

    metrics: tuple[Metric, ...]
    substitutes: bool = False
    min_samples: int = 1

    def __post_init__(self) -> None:
        check_min_samples(self.min_samples)

    @classmethod
    def full(cls, without: Iterable[str] = (), min_samples: int = 1) -> Plan:
        """All registered metrics but those that take or need one of `without`."""
        lacking = set(without)
        chosen = tuple(metric for metric in registry.metrics().values() if not lacking & _takes(metric))
        return cls(chosen, min_samples=min_samples)

    @classmethod
    def one_pass(cls, names: Iterable[str] | None = None, substitutes: bool = True, min_samples: int = 1) -> Plan:
        """The metrics of these names; by default those that come from one pass over the rows and from no decomposition
        of a weight. Raises ValueError for unknown names."""
        if names is not None:
            return cls(registry.chosen(names), substitutes, min_samples)
        plans = (cls((metric,), substitutes) for metric in registry.metrics().values())
        chosen = (plan.metrics[0] for plan in plans if not plan.row_sums and "spectrum" not in plan.metrics[0].takes)
        return cls(tuple(chosen), substitutes, min_samples)

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

    def aim(self, own: ClassStatistics, reference: ClassStatistics | None = None) -> Aim:
        """What the second look needs to be told, of the class statistics of all rows."""
        kept, candidates = kept_classes(self.min_samples, own, reference)
        counting = own.counting(kept)
        directions = {row_sum.name: row_sum.along(counting) for row_sum in self.row_sums if row_sum.along is not None}
        return Aim(directions, kept, candidates)

    def second_look(
        self,
        own: ClassStatistics,
        reference: ClassStatistics,
        aim: Aim,
        decisions: Tensor | None,
    ) -> Tensor:
        """Sums over the rows in the source of `own`, one for each of `row_sums`; those of several parts add up."""
        return second_look(own, reference, self.row_sums, aim, decisions)

    def at_once(
        self,
        statistics: ClassStatistics,
        reference: ClassStatistics | None = None,
        weight: Tensor | None = None,
        next_weight: Tensor | None = None,
        decisions: Tensor | None = None,
    ) -> tuple[dict[str, Tensor], dict[str, str]]:
        """`evaluate` of statistics that have their `source` `(..., N, d)` at hand, which gets its second look here."""
        sums, judged = {}, None
        if self.row_sums:
            aim = self.aim(statistics, reference)
            sums = sums_at_once(self.row_sums, statistics, reference or statistics, aim, decisions)
            judged = aim.judged(statistics.source[1])
        return self.evaluate(Inputs(statistics, reference, weight, next_weight, sums, judged, self.min_samples))

    def evaluate(self, at: Inputs) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Values of the metrics that can be had of these inputs, `(...)` each, and why some of them are not finite."""
        for row_sum in self._substituted:
            at.sums[row_sum.name] = row_sum.instead(*(at[name] for name in row_sum.instead_takes))
        calls = {m.name: (m.formula, *at.arguments(m)) for m in self.metrics if at.offers(m.takes)}
        values = {name: formula(*arguments) for name, (formula, *arguments) in calls.items()}
        # One question to the device for all of them, as all are finite as a rule.
        if not values or bool(torch.stack([value.isfinite().all() for value in values.values()]).all()):
            return values, {}
        reasons = {name: reason_of(*calls[name]) for name, value in values.items() if not value.isfinite().all()}
        reasons |= {name: MIXED for name in reasons if at.is_mixed(self, name)}
        return values, {name: reason for name, reason in reasons.items() if reason is not None}


class Inputs:
    """What formulas may take at a place, by name (`registry.INPUTS`, statistics, sums over rows).

    Args:
        statistics: of the rows.
        reference: of the training split's rows; those of the rows themselves by default.
        weight, next_weight: what the rows enter, and what comes after it, of any float dtype; None where not known.
        sums: those over rows, by name.
        judged: how many rows they are of.
        min_samples: classes with fewer samples are left out: of the statistics, and of the rows of a classifier.
    """

    def __init__(
        self,
        statistics: ClassStatistics,
        reference: ClassStatistics | None = None,
        weight: Tensor | None = None,
        next_weight: Tensor | None = None,
        sums: Mapping[str, Tensor] | None = None,
        judged: Tensor | int | None = None,
        min_samples: int = 1,
    ) -> None:
        self.sums = dict(sums or {})
        kept, candidates = kept_classes(min_samples, statistics, reference)
        num_classes = statistics.num_classes
        self._raw, statistics = statistics, statistics.counting(kept)
        reference = statistics if reference is None else reference.counting(candidates)
        double = lambda matrix: None if matrix is None else matrix.detach().to(statistics.means)  # noqa: E731
        self._values = {
            "statistics": statistics,
            "reference": reference,
            "weight": double(weight),
            "next_weight": double(next_weight),
            "judged": judged,
            **statistics.extras,
        }
        if weight is not None:
            last = next_weight is None and weight.shape[-2] == num_classes
            own = self._values["weight"]
            if last and statistics.num_classes < num_classes:
                own = own.index_select(-2, kept.nonzero().squeeze(-1))
            self._values["classifier"] = own if last else None
            self._beside_rows = own

    def offers(self, names: Iterable[str]) -> bool:
        """Whether all of these are there."""
        return all(self[name] is not None for name in names)

    def arguments(self, metric: Metric) -> list[Tensor | ClassStatistics | int]:
        """What it takes; a weight beside rows is without a classifier's rows of the classes left out."""
        return [self._beside_rows if name == "weight" and metric.of_rows else self[name] for name in metric.takes]

    def is_mixed(self, plan: Plan, name: str) -> bool:
        """Whether a metric takes an accumulated statistic that rows of classes left out have gone into."""
        statistics = self["statistics"]
        known = {row_sum.name: row_sum.instead_takes for row_sum in plan._substituted}
        takes = registry.metrics()[name].takes
        used = {*takes, *(extra for sums in takes for extra in known.get(sums, ()))} & statistics.extras.keys()
        spoilt = [extra for extra in used if bool(statistics.extras[extra].isnan().all())]
        return any(not bool(self._raw.extras[extra].isnan().all()) for extra in spoilt)

    def __getitem__(self, name: str) -> Tensor | ClassStatistics | int | None:
        if name == "spectrum" and self._values["weight"] is not None:
            self._values.setdefault(name, spectrum(self._values["weight"]))
        return self._values.get(name, self.sums.get(name))


MIXED = (
    "samples of classes left out by min_samples have gone into what is accumulated for it: "
    "a second look (covariance=False and look_again, or layer_metrics) leaves them out"
)


def kept_classes(
    min_samples: int, own: ClassStatistics, reference: ClassStatistics | None = None
) -> tuple[Tensor | None, Tensor | None]:
    """Which classes count, in rows and among the means of the training split, `(K,)` each; None, None if all do.

    A class of the rows counts if it does in the training split as well.
    """
    candidates = (reference or own).counts >= min_samples
    kept = candidates & (own.counts >= min_samples)
    return (None, None) if bool(kept.all()) else (kept, candidates)


def spectrum(matrix: Tensor) -> Tensor:
    """Singular values of a float64 matrix `(..., m, n)`, largest first; NaN for a member that is not finite."""
    finite = matrix.isfinite().all(-1).all(-1)[..., None]
    return torch.where(finite, torch.linalg.svdvals(finite_part(matrix)), float("nan"))


def _takes(metric: Metric) -> set[str]:
    """What it takes, and what the sums over rows that it takes need."""
    known = registry.row_sums()
    return {*metric.takes, *(need for name in metric.takes if name in known for need in known[name].needs)}
