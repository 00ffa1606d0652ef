"""From the record's table to lines: the median over seeds and its spread, per place and step or at the end."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from pipeline.views.shown import Names


@dataclass(frozen=True)
class Line:
    """A metric of one place over the steps: the median over seeds, between the smallest and the largest.

    ``layer`` and ``tap`` are empty for numbers of the whole network.
    """

    layer: str
    tap: str
    steps: list[int]
    middle: list[float]
    low: list[float]
    high: list[float]

    @property
    def spread(self) -> bool:
        """Whether the seeds differ anywhere."""
        return self.low != self.high


def lines(frame: pd.DataFrame, stage: str, metric: str, *, logarithmic: bool = True) -> Iterator[Line]:
    """One line per place that has the metric; of steps, and of values unless their axis is linear, those above zero."""
    rows = frame[(frame.stage == stage) & (frame.metric == metric) & (frame.step > 0)]
    rows = rows[np.isfinite(rows.value)]
    if logarithmic:
        rows = rows[rows.value > 0]
    for (layer, tap), group in rows.groupby(["layer", "tap"], sort=False):
        if group.step.is_unique:  # one seed: a report of a sweep is mostly these
            found = group.sort_values("step")
            steps, numbers = found.step, [[_rounded(value) for value in found.value]] * 3
        else:
            found = group.groupby("step").value.agg(["median", "min", "max"])
            steps, numbers = found.index, [[_rounded(value) for value in found[name]] for name in found]
        yield Line(str(layer), str(tap), [int(step) for step in steps], *numbers)


@dataclass(frozen=True)
class Place:
    """The last measurement of a metric at one place; numbers are None where no seed's value is defined."""

    stage: str
    layer: str
    tap: str
    name: str
    middle: float | None
    low: float | None
    high: float | None


def final(frame: pd.DataFrame, metric: str, names: Names) -> list[Place]:
    """The metric at the last step of its stage, for every place of ``names`` that has it, in their order of stages."""
    last = frame[frame.step == frame.groupby("stage").step.transform("max")]
    rows = last[(last.metric == metric) & (last.layer != "")]
    places = []
    for (stage, layer, tap), group in rows.groupby(["stage", "layer", "tap"], sort=False):
        if (stage, layer) not in names:
            continue
        known = group.value[np.isfinite(group.value)]
        numbers = [None] * 3 if known.empty else [float(known.median()), float(known.min()), float(known.max())]
        places.append(Place(str(stage), str(layer), str(tap), names[stage, layer], *numbers))
    order = list(names)
    return sorted(places, key=lambda place: order.index((place.stage, place.layer)))


def _rounded(value: float) -> float:
    """Six digits are more than a screen shows, and take a third of the space."""
    return float(f"{value:.6g}")
