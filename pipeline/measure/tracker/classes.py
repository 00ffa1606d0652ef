"""Values of each class in a tracker: among all others where classes are few, and always as a table."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import Tensor

from pipeline.metrics.registry import CLASS, FEW_CLASSES, TEST
from pipeline.storage.classes import LEFT_OUT

if TYPE_CHECKING:
    import pandas as pd

    from pipeline.networks.taps import Place

OfClasses = tuple[dict[str, Tensor], dict[str, str]]
"""Values `(K,)` as "cos_intra/class=", and reasons as "cos_intra/class=3"."""


def of_few_classes(values: Mapping[str, Tensor], reasons: Mapping[str, str]) -> tuple[dict[str, float], dict[str, str]]:
    """The values one by one, as "cos_intra/class=3", and reasons; none of more than `FEW_CLASSES` classes."""
    if len(next(iter(values.values()))) > FEW_CLASSES:
        return {}, {}
    found = {f"{name}{number}": it for name, own in values.items() for number, it in enumerate(own.tolist())}
    return found, {name: reasons.get(name, LEFT_OUT) for name, value in found.items() if not math.isfinite(value)}


def of_test(found: Mapping[Place, OfClasses]) -> dict[Place, OfClasses]:
    """Under the names of the test split."""
    return {
        place: tuple({f"{TEST}{name}": it for name, it in own.items()} for own in both) for place, both in found.items()
    }


def merged(first: Mapping[Place, OfClasses], second: Mapping[Place, OfClasses]) -> dict[Place, OfClasses]:
    """The values of both splits, place by place."""
    nothing: OfClasses = ({}, {})
    both = {place: (first.get(place, nothing), second.get(place, nothing)) for place in {**first, **second}}
    return {place: (one[0] | other[0], one[1] | other[1]) for place, (one, other) in both.items()}


def table(step: int, found: Mapping[Place, OfClasses]) -> pd.DataFrame:
    """A row for each class at each place: step, layer, tap, class, a column for each value."""
    import pandas as pd

    parts = []
    for (layer, tap), (values, _) in found.items():
        columns = {name.removesuffix(CLASS): own.tolist() for name, own in values.items()}
        number = range(len(next(iter(columns.values()))))
        parts.append(pd.DataFrame({"step": step, "layer": layer, "tap": tap, "class": number, **columns}))
    if not parts:
        return pd.DataFrame(columns=["step", "layer", "tap", "class"])
    found = pd.concat(parts, ignore_index=True)
    return found[sorted(found.columns, key=lambda name: name.startswith(TEST))]
