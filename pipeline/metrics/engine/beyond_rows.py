"""What a stream measures beyond the rows of a layer: groups of them, and foreign rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pipeline.metrics.engine.checks import check_groups
from pipeline.metrics.engine.packing import pack, unpack
from pipeline.metrics.engine.pairing import PairStatistics
from pipeline.metrics.engine.plan import Plan
from pipeline.metrics.engine.statistics import ClassStatistics
from pipeline.metrics.registry import CORE, FOREIGN
from pipeline.runtime.devices import with_float64

if TYPE_CHECKING:
    from pipeline.metrics.engine.streaming import CollapseMetrics


class BeyondRows:
    """The part of `CollapseMetrics` that is told groups and foreign rows."""

    @cached_property
    def _takes_foreign(self) -> bool:
        return bool(self._plan.row_values) or self._plan.takes("foreign")

    def _of_group(self) -> CollapseMetrics:
        """A metric of the rows of one group: what of "core" comes from one pass, and what tells groups apart."""
        core = Plan.one_pass(None, self.covariance, replace(self.settings, families=(CORE,)))
        told_apart = [it for it in self._plan.of_parts.metrics if it.family == "groups"]
        names = [it.name for it in (*core.metrics, *told_apart)]
        return type(self).of_settings(self.num_classes, self.num_features, self.covariance, names, self.settings)

    def look_at_foreign(self, features: Tensor, reference: ClassStatistics | None = None) -> None:
        """Show rows `(M, d)` of other data, for the family "foreign", after all updates; on every rank or on none.

        Args:
            reference: that of `look_again`.
        """
        labels = torch.zeros(len(features), dtype=torch.int64, device=features.device)
        self._check(features, labels)
        if not self._takes_foreign:
            return
        features, labels = with_float64(features, labels)
        merged = self._begin_second_look(reference)
        new = ClassStatistics.from_features(features, labels, 1)
        self.foreign = pack(ClassStatistics.merged([unpack(self._foreign_shapes, self.foreign), new]))
        if self._plan.row_values:
            found = self._plan.foreign_values(new, reference or merged, self._aim)
            self.foreign_values.append(self._stacked(found))

    def _stacked(self, found: Mapping[str, Tensor]) -> Tensor:
        """Numbers of rows side by side, as one vector: so that of a rank without rows is like those of the others."""
        return torch.stack(list(found.values()), -1).reshape(-1)

    def _forget_rows(self) -> None:
        """No numbers of rows, and no foreign ones."""
        if self._plan.row_values:
            # Never an empty list: torchmetrics would gather something of another dtype for it.
            self.row_values, self.foreign_values = ([self._state.new_zeros(0)] for _ in range(2))
        if self._takes_foreign and hasattr(self, "foreign"):
            self.foreign = torch.zeros_like(self.foreign)

    def _begin_second_look(self, reference: ClassStatistics | None) -> ClassStatistics:
        merged = self.merged_statistics()
        if self._aim is None:
            self._check_strays(merged)
            own, other = merged.on_cpu, None if reference is None else reference.on_cpu
            self._aim = self._plan.aim(own, other).to(merged.counts.device)
        return merged

    def _rows_of_groups(self, groups: Tensor | None, features: Tensor) -> Iterator[tuple[CollapseMetrics, Tensor]]:
        """The metric of each group, and which rows it gets."""
        if not len(self._parts):
            return
        if groups is None:
            raise ValueError(f"groups must be given with every batch: there are {', '.join(self.groups)}, got None.")
        check_groups(groups, features)
        if groups.numel() and int(groups.max()) >= len(self.groups):
            raise ValueError(f"groups must be below {len(self.groups)}, got {int(groups.max())}.")
        for number, part in enumerate(self._parts):
            yield part, (groups == number).nonzero().squeeze(-1)

    def _beyond(self, pair: PairStatistics | None, gradients: Tensor | None) -> dict[str, object]:
        """What formulas take that rows of this layer do not give."""
        more: dict[str, object] = {"pair": pair, "gradients": gradients}
        if len(self._parts):
            more["groups"] = [part.merged_statistics() for part in self._parts]
        if self._takes_foreign:
            foreign = unpack(self._foreign_shapes, self.foreign)
            more["foreign"] = foreign if foreign.samples > 0 else None
        for prefix, rows in (("", "row_values"), (FOREIGN, "foreign_values")):
            if self._plan.row_values:
                found = getattr(self, rows)
                found = torch.cat(found) if isinstance(found, list) else found
                found = found.view(-1, len(self._plan.row_values))
                names = [f"{prefix}{it.name}" for it in self._plan.row_values]
                more |= dict(zip(names, found.unbind(-1), strict=True))
        if more.get("foreign") is None:
            more = {name: value for name, value in more.items() if not name.startswith(FOREIGN)}
        return more
