"""Figures of a study of the user's own."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from math import isfinite
from typing import TYPE_CHECKING, Any

import pandas as pd

from pipeline.storage.summary import HEAD
from pipeline.studies.engine.own_file import Spec
from pipeline.studies.engine.own_tables import SEED, Points, last_values
from pipeline.studies.engine.results import Result
from pipeline.views import marks, style
from pipeline.views.figures import PANELS, layer_colors, plot_over_steps, plot_profile
from pipeline.views.legends import end_handles, tap_handles
from pipeline.views.sheet import Sheet

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FIGURES = ("last_layer", "training", "layers")
MOST = 6
"""Settings in one figure; more have more figures."""

Plot = Callable[[Sheet, "Axes", pd.DataFrame, str, Sequence[Result], Mapping[str, Any]], None]


def draw(spec: Spec, points: Points) -> "dict[str, Figure]":
    """Those asked for, by file name; a figure that nothing is to be seen in is left out."""
    wanted = FIGURES if spec.figures is None else spec.figures
    figures: dict[str, Figure] = {}
    if "last_layer" in wanted and any(_varying(points)):
        figures[f"{spec.name}_last_layer"] = last_layer(points)
    for name, plot in (("training", _training), ("layers", _profile)):
        if name in wanted:
            figures |= {f"{spec.name}_{name}{part}": figure for part, figure in _by_setting(points, plot)}
    return figures


def last_layer(points: Points) -> "Figure":
    """DNC1-3 of the last layer at the end against every axis: each seed a dot, the median a line (of numbers)."""
    axes_of_study = list(_varying(points))
    with Sheet(len(PANELS), len(axes_of_study), title="Last layer at the end", alike=True, same_x=True) as sheet:
        for place, axis in enumerate(axes_of_study):
            labels = list(dict.fromkeys(points.at(result)[axis] for result in points.results))
            numbers = [_number(label) for label in labels]
            numeric = None not in numbers
            order = sorted(range(len(labels)), key=lambda place: numbers[place] if numeric else place)
            for metric, panel in zip(PANELS, sheet.column(place), strict=True):
                own = [[r for r in points.results if points.at(r)[axis] == labels[place]] for place in order]
                seeds = [[value for result in group for value in last_values(result, metric)] for group in own]
                marks.seeds(panel, range(len(seeds)), seeds, joined=numeric)
                if any(isfinite(value) and value > 0 for group in seeds for value in group):
                    panel.set_yscale("log")
                short = [labels[place] if len(labels[place]) <= 18 else f"{labels[place][:16]}.." for place in order]
                marks.named(panel, short)
                panel.set(ylabel=metric.upper(), xlabel=axis)
        sheet.legend([marks.dot("seed", style.BLUE), marks.line("median", style.BLUE)])
    return sheet.figure


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


def _by_setting(points: Points, plot: Plot) -> "Iterator[tuple[str, Figure]]":
    """Figures with a column for each setting, and what follows their name."""
    settings = [(name, own) for name, runs in points.groups().items() if (own := [r for r in runs if _drawable(r)])]
    pages = [settings[start : start + MOST] for start in range(0, len(settings), MOST)]
    for number, page in enumerate(pages, start=1):
        frames = [_record(own) for _, own in page]
        colors, rows = _colors(frames), len(PANELS)
        with Sheet(rows, len(page), title=f"{number} of {len(pages)}" * (len(pages) > 1), alike=True) as sheet:
            for place, ((name, own), frame) in enumerate(zip(page, frames, strict=True)):
                for metric, axes in zip(PANELS, sheet.column(place), strict=True):
                    plot(sheet, axes, frame, metric, own, colors)
                sheet.tag(sheet[0, place], name)
            if plot is _training:
                sheet.legend([marks.line(f"layer {layer}", color) for layer, color in colors.items()])
                sheet.legend(tap_handles({"pre", "post"}))
            else:
                sheet.legend(end_handles({"pre", "post"}, test=True, threshold=True))
        yield "" if len(pages) == 1 else f"_{number}", sheet.figure


def _drawable(result: Result) -> bool:
    return result.completed and bool(result.record.metric.isin(PANELS).any())


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


def _training(
    sheet: Sheet,
    axes: "Axes",
    frame: pd.DataFrame,
    metric: str,
    results: Sequence[Result],
    colors: Mapping[str, Any],
) -> None:
    units, stage = results[0].summary.get("step_units") or {}, _stage(frame)
    steps = frame[(frame.metric == metric) & (frame.stage == stage) & (frame.step > 0)].step.nunique()
    axes.set(yscale="log", ylabel=metric.upper())
    if steps > 1:
        plot_over_steps(frame, metric, axes, stage, colors, units.get(stage))
    else:
        sheet.note(axes, "measured once" if steps else "not measured")


def _profile(
    sheet: Sheet,
    axes: "Axes",
    frame: pd.DataFrame,
    metric: str,
    results: Sequence[Result],
    colors: Mapping[str, Any],
) -> None:
    axes.set(yscale="log", ylabel=metric.upper())
    if (frame.metric == metric).any():
        plot_profile(frame, metric, axes, getattr(results[0].config.verdict, metric, None))
    else:
        sheet.note(axes, "not measured")
