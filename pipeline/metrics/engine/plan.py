"""What is to be measured at a place, and what that takes: the one machine behind the pipeline's pass, the tracker,
`CollapseMetrics` and `layer_metrics`.

A place is measured in a first look at its rows, which accumulates class statistics; where some metric needs it, in a
second look, which adds up what rows come to once class means are known; and in formulas of both and of weights. How
rows come, are kept, and are shared by ranks is for the callers; what is done with them is done here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from pipeline.metrics import registry
from pipeline.metrics.engine.inputs import MIXED, Inputs, kept_classes
from pipeline.metrics.engine.members import one_by_one
from pipeline.metrics.engine.needs import check_inputs, check_of_runs, needs_of
from pipeline.metrics.engine.of_classes import values_of_classes
from pipeline.metrics.engine.rows import Aim, second_look, sums_at_once, values_of_rows
from pipeline.metrics.engine.settings import DEFAULT, MeasureSettings
from pipeline.metrics.engine.statistics import ClassStatistics
from pipeline.metrics.engine.undefined import reason_of
from pipeline.metrics.registry import ClassValue, Metric, RowSum, RowValue, Statistic
from pipeline.runtime.devices import moved


@dataclass(frozen=True)
class Plan:
    """Metrics to measure.

    Attributes:
        metrics: in the order in which they are recorded.
        substitutes: whether sums over rows come from accumulated statistics instead of a second look, where they can.
        lacking: what there is not, and no metric takes or needs.
        settings: how they are measured; its families are those that the metrics have been chosen from.
        each_class: whether values of each class are measured beside them, as `NAME/class=` (`registry.of_classes`).
    """

    metrics: tuple[Metric, ...]
    substitutes: bool = False
    settings: MeasureSettings = DEFAULT
    lacking: frozenset[str] = frozenset()
    each_class: bool = False

    @classmethod
    def full(
        cls,
        without: Iterable[str] = (),
        settings: MeasureSettings = DEFAULT,
        strict: bool = False,
        each_class: bool = False,
    ) -> Plan:
        """All metrics of the families of `settings` but those that take or need one of `without`.

        Args:
            strict: refuse a family that is named and lacks what all of its metrics need.

        Raises:
            ValueError: for an unknown family.
        """
        lacking = set(without)
        chosen = registry.of_families(settings.families)
        kept = tuple(metric for metric in chosen if not lacking & needs_of(metric))
        if strict:
            check_inputs(settings.families, chosen, kept, lacking)
        return cls(kept, settings=settings, lacking=frozenset(lacking), each_class=each_class)

    @cached_property
    def class_values(self) -> tuple[ClassValue, ...]:
        """What is measured of each class: what the families have that the metrics are of."""
        return registry.class_values_of(self.settings.families) if self.each_class else ()

    def takes(self, name: str) -> bool:
        """Whether some metric takes the input."""
        return any(name in metric.takes for metric in self.metrics)

    @cached_property
    def of_parts(self) -> Plan | None:
        """What is measured of the rows of each group: "core", and what tells groups apart; None if nobody asks."""
        if not self.takes("groups") and not any(metric.family == "groups" for metric in self.metrics):
            return None
        names = {*registry.families()[registry.CORE].metrics, *registry.families()["groups"].metrics}
        core = registry.of_families((registry.CORE,))
        metrics = (metric for metric in (*core, *self.metrics) if metric.name in names and metric.of_rows)
        kept = dict.fromkeys(it for it in metrics if "groups" not in it.takes and not self.lacking & needs_of(it))
        return Plan(tuple(kept), settings=self.settings, lacking=self.lacking)

    @classmethod
    def one_pass(
        cls,
        names: Iterable[str] | None = None,
        substitutes: bool = True,
        settings: MeasureSettings = DEFAULT,
        without: Iterable[str] = (),
    ) -> Plan:
        """The metrics of these names; by default those of the families but for what "core" has that does not come from
        one pass over the rows, or comes from the decomposition of a weight.

        Raises:
            ValueError: for unknown names, and for families that only runs have.
        """
        if names is not None:
            return cls(registry.chosen(names), substitutes, settings)
        check_of_runs(settings.families)
        chosen, lacking = registry.of_families(settings.families), set(without)
        core = set(registry.families()[registry.CORE].metrics)

        def passes(metric: Metric) -> bool:
            return not cls((metric,), substitutes).row_sums and "spectrum" not in metric.takes

        taken = [metric for metric in chosen if not lacking & needs_of(metric)]
        if "groups" in lacking and "groups" not in settings.families:  # what is told of decisions is told of groups
            taken = [metric for metric in taken if metric.family != "groups"]
        kept = tuple(it for it in taken if it.name not in core or passes(it))
        return cls(kept, substitutes, settings, frozenset(lacking), each_class=True)

    def of_input(self, name: str) -> Plan:
        """The metrics that take this input alone."""
        return replace(self, metrics=tuple(metric for metric in self.metrics if metric.takes == (name,)))

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
        for looked in (*self.row_sums, *self.row_values):
            taken |= dict.fromkeys(looked.prepare_takes)
        return tuple(known[name] for name in taken if name in known)

    @cached_property
    def views(self) -> tuple[str, ...]:
        """What class statistics the first look accumulates besides those of the rows as they are."""
        taken = {name for metric in self.metrics for name in needs_of(metric)}
        return tuple(name for name in registry.VIEWS if name in taken)

    @cached_property
    def of_sums(self) -> bool:
        """Whether the first look takes no more than sums that grow tile by tile, so that rows need not be kept."""
        return not self.views and all(statistic.of_sums for statistic in self.statistics)

    @cached_property
    def row_sums(self) -> tuple[RowSum, ...]:
        """What the second look adds up; none if there is no need for one."""
        return tuple(row_sum for row_sum in self._row_sums if row_sum not in self._substituted)

    @cached_property
    def row_values(self) -> tuple[RowValue, ...]:
        """What the second look keeps of each row."""
        known = registry.row_values()
        taken = (name.removeprefix(registry.FOREIGN) for metric in self.metrics for name in metric.takes)
        return tuple(known[name] for name in dict.fromkeys(taken) if name in known)

    @cached_property
    def looks_again(self) -> bool:
        """Whether there is anything to do in a second look."""
        return bool(self.row_sums or self.row_values)

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
        views = self.views if features.ndim == 2 else ()  # of members one by one, in `at_once`
        return ClassStatistics.from_features(
            features, labels, num_classes, extras=self.statistics, views=views, computed_in=computed_in
        )

    def aim(self, own: ClassStatistics, reference: ClassStatistics | None = None) -> Aim:
        """What the second look needs to be told, of the class statistics of all rows."""
        kept, candidates = kept_classes(self.settings, own, reference)
        counting = own.counting(kept)
        directions = {row_sum.name: row_sum.along(counting) for row_sum in self.row_sums if row_sum.along is not None}
        looks = [it for it in (*self.row_sums, *self.row_values) if it.prepare is not None]
        training = counting
        if looks and reference is not None and reference is not own:
            taken = {name for looked in looks for name in looked.prepare_takes}
            needed = [statistic for statistic in self.statistics if statistic.name in taken]
            training = reference.having(needed).counting(candidates)
        known = {"statistics": counting, "reference": training, "settings": self.settings} | dict(training.extras)
        prepared = {it.name: it.prepare(*(known[name] for name in it.prepare_takes)) for it in looks}
        return Aim(directions, kept, candidates, prepared)

    def values_of_rows(self, own: ClassStatistics, reference: ClassStatistics, aim: Aim) -> dict[str, Tensor]:
        """A number of each row in the source of `own` that counts, `(..., n)` for each of `row_values`, by name."""
        return values_of_rows(self.row_values, own, reference, aim) if self.row_values else {}

    def foreign_values(self, foreign: ClassStatistics, reference: ClassStatistics, aim: Aim) -> dict[str, Tensor]:
        """The same of foreign rows under their names there, held against what `aim` has prepared."""
        found = self.values_of_rows(foreign, reference, replace(aim, kept=None, candidates=None))
        return {f"{registry.FOREIGN}{name}": values for name, values in found.items()}

    def sums_of(self, found: Tensor, num_classes: int, num_features: int) -> dict[str, Tensor]:
        """What the second look came to, by name, of the numbers `(m,)` that it gave."""
        shapes = {row_sum.name: row_sum.size(num_classes, num_features) for row_sum in self.row_sums}
        parts = found.split([math.prod(shape) for shape in shapes.values()])
        return {name: part.view(shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}

    def size_of_sums(self, num_classes: int, num_features: int) -> int:
        """How many numbers the second look gives."""
        return sum(math.prod(row_sum.size(num_classes, num_features)) for row_sum in self.row_sums)

    def second_look(
        self,
        own: ClassStatistics,
        reference: ClassStatistics,
        aim: Aim,
        decisions: Tensor | None,
    ) -> Tensor:
        """Sums over the rows in the source of `own`, all of `row_sums` as one vector; those of several parts add up."""
        return second_look(own, reference, self.row_sums, aim, decisions)

    def at_once(
        self,
        statistics: ClassStatistics,
        reference: ClassStatistics | None = None,
        weight: Tensor | None = None,
        next_weight: Tensor | None = None,
        decisions: Tensor | None = None,
        more: Mapping[str, object] | None = None,
        total: Callable[[Tensor], Tensor] | None = None,
    ) -> tuple[dict[str, Tensor], dict[str, str]]:
        """`evaluate` of statistics that have their `source` `(..., N, d)` at hand, which gets its second look here.

        Args:
            total: sums of all ranks, of each rank's, where the source is one rank's part of the rows that the
                statistics are of; for metrics of class statistics and sums over rows alone, as "core" are.
        """
        if self.views and statistics.anchors.ndim > 2:
            return one_by_one(self, statistics, reference, weight, next_weight, decisions, more)
        statistics, decisions = self._of_counting_rows(statistics, reference, decisions)
        sums, judged, more = {}, None, dict(more or {})
        if self.looks_again:
            training = reference or statistics
            aim = self.aim(statistics.on_cpu, None if reference is None else reference.on_cpu)
            training, aim = moved((training, aim), statistics.counts.device)
            sums = sums_at_once(self.row_sums, statistics, training, aim, decisions)
            judged = aim.judged(statistics.source[1])
            if total is not None:
                sums = {name: total(own) for name, own in sums.items()}
                judged = total(torch.as_tensor(judged, dtype=torch.float64))
            more |= self.values_of_rows(statistics, training, aim)
            if more.get("foreign") is not None:
                more |= self.foreign_values(more["foreign"], training, aim)
        return self.evaluate(Inputs(statistics, reference, weight, next_weight, sums, judged, self.settings, more))

    def _of_counting_rows(
        self, statistics: ClassStatistics, reference: ClassStatistics | None, decisions: Tensor | None
    ) -> tuple[ClassStatistics, Tensor | None]:
        """Where something is accumulated over the rows of all classes: without those of classes left out."""
        own, other = statistics.on_cpu, None if reference is None else reference.on_cpu
        kept, _ = kept_classes(self.settings, own, other)
        if kept is None or not self.statistics or not bool(own.counts[~kept].any()):
            return statistics, decisions
        features, labels = statistics.source
        counting = kept.to(labels.device)[labels].nonzero().squeeze(-1)
        rows = features.index_select(-2, counting), labels.index_select(0, counting)
        own = self.first_look(*rows, statistics.num_classes)
        own = replace(own, active=statistics.active, samples=statistics.samples, roundoff=statistics.roundoff)
        return own, None if decisions is None else decisions.index_select(-1, counting)

    def of_inputs(self, given: Mapping[str, object]) -> tuple[dict[str, Tensor], dict[str, str]]:
        """The same where metrics take nothing of class statistics, but these inputs alone."""
        calls = {it.name: (it.formula, *(given[name] for name in it.takes)) for it in self.metrics}
        return _evaluated(calls)

    def evaluate(self, at: Inputs) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Values of the metrics that can be had of these inputs, `(...)` each, and why some of them are not finite."""
        for row_sum in self._substituted:
            at.sums[row_sum.name] = row_sum.instead(*(at[name] for name in row_sum.instead_takes))
        calls = {m.name: (m.formula, *at.arguments(m)) for m in self.metrics if at.offers(m.takes)}
        values, reasons = _evaluated(calls)
        reasons |= {name: MIXED for name in reasons if at.is_mixed(self, name)}
        of_classes, why = values_of_classes(self.class_values, at)
        return values | of_classes, reasons | why


def _evaluated(calls: Mapping[str, tuple]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Values of formulas with their arguments, and why some are not finite."""
    values = {name: formula(*arguments) for name, (formula, *arguments) in calls.items()}
    # One question to the device for all of them, as all are finite as a rule.
    if not values or bool(torch.stack([value.isfinite().all() for value in values.values()]).all()):
        return values, {}
    reasons = {name: reason_of(*calls[name]) for name, value in values.items() if not value.isfinite().all()}
    return values, {name: reason for name, reason in reasons.items() if reason is not None}
