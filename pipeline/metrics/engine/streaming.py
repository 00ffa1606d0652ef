"""Collapse metrics of one layer from a stream of batches, on any number of ranks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields, replace
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.distributed import gather_all_tensors

from pipeline.metrics.engine.beyond_rows import BeyondRows
from pipeline.metrics.engine.checks import (
    check_decisions,
    check_label_range,
    check_labels,
    check_matrix,
    check_next_weight,
    check_num_classes,
    check_weight,
)
from pipeline.metrics.engine.inputs import Inputs
from pipeline.metrics.engine.intake import Intake
from pipeline.metrics.engine.joining import Talk, added
from pipeline.metrics.engine.packing import merge_packed, pack, shapes_of, unpack
from pipeline.metrics.engine.pairing import PairStatistics
from pipeline.metrics.engine.plan import Plan
from pipeline.metrics.engine.rows import Aim
from pipeline.metrics.engine.settings import MeasureSettings, listed
from pipeline.metrics.engine.statistics import ClassStatistics
from pipeline.metrics.registry import CLASS, GROUP, OF_NETWORKS
from pipeline.runtime.devices import has_float64, with_float64

NOT_JUDGED = "the rows have not been shown a second time (look_again)"


class CollapseMetrics(BeyondRows, Metric):
    """Collapse metrics of a layer's features, streamed: equal to `layer_metrics` of all the data at once.

    Call it with features `(N, d)` of any float dtype and int64 labels `(N,)`, in batches of any size, on any number of
    ranks; `compute()` gives dnc1, nc1_pinv, cdnv, dnc2, nc2_frame, nc2_simplex, rank_means, stable_rank_means and
    active_units as float64 scalars, and whatever else is registered and comes from one pass over the features
    (`pipeline.metrics.metrics`). Merging batches and ranks is exact to rounding, however large the offset of the
    features or small their spread (see `statistics`).

    Other metrics are asked for by name. Some need every batch a second time, once the class means are known:

        metric = CollapseMetrics(10, 512, metrics=["dnc1", "ncm_accuracy", "nc4", "dnc3"])
        for features, labels, _ in batches:
            metric.update(features, labels)
        for features, labels, decisions in batches:
            metric.look_again(features, labels, decisions)
        values = metric.compute(weight=classifier.weight)

    The state is one float64 vector, of size O(K d) or, with `covariance`, O(K d + d^2), and one of a few sums for the
    second look; ranks add these up, so that what each receives does not grow with their number. They stay float64 when
    the metric, or a model that holds it, is cast. `update` never waits for a GPU; labels out of range raise ValueError
    at once on a CPU and in `compute()` on a GPU.

    Args:
        num_classes: K, at least 2.
        num_features: d, at least 1.
        covariance: accumulate the pooled `(d, d)` scatter that nc1_pinv needs; False drops nc1_pinv or, if it is asked
            for by name, takes it from the second look.
        metrics: names of the metrics to compute; None for those of one pass.
        min_samples: classes with fewer samples are left out of all metrics (but the share of active units, which is of
            all rows); nc1_pinv then needs the second look if such classes have several samples that differ.
        families: of metrics to compute, where they are not named; "all" is every one. Those of other families than
            "core" may need the second look.
        max_samples: classes with more samples are left out as well.
        probe_ridge, foreign_directions: as in `MeasureSettings`.
        groups: names of the groups that rows are of, or how many, for the family "groups"; `update` and `look_again`
            then get the group of each row, and "core" is measured in each, as "dnc1/group=NAME".
        kwargs: those of `torchmetrics.Metric`.

    Attributes:
        undefined: reasons for the metrics that were not finite in the last `compute()`, by name.
        classes: what families have of each class in it, as "cos_intra/class=", `(K,)` each.
        why_of_classes: reasons for those that are not finite, as "cos_intra/class=3".

    Raises:
        ValueError: for arguments out of range, unknown metrics, and malformed features or labels.
    """

    is_differentiable: ClassVar[bool] = False
    higher_is_better: ClassVar[None] = None
    full_state_update: ClassVar[bool] = False

    sums: Tensor

    def __init__(
        self,
        num_classes: int,
        num_features: int,
        covariance: bool = True,
        metrics: Iterable[str] | None = None,
        min_samples: int = 1,
        families: Iterable[str] = ("core",),
        max_samples: int | None = None,
        probe_ridge: float = 1e-2,
        foreign_directions: int | None = None,
        groups: Sequence[str] | int = (),
        **kwargs: Any,
    ) -> None:
        # What it computes depends on the weights that it is given.
        super().__init__(**{"compute_with_cache": False} | kwargs)
        check_num_classes(num_classes)
        if isinstance(num_features, bool) or not isinstance(num_features, int) or num_features < 1:
            raise ValueError(f"num_features must be an int of at least 1, got {num_features!r}.")
        self.num_classes = num_classes
        self.num_features = num_features
        self.covariance = covariance
        self._names = None if metrics is None else tuple(metrics)
        self.min_samples = min_samples
        self.settings = MeasureSettings(
            listed(families),
            min_samples,
            max_samples,
            probe_ridge=probe_ridge,
            foreign_directions=foreign_directions,
        )
        self.groups = tuple(map(str, range(groups) if isinstance(groups, int) else groups))
        lacking = [*OF_NETWORKS, *(() if self.groups else ("groups",))]
        self._plan = Plan.one_pass(self._names, covariance, self.settings, lacking)
        self._parts = torch.nn.ModuleList(self._of_group() for _ in self.groups if self._plan.of_parts is not None)
        # Statistics of all ranks, and the directions of the second look, once it has begun.
        self._merged: ClassStatistics | None = None
        self._aim: Aim | None = None
        self.undefined: dict[str, str] = {}
        self.classes: dict[str, Tensor] = {}
        self.why_of_classes: dict[str, str] = {}
        self._pending = Intake(self._plan, num_classes, num_features)
        # One state, so that the means, about which scatter is taken, are merged in the same step as the scatter.
        nothing = self._plan.first_look(torch.zeros(0, num_features), torch.zeros(0, dtype=torch.int64), num_classes)
        self.add_state("state", pack(nothing), dist_reduce_fx=partial(merge_packed, self._shapes))
        if self._plan.looks_again:  # the sums, and how many rows they are of
            size = self._plan.size_of_sums(num_classes, num_features) + 1
            self.add_state("sums", torch.zeros(size, dtype=torch.float64), dist_reduce_fx="sum")
        if self._plan.row_values:  # a row of numbers for each row
            self.add_state("row_values", [], dist_reduce_fx="cat")
            self.add_state("foreign_values", [], dist_reduce_fx="cat")
            self._forget_rows()
        if self._takes_foreign:
            self._foreign_shapes = shapes_of(1, num_features, ())
            nobody = ClassStatistics.from_features(torch.zeros(0, num_features), torch.zeros(0, dtype=torch.int64), 1)
            self.add_state("foreign", pack(nobody), dist_reduce_fx=partial(merge_packed, self._foreign_shapes))

    @classmethod
    def of_settings(
        cls,
        num_classes: int,
        num_features: int,
        covariance: bool,
        metrics: Iterable[str] | None,
        settings: MeasureSettings,
        groups: Sequence[str] | int = (),
    ) -> CollapseMetrics:
        """One that measures by these settings."""
        of_networks = ("pairs", "jacobian_samples", "coupling_rank")
        how = {field.name: getattr(settings, field.name) for field in fields(settings) if field.name not in of_networks}
        return cls(num_classes, num_features, covariance, metrics, groups=groups, **how)

    def update(
        self,
        features: Tensor,
        labels: Tensor,
        active: Tensor | None = None,
        units: Tensor | None = None,
        groups: Tensor | None = None,
    ) -> None:
        """Add a batch of features `(N, d)` and labels `(N,)`; N may be 0.

        Args:
            active: where the features are averages over units, how many of the units were not zero, per averaged
                entry: any shape, all are added. Without it the entries of the features are counted.
            units: where the features are averages over positions, `unit_counts` of these, for the family "elements".
            groups: int64 `(N,)`, the group of each row, where there are groups.
        """
        self._check(features, labels)
        features, labels, active, units, groups = with_float64(features, labels, active, units, groups)
        for part, rows in self._rows_of_groups(groups, features):
            own = active[rows] if active is not None and active.shape == labels.shape else None
            part.update(features[rows], labels[rows], own)
        if active is not None or units is not None:  # counted for this batch, so it is not joined with others
            self._take_in_waiting()
            self._take_in(features, labels, active, units)
        else:
            for part in self._pending.add(features, labels):
                self._merge(part)
        self._forget_second_look()

    def look_again(
        self,
        features: Tensor,
        labels: Tensor,
        decisions: Tensor | None = None,
        reference: ClassStatistics | None = None,
        groups: Tensor | None = None,
    ) -> None:
        """Show a batch a second time, after all updates; together these batches must be the same as in the first look.

        On several ranks every rank must call this at least once (N may be 0) or `merged_statistics`, because the first
        call synchronises.

        Args:
            features: `(N, d)`; labels: `(N,)`.
            decisions: what the network decided, int64 `(N,)`; nc4 needs them.
            reference: class statistics of the training split where the features are of another one, the same in every
                call and in `compute`.
            groups: those of `update`.
        """
        self._check(features, labels)
        features, labels, decisions, groups = with_float64(features.detach(), labels, decisions, groups)
        for part, rows in self._rows_of_groups(groups, features):
            part.look_again(features[rows], labels[rows], None if decisions is None else decisions[rows])
        if not self._plan.looks_again:
            return
        if self._plan.needs_decisions:
            check_decisions(decisions, features)
        merged = self._begin_second_look(reference)
        own = replace(merged, source=(features, labels))
        found = self._plan.second_look(own, reference or merged, self._aim, decisions)
        judged = torch.as_tensor(self._aim.judged(labels), dtype=found.dtype, device=found.device)
        self.sums = self.sums + torch.cat([found, judged.reshape(1)])
        if self._plan.row_values:
            self.row_values.append(self._stacked(self._plan.values_of_rows(own, reference or merged, self._aim)))

    def compute(
        self,
        weight: Tensor | None = None,
        next_weight: Tensor | None = None,
        reference: ClassStatistics | None = None,
        pair: PairStatistics | None = None,
        gradients: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """The metrics by name, float64 scalars on the CPU, where formulas are worked out (`ClassStatistics.on_cpu`).

        Args:
            weight: that the features enter, `(out, d)`; without it there are no metrics of weights.
            next_weight: the one after it, `(out', out)`.
            reference: that of `look_again`.
            pair: of the place before and this one, for the family "similarity".
            gradients: those of `layer_metrics`, for the family "agop".
        """
        statistics = self._known_statistics()
        self._check_strays(statistics)
        if weight is not None:
            check_weight(weight, statistics.means)
        if next_weight is not None:
            check_next_weight(next_weight, weight)
        names = [looked.name for looked in (*self._plan.row_sums, *self._plan.row_values)]
        looked_at = self.sums.cpu() if names and self._plan.looks_again else None
        sums, judged = (None, None) if looked_at is None else (looked_at[:-1], looked_at[-1])
        looked = {} if sums is None else self._plan.sums_of(sums, self.num_classes, self.num_features)
        more = self._beyond(pair, gradients)
        inputs = Inputs(statistics, reference, weight, next_weight, looked, judged, self.settings, more)
        values, self.undefined = self._plan.evaluate(inputs)
        self.classes = {name: values.pop(name) for name in list(values) if name.endswith(CLASS)}
        self.why_of_classes = {name: self.undefined.pop(name) for name in list(self.undefined) if CLASS in name}
        if names and not judged:
            self._forget_classes_of(names)
            waiting = [it.name for it in self._plan.metrics if set(it.takes) & set(names) and it.name in values]
            values |= {name: torch.full_like(values[name], float("nan")) for name in waiting}
            known = {} if self._aim is None else self.undefined  # of rows that were shown, but do not count
            self.undefined = self.undefined | dict.fromkeys(waiting, NOT_JUDGED) | known
        for group, part in zip(self.groups, self._parts, strict=False):
            own = part.compute(weight=weight, next_weight=next_weight)
            values |= {f"{name}{GROUP}{group}": value for name, value in own.items()}
            self.undefined = self.undefined | {f"{name}{GROUP}{group}": why for name, why in part.undefined.items()}
        return values

    def merge_state(self, incoming_state: dict[str, Any] | Metric) -> None:
        """Add what another metric of the same sizes has seen, e.g. of another shard of the data, in its first look."""
        if isinstance(incoming_state, CollapseMetrics):
            same = ("num_classes", "num_features", "covariance", "min_samples")
            ours, theirs = (tuple(getattr(own, name) for name in same) for own in (self, incoming_state))
            if ours != theirs:
                raise ValueError(f"incoming_state must have the same ({', '.join(same)}), {ours}, got {theirs}.")
            if self.settings != incoming_state.settings:
                raise ValueError(f"incoming_state must have settings {self.settings}, got {incoming_state.settings}.")
            if self._plan.metrics != incoming_state._plan.metrics:
                raise ValueError(
                    f"incoming_state must have the same metrics, {self._names}, got {incoming_state._names}."
                )
            for part, other in zip(self._parts, incoming_state._parts, strict=True):
                part.merge_state(other)
        super().merge_state(incoming_state)
        # The base class keeps a value computed before, and warns that a metric filled by merging alone is empty.
        self._computed = None
        self._update_count += 1
        self._forget_second_look()

    def reset(self) -> None:
        """Forget all batches."""
        super().reset()
        for part in self._parts:
            part.reset()
        self.undefined, self.classes, self.why_of_classes = {}, {}, {}
        self._forget_second_look()

    def set_dtype(self, dst_type: str | torch.dtype) -> CollapseMetrics:
        """Keep float64, whatever is asked for: less would cost the digits that collapse is about."""
        return self

    def _apply(self, fn: Callable[[Tensor], Tensor], *args: Any, **kwargs: Any) -> CollapseMetrics:
        # Follow a move to another device, but not a cast: `.to(torch.float16)` of a model that holds the metric. To a
        # device that has no float64 it cannot follow; rows from there then come to the CPU.
        def move(tensor: Tensor) -> Tensor:
            device = fn(tensor.new_empty(0, dtype=torch.uint8)).device
            return tensor.to(device) if has_float64(device) else tensor

        return super()._apply(move, *args, **kwargs)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        size = sum(shape.numel() for shape in self._shapes.values())
        kept = state_dict.get(f"{prefix}state")
        if kept is not None and len(kept) == size - 1:  # of before the roundoff was carried: as float64 features
            state_dict = {**state_dict, f"{prefix}state": torch.cat([kept, kept.new_zeros(1)])}
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    @property
    def state(self) -> Tensor:
        """Class statistics of all rows as one vector, the torchmetrics state: whoever asks for it, be it to merge, to
        synchronise or to save, gets the rows that are on their way as well."""
        self._take_in_waiting()
        return self._state

    @state.setter
    def state(self, value: Tensor) -> None:
        self._pending.forget()
        self._state = value

    def _take_in_waiting(self) -> None:
        for part in self._pending.emptied():
            self._merge(part)

    def _take_in(self, rows: Tensor, labels: Tensor, active: Tensor | None, units: Tensor | None) -> None:
        batch = self._plan.first_look(rows, labels, self.num_classes)
        if units is not None and "counted_units" in batch.extras:
            batch = replace(batch, extras={**batch.extras, "counted_units": units.to(batch.active)})
        if active is not None:
            batch = replace(batch, active=active.sum().to(batch.active))
        self._merge(batch)

    def _merge(self, batch: ClassStatistics) -> None:
        so_far = unpack(self._shapes, self._state)
        # Nothing is there to be merged with the first block; a GPU is not waited for to know that.
        first = self._state.device.type == "cpu" and not so_far.samples
        self._state = pack(batch if first else ClassStatistics.merged([so_far, batch]))

    def _sync_dist(self, dist_sync_fn: Callable = gather_all_tensors, process_group: Any = None) -> None:
        """Add up over ranks instead of gathering from all, unless another way was asked for."""
        if dist_sync_fn is not gather_all_tensors:
            super()._sync_dist(dist_sync_fn, process_group)
            return
        reductions, talk = self._reductions, Talk.within(process_group or self.process_group)
        summed = {"state", "sums", "foreign"} & reductions.keys()
        self.state = pack(*added([self.statistics], talk))
        if "sums" in summed:
            self.sums = talk.total(self.sums.clone())
        if "foreign" in summed:
            self.foreign = pack(*added([unpack(self._foreign_shapes, self.foreign)], talk))
        # Numbers of rows are gathered: there is no sum of them.
        self._reductions = {name: how for name, how in reductions.items() if name not in summed}
        try:
            super()._sync_dist(dist_sync_fn, process_group)
        finally:
            self._reductions = reductions

    def __getstate__(self) -> dict[str, Any]:
        self._state = self.state  # with what waits
        return super().__getstate__()

    @property
    def statistics(self) -> ClassStatistics:
        """What was accumulated so far on this rank."""
        return unpack(self._shapes, self.state)

    def _known_statistics(self) -> ClassStatistics:
        """What was accumulated, on the CPU: the object of the second look if that is still the same, so that nothing
        that its directions took is decomposed again."""
        state, known = self.state.cpu(), None if self._merged is None else self._merged.on_cpu
        return known if known is not None and torch.equal(pack(known), state) else unpack(self._shapes, state)

    def merged_statistics(self) -> ClassStatistics:
        """What was accumulated on all ranks together, each of which must call this."""
        if self._merged is None:
            with self.sync_context(should_sync=self._to_sync):
                self._merged = self.statistics
        return self._merged

    @property
    def _shapes(self) -> dict[str, torch.Size]:
        return shapes_of(self.num_classes, self.num_features, self._plan.statistics, self._plan.views)

    def _check(self, features: Tensor, labels: Tensor) -> None:
        check_matrix("features", features, "(N, d)")
        if features.ndim != 2 or features.shape[1] != self.num_features:
            raise ValueError(f"features must have shape (N, {self.num_features}), got {tuple(features.shape)}.")
        check_labels(labels, features)
        if labels.device.type == "cpu":
            check_label_range(labels, self.num_classes)

    def _check_strays(self, statistics: ClassStatistics) -> None:
        strays = int(statistics.samples - statistics.counts.sum())
        if strays:
            raise ValueError(f"labels must lie in 0..{self.num_classes - 1}, got {strays} of them outside.")

    def _forget_classes_of(self, names: Sequence[str]) -> None:
        """Drop what takes these, of rows that have not been shown a second time."""
        unknown = {f"{own.name}{CLASS}" for own in self._plan.class_values if set(own.takes) & set(names)}
        self.classes = {name: value for name, value in self.classes.items() if name not in unknown}

    def _forget_second_look(self) -> None:
        if self._merged is not None or self._aim is not None:
            self._merged = self._aim = None
        if self._plan.looks_again:
            self.sums = torch.zeros_like(self.sums)
        self._forget_rows()
