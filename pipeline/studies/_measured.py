"""What the studies of measured networks share: values and curves of a place, a table of both ends."""

from collections.abc import Callable, Sequence
from math import nan
from typing import TYPE_CHECKING, Any

import pandas as pd

from pipeline.studies.engine.results import Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GROUP = "measures"
CLASSIFIER = ("classifier", "pre")
"""The place of the features that enter the classifier."""
COMMON = ("record.figures=false",)
"""What every quick run changes."""
Place = tuple[str, str]


def curve(result: Result, place: Place | None, metric: str) -> pd.Series:
    """A metric of a place, or with None of the whole network, by epoch; empty where it was not measured."""
    rows = result.rows_of.get((*(place or ("", "")), metric))
    if rows is None:
        return pd.Series(dtype=float)
    # Some thousand curves of a study: to select rows of a frame for each takes ten times as long.
    values = pd.Series(result.record.value.to_numpy()[rows], index=result.record.step.to_numpy()[rows], name="value")
    return values.rename_axis("step").sort_index()


def end(result: Result, place: Place | None, metric: str) -> float:
    """The last value of a metric; NaN where there is none."""
    values = curve(result, place, metric)
    return float(values.iloc[-1]) if len(values) else nan


def start(result: Result, place: Place | None, metric: str) -> float:
    """The first value of a metric, before training; NaN where there is none."""
    values = curve(result, place, metric)
    return float(values.iloc[0]) if len(values) else nan


def places(result: Result, tap: str = "post") -> list[Place]:
    """The places of the network with this tap, in the order of data flow."""
    record = result.record
    layers = record[record.tap == tap].layer.dropna().unique()
    return [(layer, tap) for layer in layers if layer != CLASSIFIER[0]]


def by_data(results: Sequence[Result]) -> dict[str, list[Result]]:
    """The runs on each data set, by its name."""
    names = dict.fromkeys(result.config.data.name for result in results)
    return {name: [result for result in results if result.config.data.name == name] for name in names}


def figures(study: str, results: Sequence[Result], draw: "Callable[[list[Result]], Figure]") -> "dict[str, Figure]":
    """A figure for each data set, by file name; named after the study alone where there is one."""
    found = by_data(results)
    return {study if len(found) == 1 else f"{study}_{data}": draw(own) for data, own in found.items()}


def drawn(axes: "Axes", values: pd.Series, **look: Any) -> None:
    """A curve over whole epochs, on an axis that shows epoch 0 as well; nothing where nothing was measured."""
    if len(values):
        axes.plot(values.index, values.values, **look)
    axes.set_xlabel("epoch")
    axes.xaxis.get_major_locator().set_params(integer=True)


def short(place: Place) -> str:
    """What a place is called in a figure: its block, ``hidden1`` or ``layer1.2``."""
    return place[0].removeprefix("network.")


def numbers(values: Sequence[float]) -> str:
    """``0.63, 0.65``."""
    return ", ".join(f"{value:.3g}" for value in values)


def tables(study: str, *metrics: str) -> Callable[[Sequence[Result]], dict[str, pd.DataFrame]]:
    """What makes the table of a study, by file name: first and last values of these metrics at every place."""

    def table(results: Sequence[Result]) -> dict[str, pd.DataFrame]:
        rows = []
        for result in results:
            for place in [None, *places(result, "pre"), *places(result), CLASSIFIER]:
                for metric in metrics:
                    values = curve(result, place, metric)
                    if len(values):
                        layer, tap = place or ("", "")
                        where = {"point": result.point.name, "seed": result.config.seed, "layer": layer, "tap": tap}
                        ends = {"first": values.iloc[0], "last": values.iloc[-1], "epochs": values.index[-1]}
                        rows.append(where | {"metric": metric} | ends)
        return {study: pd.DataFrame(rows)}

    return table
