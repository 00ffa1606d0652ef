"""Values of each class beside a family's metrics: rows of the record for a few classes, a table for many.

    @class_value("cos_intra", *OF_ALL, of_class=(NO_DIRECTION,), title="Mean cosine within the class")
    def intra_of_classes(unit: ClassStatistics) -> Tensor:
        return unit.means.square().sum(-1)  # (..., K)

It takes what metrics of its family take, and is measured where the family is asked for; nothing more is accumulated.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace

from pipeline.metrics.engine.undefined import Exceptional, Formula, except_when
from pipeline.metrics.registry.classes import CLASS
from pipeline.metrics.registry.entries import Metric, add, parameters_of

CLASS_VALUES: dict[str, ClassValue] = {}
"""What the families imported so far have registered, by name."""


@dataclass(frozen=True)
class ClassValue(Metric):
    """A value of each class: its formula gives `(..., K)`, and its name may be that of the metric of all of them."""


def class_value(
    name: str,
    *undefined: Exceptional,
    title: str,
    of_class: tuple[Exceptional, ...] = (),
    target: float | None = None,
    scale: str = "linear",
    version: int = 1,
) -> Callable[[Formula], Formula]:
    """Register a formula as a value of each class under a name.

    Args:
        undefined: in which cases no class has a value, `(...)`.
        of_class: in which cases a class has none, `(..., K)`.

    Raises:
        ValueError: for a name that is taken.
    """

    def register(formula: Formula) -> Formula:
        cases = [replace(case, holds=lambda *a, holds=case.holds: holds(*a)[..., None]) for case in undefined]
        guarded = except_when(*cases, *of_class)(formula)
        family, takes = formula.__module__.rpartition(".")[2], parameters_of(formula)
        summary = (inspect.getdoc(formula) or "").partition("\n\n")[0].replace("\n", " ")
        own = ClassValue(name, title, target, scale, False, (), version, family, guarded, takes, summary)
        add(CLASS_VALUES, own, formula, f"{name}{CLASS}")
        return guarded

    return register
