"""The look at rows of foreign data, which are held against the training split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from pipeline.measure.extraction import Block, Place
from pipeline.measure.joining import joined
from pipeline.measure.second_look import SecondLook, joined_values, to_owners
from pipeline.metrics import ClassStatistics
from pipeline.metrics.engine.plan import Plan
from pipeline.metrics.registry import FOREIGN
from pipeline.runtime.devices import moved


class ForeignLook:
    """Rows of foreign data held against the training split, place by place."""

    def __init__(self, plan: Plan, places: Sequence[Place], look: SecondLook) -> None:
        self._plan, self._places, self._look = plan, places, look
        self._statistics: dict[Place, ClassStatistics] = {}
        self._values: dict[Place, list[dict[str, Tensor]]] = {}

    def add(self, block: Block) -> None:
        """Look at a block."""
        for place, rows in block.rows.items():
            reference = self._look.there.own[place]
            nobody = torch.zeros(len(rows.values), dtype=torch.int64, device=rows.values.device)
            new = ClassStatistics.from_features(rows.values, nobody, 1)
            known = self._statistics.get(place)
            self._statistics[place] = replace(
                new if known is None else ClassStatistics.merged([known, new]), source=None
            )
            found = self._plan.foreign_values(new, reference, self._look.there.aims[place])
            self._values.setdefault(place, []).append(found)

    def inputs(self, place: Place) -> dict[str, object]:
        """What formulas take of foreign rows at a place; `join_ranks` comes first."""
        return {"foreign": self._statistics[place], **self._values[place][0]}

    def join_ranks(self) -> None:
        """Bring together what all ranks have found."""
        statistics, values = moved((self._statistics, self._values), "cpu")
        found = joined(statistics)
        self._statistics = {place: found[place] for place in self._places}
        own = {place: joined_values(values.get(place, []), self._plan, FOREIGN) for place in self._places}
        self._values = {place: [of_place] for place, of_place in to_owners(own).items()}
