"""Figures from a record: functions take a table of rows (see `pipeline.storage.record`) and draw on matplotlib axes."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from pipeline.runtime.files import atomic

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
TITLES = {
    "dnc1": "DNC1: within / between variability",
    "dnc2": "DNC2: condition number of class means",
    "dnc3": "DNC3: rows of $W_l$ to class means (sine)",
}
TRAIN_COLOR, TEST_COLOR = "tab:red", "tab:blue"
OPTIMUM = {"color": "black", "linestyle": (0, (1, 1.5)), "linewidth": 1.2}


def layer_colors(layers: Sequence[str]) -> dict[str, Any]:
    """One colour per layer, dark to bright with depth."""
    shades = matplotlib.colormaps["viridis"](np.linspace(0.0, 0.88, max(len(layers), 2)))
    return dict(zip(layers, shades, strict=False))


def plot_over_steps(
    frame: pd.DataFrame,
    metric: str,
    axes: Axes,
    stage: str = "head",
    colors: Mapping[str, Any] | None = None,
    unit: str | None = None,
) -> Axes:
    """One line per layer: the geometric mean over seeds, shaded from the smallest to the largest seed.

    Solid lines are post-activation, dashed ones pre-activation (the only tap of layer 1). ``colors`` maps layers to
    colours, for figures that show heads of several depths. ``unit`` is what a step counts (as in the summary's
    ``step_units``; by default a gradient step of the head, an epoch of the backbone).
    """
    rows = frame[(frame.stage == stage) & (frame.metric == metric) & (frame.layer != "") & (frame.step > 0)]
    colors = colors or layer_colors(list(dict.fromkeys(rows.layer)))
    for (layer, tap), group in rows.groupby(["layer", "tap"], sort=False):
        per_step = group[(group.value > 0) & np.isfinite(group.value)].groupby("step").value
        middle = per_step.apply(lambda values: np.exp(np.log(values).mean()))
        if middle.empty:
            continue  # nothing that a logarithmic axis can show
        color, dashes = colors[layer], "-" if tap == "post" else (0, (4, 2))
        axes.plot(middle.index, middle, color=color, linestyle=dashes)
        axes.fill_between(middle.index, per_step.min(), per_step.max(), color=color, alpha=0.15, linewidth=0)
    unit = unit or ("gradient step" if stage == "head" else "epoch")
    axes.set(xscale="log", yscale="log", title=TITLES[metric], xlabel=unit)
    if metric == "dnc2":
        axes.axhline(1.0, **OPTIMUM)
    return plain_ticks(axes, metric)


def plot_loss(frame: pd.DataFrame, optimum: float | None, axes: Axes, unit: str = "gradient step") -> Axes:
    """Total loss over steps, one thin line per seed, and the closed-form value where there is one."""
    rows = frame[(frame.stage == "head") & (frame.metric == "loss") & (frame.step > 0)]
    for _, group in rows.groupby("seed"):
        axes.plot(group.step, group.value, color="tab:blue", alpha=0.6, linewidth=1)
    if optimum is not None:
        axes.axhline(optimum, **OPTIMUM)
    axes.set(xscale="log", yscale="log", title="loss of the head", xlabel=unit)
    return axes


def plot_profile(frame: pd.DataFrame, metric: str, axes: Axes, threshold: float | None = None) -> Axes:
    """The metric at the end against the layer: backbone blocks, then head layers; bars span the seeds.

    Training split in red, test split in blue; filled after the activation, open before it.
    """
    places = _places(final_rows(frame[frame.layer != ""]))
    for prefix, color in (("", TRAIN_COLOR), ("test_", TEST_COLOR)):
        final = final_rows(frame[(frame.metric == prefix + metric) & (frame.layer != "")])
        for tap, marker, fill in (("post", "o", "full"), ("pre", "s", "none")):
            rows = final[final.tap == tap]
            values = rows.groupby(["stage", "layer"], sort=False).value
            points = pd.DataFrame({"mean": values.mean(), "low": values.min(), "high": values.max()}).dropna()
            points = points[np.isfinite(points).all(axis=1) & (points["mean"] > 0)]
            if points.empty:
                continue
            where = [places[place] for place in points.index]
            # Clipped, because the mean of equal numbers may be a rounding error away from them.
            spread = [(points["mean"] - points["low"]).clip(0), (points["high"] - points["mean"]).clip(0)]
            axes.errorbar(
                where, points["mean"], spread, fmt=marker, fillstyle=fill, color=color, markersize=4, capsize=2
            )
    if threshold is not None:
        axes.axhline(threshold, color="grey", linewidth=0.8, linestyle="-.")
    labels = [f"$H_{{{layer}}}$" if stage == "head" else layer.removeprefix("network.") for stage, layer in places]
    axes.set_xticks(list(places.values()), labels, rotation=90 if any(s == "backbone" for s, _ in places) else 0)
    if len(places) > 12:
        axes.tick_params(axis="x", labelsize=6)
    axes.set(yscale="log", title=f"{metric.upper()} at the end", xlim=(-0.5, len(places) - 0.5))
    return plain_ticks(axes, metric)


def final_rows(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows of the last step of every stage."""
    return frame[frame.step == frame.groupby("stage").step.transform("max")]


def run_figure(frame: pd.DataFrame, summary: Mapping[str, Any]) -> Figure:
    """DNC1-3 and the loss over training (top), and DNC1-3 against the layer at the end (bottom)."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(11, 5.6), layout="constrained")
        grid = figure.subplots(2, 4)
        thresholds = summary["verdict"]["thresholds"]
        unit = summary.get("step_units", {}).get("head", "gradient step")
        frame = frame[frame.stage != "dufm"]  # solved on the way to a fixed head, and drawn by nobody
        for column, metric in enumerate(TITLES):
            plot_over_steps(frame, metric, grid[0, column], unit=unit)
            plot_profile(frame, metric, grid[1, column], thresholds[metric])
        plot_loss(frame, summary["loss"]["optimum"], grid[0, 3], unit)
        _legend(frame, summary, grid[1, 3])
        figure.suptitle(summary["verdict"]["text"], fontsize=10)
    return figure


def save_figure(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Write ``name.png`` (200 dpi) and ``name.pdf``."""
    paths = [folder / f"{name}.png", folder / f"{name}.pdf"]
    for path in paths:
        # No creation date in the file: the same record gives the same bytes.
        metadata = {"CreationDate": None} if path.suffix == ".pdf" else None
        with atomic(path) as temporary, matplotlib.rc_context(STYLE):
            figure.savefig(temporary, dpi=200, metadata=metadata)
    return paths


def plain_ticks(axes: Axes, metric: str) -> Axes:
    """2 instead of 2 x 10^0 on the axes of metrics that live near 1."""
    low, high = axes.get_ylim()
    # Over many decades matplotlib's own ticks are the right ones (and LogLocator with subs finds none).
    if metric != "dnc1" and high < 1e3 * low:
        axes.yaxis.set_major_locator(MaxNLocator(5) if high < 3 * low else LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_locator(NullLocator())
    return axes


def _places(final: pd.DataFrame) -> dict[tuple[str, str], int]:
    """Position of every measured layer on the profile's axis, in the order of data flow."""
    pairs = dict.fromkeys(zip(final.stage, final.layer, strict=True))
    ordered = sorted(pairs, key=lambda pair: pair[0] == "head")  # stable: backbone first
    return {pair: position for position, pair in enumerate(ordered)}


def _legend(frame: pd.DataFrame, summary: Mapping[str, Any], axes: Axes) -> None:
    layers = list(dict.fromkeys(frame[(frame.stage == "head") & (frame.layer != "")].layer))
    colors = layer_colors(layers)
    handles = [Line2D([], [], color=colors[layer], label=f"layer {layer}") for layer in layers]
    handles += [
        Line2D([], [], color="grey", label="post-activation"),
        Line2D([], [], color="grey", linestyle=(0, (4, 2)), label="pre-activation"),
        Line2D([], [], **OPTIMUM, label="theory's optimum"),
        Line2D([], [], color=TRAIN_COLOR, marker="o", linestyle="", markersize=4, label="end: post"),
        Line2D([], [], color=TRAIN_COLOR, marker="s", fillstyle="none", linestyle="", markersize=4, label="end: pre"),
        Line2D([], [], color="grey", linewidth=0.8, linestyle="-.", label="threshold"),
    ]
    if (frame.metric == "test_dnc1").any():
        handles.append(
            Line2D([], [], color=TEST_COLOR, marker="o", linestyle="", markersize=4, label="end: test split")
        )
    problem = summary["problem"]
    axes.axis("off")
    title = f"K={problem['num_classes']}, L={problem['depth']}, {len(summary['seeds'])} seed(s)"
    axes.legend(handles=handles, loc="center", title=title, ncols=2 if len(handles) > 11 else 1)
