"""What the figures of several studies share, as they were before `pipeline.views.marks`, which new studies use."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from pipeline.views import marks, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_spread(rows: pd.DataFrame, axes: "Axes", **line: Any) -> None:
    """Value over steps: the geometric mean over seeds, shaded from the smallest to the largest seed."""
    marks.spread(rows, axes, **line)


def plot_seeds(axes: "Axes", at: Sequence[float], values: Sequence[Sequence[float]], **look: Any) -> None:
    """Every seed a dot, the median a line; ``values`` are those of the seeds at each of ``at``."""
    marks.seeds(axes, at, values, color=look.get("color", style.BLUE))
    if "label" in look:
        axes.lines[-1].set_label(look["label"])
