"""When a metric has no finite value, and why: NaN (or infinity) always comes with a reason in words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps

import torch
from torch import Tensor

Formula = Callable[..., Tensor]


@dataclass(frozen=True)
class Exceptional:
    """A case in which a formula has no value, or an infinite one.

    Attributes:
        reason: what is the matter, as one clause.
        holds: takes the formula's arguments, tells for which members `(...)` the case holds.
        value: what the metric is then.
    """

    reason: str
    holds: Callable[..., Tensor]
    value: float = float("nan")


OVERFLOW = Exceptional("the value leaves the range of float64", lambda *_: torch.tensor(True))


def except_when(*cases: Exceptional) -> Callable[[Formula], Formula]:
    """Give a formula the value of the first of `cases` that holds; `reason_of` tells which that was."""

    def decorate(formula: Formula) -> Formula:
        @wraps(formula)
        def guarded(*arguments: object) -> Tensor:
            value = formula(*arguments)
            for case in reversed(cases):
                value = torch.where(case.holds(*arguments), case.value, value)
            return value

        guarded.cases = cases
        return guarded

    return decorate


def reason_of(formula: Formula, *arguments: object) -> str | None:
    """Say why `formula` is not finite on `arguments`, naming the members concerned where there are several."""
    value = formula(*arguments)
    open_members = ~value.isfinite()
    clauses = []
    for case in (*formula.cases, OVERFLOW):
        concerned = open_members & case.holds(*arguments).to(value.device)
        open_members = open_members & ~concerned
        if concerned.any():
            members = ", ".join(",".join(map(str, index)) for index in concerned.nonzero().tolist())
            clauses.append(f"member {members}: {case.reason}" if value.ndim else case.reason)
    return "; ".join(clauses) or None
