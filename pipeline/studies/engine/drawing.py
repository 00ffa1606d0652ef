"""What the figures of several studies share."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes


def plot_spread(rows: pd.DataFrame, axes: Axes, **line: Any) -> None:
    """Value over steps: the geometric mean over seeds, shaded from the smallest to the largest seed."""
    per_step = rows[rows.value > 0].groupby("step").value
    middle = per_step.apply(lambda values: np.exp(np.log(values).mean()))
    axes.plot(middle.index, middle, **line)
    axes.fill_between(middle.index, per_step.min(), per_step.max(), color=line["color"], alpha=0.2, linewidth=0)


def plot_seeds(axes: Axes, at: Sequence[float], values: Sequence[Sequence[float]], **style: Any) -> None:
    """Every seed a dot, the median a line; ``values`` are those of the seeds at each of ``at``."""
    color, label = style.get("color", "tab:blue"), style.get("label")
    for position, seeds in zip(at, values, strict=True):
        axes.plot([position] * len(seeds), seeds, "o", color=color, markersize=3.5, alpha=0.5, markeredgewidth=0)
    axes.plot(
        at,
        [np.nanmedian(seeds) if np.isfinite(seeds).any() else np.nan for seeds in values],
        color=color,
        label=label,
    )
