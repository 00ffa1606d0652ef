"""Figures from a record: functions take a table of rows (see `pipeline.storage.record`) and draw on matplotlib axes.

matplotlib is loaded when something is drawn: it takes a second, and not every run has figures. How figures look is
decided by `pipeline.views.style`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from pipeline.runtime.files import atomic
from pipeline.storage.summary import HEAD, MetricDisplay, RunSummary, Stage, registered
from pipeline.views import legends, marks, style
from pipeline.views.legends import BESIDE, FILLED, SPLITS, has_target_line
from pipeline.views.sheet import Sheet
from pipeline.views.shown import (
    NO_SUMMARY,
    Names,
    drawable,
    families,
    layers,
    looks_logarithmic,
    panels,
    place_names,
    stages_at_the_end,
)
from pipeline.views.style import OPTIMUM, TEST, THRESHOLD, TRAIN

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SMALLEST_BAR = 1e-3
"""Relative: what seeds differ by less gets no bar."""


def __getattr__(name: str) -> tuple[str, ...]:
    """``PANELS``: the metrics that are drawn by default. On demand, because the registry loads PyTorch."""
    if name != "PANELS":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return tuple(name for name, metric in registered().items() if metric.panel)


def layer_colors(layers: Sequence[str]) -> dict[str, Any]:
    """One colour per layer, dark to bright with depth."""
    return dict(zip(layers, style.shades(len(layers)), strict=True))


def quantity(metric: MetricDisplay) -> str:
    """What a metric is called at an axis: all of its title on the screen, what stands before the colon in print."""
    title = metric.title.replace("_", " ") if metric.title == metric.name else metric.title
    return title if style.medium().titled else title.partition(":")[0]


def plot_over_steps(
    frame: pd.DataFrame,
    metric: str,
    axes: "Axes",
    stage: str = HEAD,
    colors: Mapping[str, Any] | None = None,
    unit: str | None = None,
    summary: RunSummary = NO_SUMMARY,
) -> "Axes":
    """One line per layer: the mean over seeds, shaded from the smallest to the largest seed.

    The mean is the geometric one on logarithmic axes. Solid lines are post-activation, dashed ones pre-activation (the
    only tap of layer 1). ``colors`` maps layers to colours, for figures that show heads of several depths. ``unit`` is
    what a step counts; by default what the summary says of the stage.
    """
    shown = summary.metric(metric)
    rows = frame[(frame.stage == stage) & (frame.layer != "") & (frame.step > 0)]
    colors = colors or layer_colors(layers(rows[rows.metric == metric], stage))
    for (layer, tap), group in rows[drawable(rows, shown)].groupby(["layer", "tap"], sort=False):
        dashes = style.LINES[0] if tap == "post" else style.LINES[1]
        marks.spread(group, axes, logarithmic=shown.logarithmic, color=colors[layer], linestyle=dashes)
    axes.set(xscale="log", yscale=shown.scale, ylabel=quantity(shown), xlabel=unit or summary.stage(stage).unit)
    if has_target_line(shown):
        axes.axhline(shown.target, **OPTIMUM)
    return axes


def plot_loss(
    frame: pd.DataFrame, optimum: float | None, axes: "Axes", unit: str = style.STEPS, stage: str = HEAD
) -> "Axes":
    """Total loss over steps, one thin line per seed, and the closed-form value where there is one.

    Of a stage that has a loss on either split, that of the training split has its colour.
    """
    rows = frame[(frame.stage == stage) & (frame.step > 0)]
    _plot_seeds(rows, families(rows).get("loss", ()), axes)
    if optimum is not None:
        axes.axhline(optimum, **OPTIMUM)
    title = "loss of the head" if stage == HEAD else "loss"
    axes.set(xscale="log", yscale="log", ylabel=title, xlabel=unit)
    return axes


def _plot_seeds(rows: pd.DataFrame, names: Sequence[str], axes: "Axes") -> None:
    """Metrics of a whole stage over its steps, one thin line per seed."""
    for name in names:
        color = TEST if name.startswith("test_") else TRAIN if len(names) > 1 else style.BLACK
        for _, group in rows[rows.metric == name].groupby("seed"):
            axes.plot(group.step, group.value, color=color, linewidth=0.8)


def plot_profile(
    frame: pd.DataFrame,
    metric: str,
    axes: "Axes",
    threshold: float | None = None,
    summary: RunSummary = NO_SUMMARY,
    names: Names | None = None,
) -> "Axes":
    """The metric at the end against the layer: network blocks, then head layers; bars span the seeds.

    Training split as circles, test split as triangles beside them; filled after the activation, open before it.
    ``names`` are the places and what they are called, by default those that the metric was measured at.
    """
    shown = summary.metric(metric)
    if names is None:
        everywhere = place_names(summary, frame, _numbered(metric))
        measured = set(zip(*(frame[drawable(frame, shown)][key] for key in ("stage", "layer")), strict=True))
        names = {place: name for place, name in everywhere.items() if place in measured} or everywhere
    places = {place: position for position, place in enumerate(names)}
    last = final_rows(frame[frame.layer != ""])
    for prefix in SPLITS:
        final = final_rows(frame[(frame.metric == prefix + metric) & (frame.layer != "")])
        for tap in sorted(set(last.tap), key=["post", "pre", *sorted(set(last.tap))].index):
            _plot_points(final[final.tap == tap], places, axes, shown, tap, prefix)
    if threshold is not None:
        axes.axhline(threshold, **THRESHOLD)
    marks.named(axes, list(names.values()))
    axes.set(yscale=shown.scale, ylabel=quantity(shown), xlabel="layer")
    return axes


def _numbered(metric: str) -> str:
    """What the layers of a head are called: by the features that enter them, or by the weight that a metric is of."""
    from pipeline.metrics.registry import entry

    known = entry(metric)
    weight = known is not None and {"weight", "next_weight"} & set(known.takes)
    return style.weight_name("{}").replace("{{}}", "{{{}}}") if weight else "$H_{{{}}}$"


def _plot_points(
    rows: pd.DataFrame, places: Mapping[tuple[str, str], int], axes: "Axes", metric: MetricDisplay, tap: str, split: str
) -> None:
    values = rows.groupby(["stage", "layer"], sort=False).value
    points = pd.DataFrame({"mean": values.mean(), "low": values.min(), "high": values.max()}).dropna()
    points = points[np.isfinite(points).all(axis=1) & points.index.isin(list(places))]
    if metric.logarithmic:
        points = points[points["mean"] > 0]
    if points.empty:
        return
    color, marker, beside = SPLITS[split]
    where = np.array([places[place] for place in points.index]) + beside + BESIDE.get(tap, 0)
    marks.dots(axes, where, points["mean"], color, marker, filled=FILLED.get(tap, False))
    wide = (points["high"] - points["low"]) > SMALLEST_BAR * points["mean"].abs()
    if wide.any():
        axes.vlines(where[wide], points["low"][wide], points["high"][wide], color=color, linewidth=0.8, zorder=1.5)


def plain_ticks(axes: "Axes") -> "Axes":
    """At least two ticks on a logarithmic y axis, of a figure that is not drawn on a `Sheet`."""
    from pipeline.views.ticks import ticked

    if axes.get_yscale() == "log":
        ticked(axes.yaxis, style.SCREEN.text)
    return axes


def final_rows(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows of the last step of every stage."""
    return frame[frame.step == frame.groupby("stage").step.transform("max")]


def run_figure(frame: pd.DataFrame, summary: Mapping[str, Any]) -> "Figure | None":
    """A run in one figure: metrics and loss over the steps (top), and metrics against the layer at the end (bottom).

    Over the steps the head is shown, or every stage of a run without one. None where nothing can be drawn.

    Args:
        frame: the record.
        summary: the content of ``summary.json``.
    """
    run = RunSummary(summary)
    at_end = stages_at_the_end(run, frame)
    rows = [stage for stage in at_end if stage.name == HEAD] or run.in_order(set(frame.stage))
    rows = [stage for stage in rows if _has_curves(run, frame, stage)]
    frame = frame[frame.stage.isin([stage.name for stage in (*at_end, *rows)])]
    metrics = panels(run, frame)
    if not rows and not metrics:
        return None
    whole = any(families(frame[(frame.stage == stage.name) & (frame.step > 0)]) for stage in rows)
    colors = layer_colors(list(dict.fromkeys(layer for stage in rows for layer in layers(frame, stage.name))))
    with Sheet(len(rows) + bool(metrics), len(metrics) + whole, title=_title(run, frame)) as sheet:
        for place, stage in enumerate(rows):
            _draw_stage(run, frame, stage, metrics, sheet, place, colors, named=len(rows) > 1)
        if metrics:
            thresholds = (summary.get("verdict") or {}).get("thresholds") or {}
            for metric, axes in zip(metrics, sheet.row(len(rows)), strict=False):
                plot_profile(frame, metric.name, axes, thresholds.get(metric.name), run)
            if whole:
                sheet.drop(sheet[len(rows), len(metrics)])
        sheet.legend(legends.of_run(run, frame, rows, metrics, colors))
    return sheet.figure


def _title(run: RunSummary, frame: pd.DataFrame) -> str:
    problem = run.written.get("problem") or {}
    sizes = f"K = {problem['num_classes']}, L = {problem['depth']}, " if problem else ""
    seeds = len(run.written.get("seeds") or frame.seed.unique())
    return f"{run.title or run.protocol} ({sizes}{seeds} seed{'s' * (seeds != 1)})".lstrip()


def _has_curves(run: RunSummary, frame: pd.DataFrame, stage: Stage) -> bool:
    """Whether anything of a stage can be drawn over its steps."""
    rows = frame[(frame.stage == stage.name) & (frame.step > 0)]
    return not rows.empty and bool(panels(run, rows) or families(rows))


def _draw_stage(
    run: RunSummary,
    frame: pd.DataFrame,
    stage: Stage,
    metrics: Sequence[MetricDisplay],
    sheet: Sheet,
    row: int,
    colors: Mapping[str, Any],
    *,
    named: bool,
) -> None:
    """A stage over its steps: its metrics, and last its loss or what else was recorded of it as a whole."""
    rows, line = frame[(frame.stage == stage.name) & (frame.step > 0)], sheet.row(row)
    unit = f"{stage.unit} ({stage.title})" if named else stage.unit
    present = {metric.name for metric in panels(run, rows)}
    for metric, axes in zip(metrics, line, strict=False):
        if metric.name in present:
            plot_over_steps(frame, metric.name, axes, stage.name, colors, unit, run)
        else:
            sheet.drop(axes)
    if len(line) == len(metrics):
        return
    found = families(rows)
    if "loss" in found:
        optimum = (run.written.get("loss") or {}).get("optimum") if stage.name == HEAD else None
        plot_loss(frame, optimum, line[-1], unit, stage.name)
        if stage.name == HEAD and (lost := _diverged(run)):
            sheet.tag(line[-1], lost)
    elif found:
        name, members = next(iter(found.items()))
        _plot_seeds(rows, members, line[-1])
        scale = "log" if looks_logarithmic(rows[rows.metric.isin(members)].value) else "linear"
        line[-1].set(xscale="log", yscale=scale, ylabel=quantity(run.metric(name)), xlabel=unit)
    else:
        sheet.drop(line[-1])
    if any(len(members) > 1 for members in found.values()):
        sheet.legend([marks.line("training split", TRAIN), marks.line("test split", TEST)])


def _diverged(run: RunSummary) -> str:
    """How many seeds of the head did; empty if none did."""
    losses = (run.written.get("loss") or {}).get("total") or []
    lost = sum(loss is None for loss in losses)
    return f"{lost} of {len(losses)} seeds diverged" if lost else ""


def save_figure(figure: "Figure | None", folder: Path, name: str) -> list[Path]:
    """Write ``name.png`` (200 dpi; 300 in print) and ``name.pdf``; nothing where there is no figure."""
    if figure is None:
        return []
    paths = [folder / f"{name}.png", folder / f"{name}.pdf"]
    for path in paths:
        with atomic(path) as temporary:
            write_figure(figure, temporary, path.suffix)
    return paths


def write_figure(figure: "Figure", path: Path, suffix: str) -> None:
    """Write one file, in the form that the suffix names, as the figure's medium has it."""
    import matplotlib

    medium = getattr(figure, "medium", style.SCREEN)
    # No creation date in the file: the same record gives the same bytes.
    metadata = {"CreationDate": None} if suffix == ".pdf" else None
    with matplotlib.rc_context(medium.rc):
        figure.savefig(path, format=suffix.lstrip("."), dpi=200 if medium.titled else 300, metadata=metadata)
