"""Figures from a record: functions take a table of rows (see `pipeline.storage.record`) and draw on matplotlib axes.

matplotlib is loaded when something is drawn: it takes a second, and not every run has figures.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from pipeline.runtime.files import atomic
from pipeline.storage.summary import HEAD, MetricDisplay, RunSummary, Stage, registered
from pipeline.views.shown import (
    drawable,
    families,
    layer_name,
    layers,
    looks_logarithmic,
    panels,
    place_names,
    stages_at_the_end,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STYLE = {
    "font.size": 8,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "grid.linewidth": 0.5,
    "lines.linewidth": 1.4,
    "legend.frameon": False,
    "pdf.fonttype": 42,  # editable text, as publishers want it
}
TITLES = {name: metric.title for name, metric in registered().items() if metric.panel}
"""Titles of the metrics that are drawn by default."""
NUMBERED = "$H_{{{}}}$"
"""What the layers of a head are called on an axis."""
MARKERS = {"post": ("o", "full"), "pre": ("s", "none")}
OTHER_MARKER = ("D", "none")
MOST_NAMED = 16
"""Layers in a legend; of more only some are named."""
NO_SUMMARY = RunSummary({})
"""Of rows that belong to no run: metrics are shown as the registry says."""
TRAIN_COLOR, TEST_COLOR = "tab:red", "tab:blue"
OPTIMUM = {"color": "black", "linestyle": (0, (1, 1.5)), "linewidth": 1.2}


def layer_colors(layers: Sequence[str]) -> dict[str, Any]:
    """One colour per layer, dark to bright with depth."""
    import matplotlib

    shades = matplotlib.colormaps["viridis"](np.linspace(0.0, 0.88, max(len(layers), 2)))
    return dict(zip(layers, shades, strict=False))


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
        per_step = group.groupby("step").value
        middle = np.exp(np.log(group.value).groupby(group.step).mean()) if shown.logarithmic else per_step.mean()
        color, dashes = colors[layer], "-" if tap == "post" else (0, (4, 2))
        axes.plot(middle.index, middle, color=color, linestyle=dashes)
        axes.fill_between(middle.index, per_step.min(), per_step.max(), color=color, alpha=0.15, linewidth=0)
    axes.set(xscale="log", yscale=shown.scale, title=shown.title, xlabel=unit or summary.stage(stage).unit)
    if has_target_line(shown):
        axes.axhline(shown.target, **OPTIMUM)
    return plain_ticks(axes)


def has_target_line(metric: MetricDisplay) -> bool:
    """Whether there is a value at collapse that the metric's axis can show."""
    return metric.target is not None and (metric.target > 0 or not metric.logarithmic)


def plot_loss(
    frame: pd.DataFrame, optimum: float | None, axes: "Axes", unit: str = "gradient step", stage: str = HEAD
) -> "Axes":
    """Total loss over steps, one thin line per seed, and the closed-form value where there is one.

    Of a stage that has a loss on either split, that of the training split is red.
    """
    rows = frame[(frame.stage == stage) & (frame.step > 0)]
    _plot_seeds(rows, families(rows).get("loss", ()), axes)
    if optimum is not None:
        axes.axhline(optimum, **OPTIMUM)
    title = "loss of the head" if stage == HEAD else "loss"
    axes.set(xscale="log", yscale="log", title=title, xlabel=unit)
    return axes


def _plot_seeds(rows: pd.DataFrame, names: Sequence[str], axes: "Axes") -> None:
    """Metrics of a whole stage over its steps, one thin line per seed."""
    from matplotlib.lines import Line2D

    for name in names:
        color = TRAIN_COLOR if name.startswith("train_") else TEST_COLOR
        for _, group in rows[rows.metric == name].groupby("seed"):
            axes.plot(group.step, group.value, color=color, alpha=0.6, linewidth=1)
    if len(names) > 1:
        sides = {"training split": TRAIN_COLOR, "test split": TEST_COLOR}
        axes.legend(handles=[Line2D([], [], color=color, linewidth=1, label=side) for side, color in sides.items()])


def plot_profile(
    frame: pd.DataFrame,
    metric: str,
    axes: "Axes",
    threshold: float | None = None,
    summary: RunSummary = NO_SUMMARY,
) -> "Axes":
    """The metric at the end against the layer: network blocks, then head layers; bars span the seeds.

    Training split in red, test split in blue; filled after the activation, open before it.
    """
    shown, names = summary.metric(metric), place_names(summary, frame, NUMBERED)
    places = {place: position for position, place in enumerate(names)}
    last = final_rows(frame[frame.layer != ""])
    for prefix, color in (("", TRAIN_COLOR), ("test_", TEST_COLOR)):
        final = final_rows(frame[(frame.metric == prefix + metric) & (frame.layer != "")])
        for tap in sorted(set(last.tap), key=[*MARKERS, *sorted(set(last.tap))].index):
            _plot_points(final[final.tap == tap], places, axes, shown, tap, color)
    if threshold is not None:
        axes.axhline(threshold, color="grey", linewidth=0.8, linestyle="-.")
    named = any(not summary.stage(stage).numbered for stage, _ in names)
    axes.set_xticks(list(places.values()), list(names.values()), rotation=90 if named else 0)
    if len(places) > 12:
        axes.tick_params(axis="x", labelsize=6)
    axes.set(yscale=shown.scale, title=f"{shown.short} at the end", xlim=(-0.5, len(places) - 0.5))
    return plain_ticks(axes)


def _plot_points(
    rows: pd.DataFrame, places: Mapping[tuple[str, str], int], axes: "Axes", metric: MetricDisplay, tap: str, color: str
) -> None:
    values = rows.groupby(["stage", "layer"], sort=False).value
    points = pd.DataFrame({"mean": values.mean(), "low": values.min(), "high": values.max()}).dropna()
    points = points[np.isfinite(points).all(axis=1) & points.index.isin(list(places))]
    if metric.logarithmic:
        points = points[points["mean"] > 0]
    if points.empty:
        return
    marker, fill = MARKERS.get(tap, OTHER_MARKER)
    # Clipped, because the mean of equal numbers may be a rounding error away from them.
    spread = [(points["mean"] - points["low"]).clip(0), (points["high"] - points["mean"]).clip(0)]
    where = [places[place] for place in points.index]
    axes.errorbar(where, points["mean"], spread, fmt=marker, fillstyle=fill, color=color, markersize=4, capsize=2)


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
    import matplotlib
    from matplotlib.figure import Figure

    run = RunSummary(summary)
    at_end = stages_at_the_end(run, frame)
    rows = [stage for stage in at_end if stage.name == HEAD] or run.in_order(set(frame.stage))
    rows = [stage for stage in rows if _has_curves(run, frame, stage)]
    frame = frame[frame.stage.isin([stage.name for stage in (*at_end, *rows)])]
    metrics = panels(run, frame)
    if not rows and not metrics:
        return None
    colors = layer_colors(list(dict.fromkeys(layer for stage in rows for layer in layers(frame, stage.name))))
    shape = len(rows) + bool(metrics), len(metrics) + 1
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(2.75 * shape[1], 2.8 * shape[0]), layout="constrained")
        grid = figure.subplots(*shape, squeeze=False)
        for stage, line in zip(rows, grid, strict=False):
            _draw_stage(run, frame, stage, metrics, line, colors)
            if len(rows) > 1:
                line[0].set_ylabel(stage.title, fontweight="bold")
        if metrics:
            thresholds = (summary.get("verdict") or {}).get("thresholds") or {}
            for metric, axes in zip(metrics, grid[-1], strict=False):
                plot_profile(frame, metric.name, axes, thresholds.get(metric.name), run)
            _legend(run, frame, rows, metrics, colors, grid[-1, -1])
        figure.suptitle(run.title or run.protocol, fontsize=10)
    return figure


def _has_curves(run: RunSummary, frame: pd.DataFrame, stage: Stage) -> bool:
    """Whether anything of a stage can be drawn over its steps."""
    rows = frame[(frame.stage == stage.name) & (frame.step > 0)]
    return not rows.empty and bool(panels(run, rows) or families(rows))


def _draw_stage(
    run: RunSummary,
    frame: pd.DataFrame,
    stage: Stage,
    metrics: Sequence[MetricDisplay],
    line: "Sequence[Axes]",
    colors: Mapping[str, Any],
) -> None:
    """A stage over its steps: its metrics, and last its loss or what else was recorded of it as a whole."""
    rows = frame[(frame.stage == stage.name) & (frame.step > 0)]
    present = {metric.name for metric in panels(run, rows)}
    for metric, axes in zip(metrics, line, strict=False):
        if metric.name in present:
            plot_over_steps(frame, metric.name, axes, stage.name, colors, summary=run)
        else:
            axes.axis("off")
    found = families(rows)
    if "loss" in found:
        optimum = (run.written.get("loss") or {}).get("optimum") if stage.name == HEAD else None
        plot_loss(frame, optimum, line[-1], stage.unit, stage.name)
    elif found:
        name, members = next(iter(found.items()))
        _plot_seeds(rows, members, line[-1])
        scale = "log" if looks_logarithmic(rows[rows.metric.isin(members)].value) else "linear"
        line[-1].set(xscale="log", yscale=scale, title=run.metric(name).title.replace("_", " "), xlabel=stage.unit)
    else:
        line[-1].axis("off")


def save_figure(figure: "Figure | None", folder: Path, name: str) -> list[Path]:
    """Write ``name.png`` (200 dpi) and ``name.pdf``; nothing where there is no figure."""
    import matplotlib

    if figure is None:
        return []
    paths = [folder / f"{name}.png", folder / f"{name}.pdf"]
    for path in paths:
        # No creation date in the file: the same record gives the same bytes.
        metadata = {"CreationDate": None} if path.suffix == ".pdf" else None
        with atomic(path) as temporary, matplotlib.rc_context(STYLE):
            figure.savefig(temporary, dpi=200, metadata=metadata)
    return paths


def plain_ticks(axes: "Axes") -> "Axes":
    """2 instead of 2 x 10^0 on logarithmic axes of numbers that are near 1."""
    from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

    low, high = axes.get_ylim()
    # Over many decades matplotlib's own ticks are the right ones (and LogLocator with subs finds none).
    if axes.get_yscale() == "log" and low > 0.02 and high < 1e3 * low:
        axes.yaxis.set_major_locator(MaxNLocator(5) if high < 3 * low else LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_locator(NullLocator())
    return axes


def _legend(
    run: RunSummary,
    frame: pd.DataFrame,
    stages: Sequence[Stage],
    metrics: Sequence[MetricDisplay],
    colors: Mapping[str, Any],
    axes: "Axes",
) -> None:
    from matplotlib.lines import Line2D

    names = {layer: layer_name(stage, layer) for stage in stages for layer in layers(frame, stage.name)}
    every = -(-len(names) // MOST_NAMED) or 1
    handles = [Line2D([], [], color=colors[layer], label=name) for layer, name in list(names.items())[::every]]
    taps = set(frame[frame.layer != ""].tap)
    if names:
        handles += [Line2D([], [], color="grey", label="post-activation")] * ("post" in taps)
        handles += [Line2D([], [], color="grey", linestyle=(0, (4, 2)), label="pre-activation")] * ("pre" in taps)
    if any(has_target_line(metric) for metric in metrics):
        handles.append(Line2D([], [], **OPTIMUM, label="theory's optimum" if run.has_head else "value at collapse"))
    end = {"color": TRAIN_COLOR, "linestyle": "", "markersize": 4}
    for tap in sorted(taps):
        marker, fill = MARKERS.get(tap, OTHER_MARKER)
        handles.append(Line2D([], [], marker=marker, fillstyle=fill, label=f"end: {tap}", **end))
    if run.has_head:
        handles.append(Line2D([], [], color="grey", linewidth=0.8, linestyle="-.", label="threshold"))
    if frame.metric.isin([f"test_{metric.name}" for metric in metrics]).any():
        handles.append(Line2D([], [], marker="o", label="end: test split", **end | {"color": TEST_COLOR}))
    problem = run.written.get("problem") or {}
    sizes = f"K={problem['num_classes']}, L={problem['depth']}, " if problem else ""
    seeds = len(run.written.get("seeds") or frame.seed.unique())
    axes.axis("off")
    axes.legend(handles=handles, loc="center", title=f"{sizes}{seeds} seed(s)", ncols=2 if len(handles) > 11 else 1)
