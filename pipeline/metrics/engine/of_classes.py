"""What there is of every class, worked out beside the metrics of all of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pipeline.metrics.engine.undefined import OVERFLOW
from pipeline.metrics.registry import CLASS

if TYPE_CHECKING:
    from pipeline.metrics.engine.inputs import Inputs
    from pipeline.metrics.registry import ClassValue

Found = tuple[dict[str, Tensor], dict[str, str]]
"""Values, and why some of them are not finite."""
SAMPLES = f"samples{CLASS}"
"""How many rows each class has, those that are left out included."""


def values_of_classes(chosen: Iterable[ClassValue], at: Inputs) -> Found:
    """The values that can be had of these inputs as `NAME/class=`, float64 `(..., K)` each, with `SAMPLES` first; NaN
    for classes left out. Reasons, as `NAME/class=3`, are of the classes that count."""
    values, reasons = {}, {}
    for own in chosen:
        if not at.offers(own.takes):
            continue
        arguments = at.arguments(own)
        found = own.formula(*arguments).to(torch.float64)
        found = found.expand(*found.shape[:-1], len(at.counting))  # of nothing but a reason it is one number
        values[f"{own.name}{CLASS}"] = at.of_all_classes(found)
        if not bool(found.isfinite().all()):
            reasons |= _reasons(own, found, arguments, at.counting.tolist())
    if not values:
        return {}, {}
    like = next(iter(values.values()))
    return {SAMPLES: at.counts.to(like).expand(like.shape).clone()} | values, reasons


def _reasons(own: ClassValue, found: Tensor, arguments: list, counting: list[int]) -> dict[str, str]:
    """The first case that holds of each class, in any member."""
    told, missing = {}, ~found.isfinite()
    for case in (*own.formula.cases, OVERFLOW):
        concerned = missing & case.holds(*arguments)
        missing = missing & ~concerned
        for at in concerned.reshape(-1, found.shape[-1]).any(0).nonzero().flatten().tolist():
            told.setdefault(f"{own.name}{CLASS}{counting[at]}", case.reason)
    return told
