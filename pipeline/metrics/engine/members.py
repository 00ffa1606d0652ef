"""Members measured one by one, where what is accumulated may leave out other rows of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pipeline.metrics.engine.pairing import PairStatistics
from pipeline.metrics.engine.statistics import ClassStatistics

if TYPE_CHECKING:
    from pipeline.metrics.engine.plan import Plan


def one_by_one(
    plan: Plan,
    statistics: ClassStatistics,
    reference: ClassStatistics | None,
    weight: Tensor | None,
    next_weight: Tensor | None,
    decisions: Tensor | None,
    more: Mapping[str, object] | None,
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Member by member: views may leave out other rows of each."""
    members = statistics.anchors.shape[:-2]
    found: list[dict[str, Tensor]] = []
    clauses: dict[str, dict[str, list[str]]] = {}
    for index in product(*map(range, members)):
        own = _with_views(plan, statistics.member(index))
        other = reference
        if reference is not None:
            other = _with_views(plan, reference.member(index))
        weights = (None if it is None else it[index] if it.ndim > 2 else it for it in (weight, next_weight))
        decided = decisions if decisions is None or decisions.ndim == 1 else decisions[index]
        values, reasons = plan.at_once(own, other, *weights, decided, _of_member(more or {}, index))
        found.append(values)
        for name, why in reasons.items():
            clauses.setdefault(name, {}).setdefault(why, []).append(",".join(map(str, index)))
    names = found[0] if found else ()
    values = {name: torch.stack([own[name] for own in found]) for name in names}
    values = {name: value.view(*members, *value.shape[1:]) for name, value in values.items()}
    told = {
        name: "; ".join(f"member {', '.join(which)}: {why}" for why, which in own.items())
        for name, own in clauses.items()
    }
    return values, told


def _with_views(plan: Plan, statistics: ClassStatistics) -> ClassStatistics:
    lacking = tuple(name for name in plan.views if name not in statistics.views)
    if not lacking or statistics.source is None:
        return statistics
    found = ClassStatistics.from_features(*statistics.source, statistics.num_classes, views=lacking)
    return replace(statistics, views={**statistics.views, **found.views})


def _of_member(more: Mapping[str, object], index: tuple[int, ...]) -> dict[str, object]:
    """Those of the other inputs that have members, of one."""

    def of_one(value: object) -> object:
        if isinstance(value, ClassStatistics | PairStatistics):
            return value.member(index)
        if isinstance(value, Tensor):
            return value[index] if value.ndim > 2 else value
        return [of_one(each) for each in value] if isinstance(value, list) else value

    return {name: of_one(value) for name, value in more.items()}
