"""The second look at the rows of a split: what they come to once class means are known."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from pipeline.measure.extraction import Block, Place
from pipeline.measure.looks import Key, Part
from pipeline.metrics import ClassStatistics
from pipeline.metrics.engine.inputs import Inputs
from pipeline.metrics.engine.plan import Plan
from pipeline.metrics.engine.rows import Aim
from pipeline.networks.rows import Rows
from pipeline.runtime import ranks
from pipeline.runtime.devices import moved

Value, Result = TypeVar("Value"), TypeVar("Result")
Decide = Callable[[Tensor], Tensor]
"""Features (n, d) to outputs (n, K), whose largest entry is the network's decision."""


class Entering(NamedTuple):
    """The weight (out, d) that the rows of a place enter as they are, the one after it if that is known, and whether
    that is the last one and nothing stands between the two."""

    weight: Tensor | None
    following: Tensor | None = None
    ends: bool = False


Entered = Mapping[Place, Entering]


def shared(places: dict[Key, Value], work: Callable[[Key, Value], Result]) -> dict[Key, Result]:
    """``work`` of every place, each done by one rank: many wide places mean as many large SVDs."""
    own = ranks.share(len(places))
    found = [(place, work(place, value)) for place, value in list(places.items())[own.start : own.stop]]
    return dict(pair for pairs in ranks.gather(found) for pair in pairs)


@dataclass(frozen=True)
class Known:
    """What the second look takes besides the rows, by key: their statistics, the training split's, and aims."""

    own: dict[Key, ClassStatistics]
    reference: dict[Key, ClassStatistics]
    aims: dict[Key, Aim]


class SecondLook:
    """What rows come to once class means are known, place by place: the sums over rows that the plan's metrics take,
    and the numbers of each row.

    Statistics are given on the CPU, where the aims are taken from them; what the look needs of both is moved once to
    the `device` of the rows, and what it comes to is brought back at once.

    Attributes:
        there: what was moved.
    """

    def __init__(
        self,
        plan: Plan,
        own: dict[Key, ClassStatistics],
        reference: dict[Key, ClassStatistics],
        decide: Decide | None,
        entered: Entered | None = None,
        parts: Sequence[Part] | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.plan, self._own, self._reference, self._entered = plan, own, reference, entered or {}
        self._parts = parts or [Part()]
        self._decide = decide if plan.needs_decisions else None
        aims = shared(own, lambda key, statistics: self._plan_of(key).aim(statistics, reference.get(key)))
        self.there = moved(Known(own, reference, aims), device)
        self._judged: dict[Key, int | Tensor] = dict.fromkeys(own, 0)
        self._sums = {
            key: part.counts.new_zeros(self._plan_of(key).size_of_sums(*part.means.shape))
            for key, part in self.there.own.items()
        }
        self._values: dict[Key, list[dict[str, Tensor]]] = {key: [] for key in own if len(key) == 2}

    def _plan_of(self, key: Key) -> Plan:
        return self.plan if len(key) == 2 else self.plan.of_parts

    def add(self, block: Block) -> None:
        """Judge the images of a block."""
        decisions = None if self._decide is None else self._decide(block.features).argmax(dim=-1)
        for place, rows in block.rows.items():
            for part in self._parts:
                self._add(block, place, rows, part, decisions)

    def _add(self, block: Block, place: Place, rows: Rows, part: Part, decisions: Tensor | None) -> None:
        (rows, labels, keep), key = part.of(block, rows), part.key(place)
        decided = None if decisions is None else rows.of(decisions if keep is None else decisions[keep])
        own_labels = rows.of(labels)
        values = rows.values
        if not part.is_labelled(block) and not bool((counting := own_labels >= 0).all()):
            values, own_labels = values[counting], own_labels[counting]
            decided = None if decided is None else decided[counting]
        plan, aim = self._plan_of(key), self.there.aims[key]
        self._judged[key] = self._judged[key] + aim.judged(own_labels)
        own = replace(self.there.own[key], source=(values, own_labels))
        reference = self.there.reference.get(key, self.there.own[key])
        self._sums[key] = self._sums[key] + plan.second_look(own, reference, aim, decided)
        if key in self._values and plan.row_values:
            self._values[key].append(plan.values_of_rows(own, reference, aim))

    def join_ranks(self) -> None:
        """Add what the other ranks have found."""
        values = {key: [joined_values(found, self.plan)] for key, found in self._values.items()}
        self._values, self._sums, self._judged = moved((values, self._sums, self._judged), "cpu")
        self._judged = {key: int(judged) for key, judged in self._judged.items()}
        if ranks.world_size() == 1:
            return
        keys = sorted(self._sums)
        pieces = [torch.cat([self._sums[key], self._sums[key].new_tensor([self._judged[key]])]) for key in keys]
        if keys:
            added = ranks.total(torch.cat(pieces)).split([len(piece) for piece in pieces])
            self._sums |= {key: piece[:-1] for key, piece in zip(keys, added, strict=True)}
            self._judged |= {key: int(piece[-1]) for key, piece in zip(keys, added, strict=True)}
        if self.plan.row_values:
            self._values = {key: [own] for key, own in to_owners({k: v for k, (v,) in self._values.items()}).items()}

    def evaluate(self, key: Key, more: Mapping[str, object] | None = None) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Values of the metrics of a place, and reasons for those that are not finite."""
        own, plan, entering = self._own[key], self._plan_of(key), Entering(*self._entered.get(key[:2], (None,)))
        (values,) = self._values.get(key, [{}])
        inputs = Inputs(
            own,
            self._reference.get(key),
            entering.weight,
            entering.following,
            sums=plan.sums_of(self._sums[key], *own.means.shape),
            judged=self._judged[key],
            settings=plan.settings,
            more={**({} if entering.ends else {"last_weight": None}), **(more or {}), **values},
        )
        return plan.evaluate(inputs)


def joined_values(found: Sequence[Mapping[str, Tensor]], plan: Plan, prefix: str = "") -> dict[str, Tensor]:
    """Numbers of rows, of several blocks; of none where there is no block."""
    names = [f"{prefix}{it.name}" for it in plan.row_values]
    nothing = torch.zeros(0, dtype=torch.float64)
    return {name: torch.cat([own[name] for own in found]) if found else nothing for name in names}


def to_owners(values: dict[Key, dict[str, Tensor]]) -> dict[Key, dict[str, Tensor]]:
    """Numbers of the rows of all ranks `(N,)`, by place, of the places whose formulas this rank works out (`shared`);
    of all others none.

    There is no sum of them (a formula may want their order), so they travel, but only to where they are needed.
    """
    owned = [
        (ranks.owner(at, len(values)), torch.stack(list(own.values()), -1) if own else torch.zeros(0, 0))
        for at, own in enumerate(values.values())
    ]
    found = zip(values.items(), ranks.rows_to_owners(owned), strict=True)
    return {key: {} if rows is None else dict(zip(own, rows.unbind(-1), strict=True)) for (key, own), rows in found}
