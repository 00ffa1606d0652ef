"""A tracker's history on matplotlib axes."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib import pyplot
from matplotlib.axes import Axes

from pipeline.metrics import registry
from pipeline.views import figures, style
from pipeline.views.ticks import ticked


def plot_over_steps(history: pd.DataFrame, metric: str, ax: Axes | None = None) -> Axes:
    """The metric against the step, one line per layer: solid after the layer (`post`), dashed before it (`pre`)."""
    rows, ax = _rows(history, metric), _axes(ax)
    colors = figures.layer_colors(list(dict.fromkeys(rows.layer)))
    known = registry.entry(metric)
    logarithmic = known is None or known.scale == "log"
    for (layer, tap), line in rows.groupby(["layer", "tap"], sort=False):
        shown = line[np.isfinite(line.value)]
        if logarithmic:
            shown = shown[shown.value > 0]
        dashes = "-" if tap == "post" else "--"
        ax.plot(shown.step, shown.value, dashes, marker=".", color=colors[layer], label=f"{layer} {tap}")
    ax.set(yscale="log" if logarithmic else "linear", title=_title(metric, known), xlabel="step")
    if known is not None and known.target is not None and (known.target > 0 or not logarithmic):
        ax.axhline(known.target, **style.OPTIMUM)
    ax.legend(fontsize="small")
    return _ticked(ax)


def plot_profile(history: pd.DataFrame, metric: str, ax: Axes | None = None) -> Axes:
    """The metric at the last step against the layer: filled after the layer (`post`), open before it (`pre`)."""
    rows = _rows(history, metric)
    ax = figures.plot_profile(rows.assign(stage="backbone", seed=0), metric, _axes(ax))
    ax.set_title(f"{ax.get_ylabel()} at the end")
    return _ticked(ax)


def _ticked(ax: Axes) -> Axes:
    if ax.get_yscale() == "log":
        ticked(ax.yaxis, style.SCREEN.text)
    return ax


def _title(metric: str, known: registry.Metric | None) -> str:
    if known is None:
        return metric
    if registry.CLASS in metric:
        title = f"{known.title} ({metric.partition(registry.CLASS)[2]}"
        return f"{title}, test)" if metric.startswith(registry.TEST) else f"{title})"
    return known.title if metric == known.name else f"{known.title} (test)"


def _rows(history: pd.DataFrame, metric: str) -> pd.DataFrame:
    if history.empty:
        raise ValueError("nothing to plot: nothing has been measured yet.")
    rows = history[history.metric == metric]
    if rows.empty:
        known = ", ".join(dict.fromkeys(history.metric))
        raise ValueError(f"metric must be one of {known}, got {metric!r}.")
    return rows


def _axes(ax: Axes | None) -> Axes:
    return pyplot.subplots(layout="constrained")[1] if ax is None else ax
