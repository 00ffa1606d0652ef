"""Figures of a study of the user's own."""

from collections.abc import Iterator, Sequence
from math import isfinite
from typing import Any

import matplotlib
import pandas as pd
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
            if numeric:
                plot_seeds(panel, range(len(order)), seeds)
            else:
                for place, values in enumerate(seeds):
                    panel.plot([place] * len(values), values, "o", color="tab:blue", markersize=3.5, alpha=0.5)
            if any(isfinite(value) and value > 0 for values in seeds for value in values):
                panel.set_yscale("log")
                plain_ticks(panel)
            short = [labels[place] if len(labels[place]) <= 18 else f"{labels[place][:16]}.." for place in order]
            panel.set_xticks(range(len(order)), short, rotation=0 if max(map(len, short)) <= 6 else 30)
            panel.set_xlim(-0.5, len(order) - 0.5)
        column[-1].set_xlabel(axis)
    for metric, panel in zip(TITLES, grid[:, 0], strict=False):
        panel.set_ylabel(metric.upper(), fontweight="bold")
    figure.suptitle("Last layer at the end")
    return figure


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
        for (name, own), line in zip(page, grid, strict=True):
            frame = pd.concat([result.record for result in own])
            for metric, axes in zip(TITLES, line, strict=False):
                plot(frame[frame.stage != "dufm"], metric, axes, own)
            line[0].set_ylabel(name.replace(", ", "\n"), fontweight="bold")
        if plot is _training_row:
            deepest = max((pd.concat([r.record for r in own]) for _, own in page), key=lambda each: len(_colors(each)))
            lines = [Line2D([], [], color=color, label=f"layer {name}") for name, color in _colors(deepest).items()]
            lines.append(Line2D([], [], color="grey", linestyle=(0, (4, 2)), label="before the activation"))
            figure.legend(handles=lines, loc="outside lower center", ncols=6)
        yield "" if len(pages) == 1 else f"_{number}", figure


def _drawable(result: Result) -> bool:
    return result.completed and bool(result.record.metric.isin(list(TITLES)).any())


def _training_row(frame: pd.DataFrame, metric: str, axes: Any, results: Sequence[Result]) -> None:
    units, stage = results[0].summary.get("step_units") or {}, _stage(frame)
    steps = frame[(frame.metric == metric) & (frame.stage == stage) & (frame.step > 0)].step.nunique()
    if steps > 1:
        plot_over_steps(frame, metric, axes, stage, _colors(frame), units.get(stage))
    else:
        axes.axis("off")
        axes.text(0.5, 0.5, "measured once" if steps else "not measured", ha="center", transform=axes.transAxes)


def _stage(frame: pd.DataFrame) -> str:
    return HEAD if HEAD in set(frame.stage) else frame.stage.iloc[0]


def _colors(frame: pd.DataFrame) -> dict[str, Any]:
    return layer_colors(list(dict.fromkeys(frame[(frame.stage == _stage(frame)) & (frame.layer != "")].layer)))


def _profile_row(frame: pd.DataFrame, metric: str, axes: Any, results: Sequence[Result]) -> None:
    if (frame.metric == metric).any():
        plot_profile(frame, metric, axes, getattr(results[0].config.verdict, metric, None))
    else:
        axes.axis("off")
