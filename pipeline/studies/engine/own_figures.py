"""Figures of a study of the user's own."""

from collections.abc import Iterator, Mapping, Sequence
from math import isfinite
from typing import Any

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from pipeline.storage.summary import HEAD
from pipeline.studies.engine.drawing import plot_seeds
from pipeline.studies.engine.own_file import Spec
from pipeline.studies.engine.own_tables import SEED, Points, last_values
from pipeline.studies.engine.results import Result
from pipeline.views.figures import STYLE, TITLES, layer_colors, plain_ticks, plot_over_steps, plot_profile

FIGURES = ("last_layer", "training", "layers")
ROWS = 8
"""Settings in one figure; more have more figures."""


def draw(spec: Spec, points: Points) -> dict[str, Figure]:
    """Those asked for, by file name; a figure that nothing is to be seen in is left out."""
    wanted = FIGURES if spec.figures is None else spec.figures
    figures: dict[str, Figure] = {}
    with matplotlib.rc_context(STYLE):
        if "last_layer" in wanted and any(_varying(points)):
            figures[f"{spec.name}_last_layer"] = last_layer(points)
        for name, plot in (("training", _training_row), ("layers", _profile_row)):
            if name in wanted:
                figures |= {f"{spec.name}_{name}{part}": figure for part, figure in _in_rows(points, plot)}
    return figures


def last_layer(points: Points) -> Figure:
    """DNC1-3 of the last layer at the end against every axis: each seed a dot, the median a line (of numbers)."""
    axes_of_study = list(_varying(points))
    figure = Figure(figsize=(2.8 * len(axes_of_study) + 0.6, 6.6), layout="constrained")
    grid = figure.subplots(3, len(axes_of_study), squeeze=False, sharey="row")
    for axis, column in zip(axes_of_study, grid.T, strict=True):
        labels = list(dict.fromkeys(points.at(result)[axis] for result in points.results))
        numbers = [_number(label) for label in labels]
        numeric = None not in numbers
        order = sorted(range(len(labels)), key=lambda place: numbers[place] if numeric else place)
        for metric, panel in zip(TITLES, column, strict=False):
            own = [[r for r in points.results if points.at(r)[axis] == labels[place]] for place in order]
            seeds = [[value for result in group for value in last_values(result, metric)] for group in own]
            _dots(panel, seeds, joined=numeric)
            short = [labels[place] if len(labels[place]) <= 18 else f"{labels[place][:16]}.." for place in order]
            panel.set_xticks(range(len(order)), short, rotation=0 if max(map(len, short)) <= 6 else 30)
            panel.set_xlim(-0.5, len(order) - 0.5)
        column[-1].set_xlabel(axis)
    for metric, panel in zip(TITLES, grid[:, 0], strict=False):
        panel.set_ylabel(metric.upper(), fontweight="bold")
    figure.suptitle("Last layer at the end")
    return figure


def _dots(axes: Axes, values: Sequence[Sequence[float]], *, joined: bool) -> None:
    """Each seed a dot at the place of its group; medians joined by a line."""
    if joined:
        plot_seeds(axes, range(len(values)), values)
    else:
        style = {"color": "tab:blue", "markersize": 3.5, "alpha": 0.5, "markeredgewidth": 0}
        for place, seeds in enumerate(values):
            axes.plot([place] * len(seeds), seeds, "o", **style)
    if any(isfinite(value) and value > 0 for seeds in values for value in seeds):
        axes.set_yscale("log")
        plain_ticks(axes)


def _varying(points: Points) -> Iterator[str]:
    """Axes other than the seed that have several values."""
    chosen = [points.at(result) for result in points.results]
    for axis in chosen[0] if chosen else ():
        if axis != SEED and len({at[axis] for at in chosen}) > 1:
            yield axis


def _number(label: str) -> float | None:
    try:
        return float(label)
    except ValueError:
        return None


def _in_rows(points: Points, plot: Any) -> Iterator[tuple[str, Figure]]:
    """Figures with a row for each setting, and what follows their name."""
    settings = [(name, own) for name, runs in points.groups().items() if (own := [r for r in runs if _drawable(r)])]
    pages = [settings[start : start + ROWS] for start in range(0, len(settings), ROWS)]
    for number, page in enumerate(pages, start=1):
        figure = Figure(figsize=(9, 2.3 * len(page) + 0.5), layout="constrained")
        grid = figure.subplots(len(page), 3, squeeze=False)
        frames = [_record(own) for _, own in page]
        colors = _colors(frames)
        for (name, own), frame, line in zip(page, frames, grid, strict=True):
            for metric, axes in zip(TITLES, line, strict=False):
                plot(frame, metric, axes, own, colors)
            line[0].set_ylabel(name.replace(", ", "\n"), fontweight="bold")
        if plot is _training_row:
            lines = [Line2D([], [], color=color, label=f"layer {layer}") for layer, color in colors.items()]
            lines.append(Line2D([], [], color="grey", linestyle=(0, (4, 2)), label="before the activation"))
            figure.legend(handles=lines, loc="outside lower center", ncols=6)
        yield "" if len(pages) == 1 else f"_{number}", figure


def _drawable(result: Result) -> bool:
    return result.completed and bool(result.record.metric.isin(list(TITLES)).any())


def _record(results: Sequence[Result]) -> pd.DataFrame:
    """The records of runs that differ in their seeds, as one; what led to a fixed head left out."""
    frame = pd.concat([result.record for result in results])
    return frame[frame.stage != "dufm"]


def _stage(frame: pd.DataFrame) -> str:
    return HEAD if HEAD in set(frame.stage) else frame.stage.iloc[0]


def _colors(frames: Sequence[pd.DataFrame]) -> dict[str, Any]:
    """One colour for each layer of the stages that are drawn, the same in all rows."""
    named = [frame[(frame.stage == _stage(frame)) & (frame.layer != "")].layer for frame in frames]
    longest_first = sorted((list(dict.fromkeys(layers)) for layers in named), key=len, reverse=True)
    return layer_colors(list(dict.fromkeys(layer for layers in longest_first for layer in layers)))


def _training_row(
    frame: pd.DataFrame, metric: str, axes: Any, results: Sequence[Result], colors: Mapping[str, Any]
) -> None:
    units, stage = results[0].summary.get("step_units") or {}, _stage(frame)
    steps = frame[(frame.metric == metric) & (frame.stage == stage) & (frame.step > 0)].step.nunique()
    if steps > 1:
        plot_over_steps(frame, metric, axes, stage, colors, units.get(stage))
    else:
        axes.axis("off")
        axes.text(0.5, 0.5, "measured once" if steps else "not measured", ha="center", transform=axes.transAxes)


def _profile_row(
    frame: pd.DataFrame, metric: str, axes: Any, results: Sequence[Result], colors: Mapping[str, Any]
) -> None:
    if (frame.metric == metric).any():
        plot_profile(frame, metric, axes, getattr(results[0].config.verdict, metric, None))
    else:
        axes.axis("off")
