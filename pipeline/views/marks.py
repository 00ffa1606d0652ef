"""Lines, dots and bands, drawn alike in every figure; and the same as entries of a legend."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from pipeline.views import style

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D


def dot_style(color: Any, marker: str = "o", *, filled: bool = True) -> dict[str, Any]:
    """Dots that stay apart where they lie on one another: white around what is filled, white within what is not."""
    edge = {"markerfacecolor": color, "markeredgecolor": "white", "markeredgewidth": 0.3 * style.medium().line}
    if not filled:
        edge = {"markerfacecolor": "white", "markeredgecolor": color, "markeredgewidth": 0.8 * style.medium().line}
    return {"marker": marker, "linestyle": "", "color": color, **edge}


def dots(axes: "Axes", at: Any, values: Any, color: Any, marker: str = "o", *, filled: bool = True) -> None:
    """A dot for each value."""
    axes.plot(at, values, **dot_style(color, marker, filled=filled))


def spread(rows: pd.DataFrame, axes: "Axes", *, logarithmic: bool = True, **line: Any) -> "Line2D | None":
    """Value over steps: the mean over seeds (the geometric one on logarithmic axes), shaded from smallest to largest.

    None where nothing can be drawn.
    """
    rows = rows[rows.value > 0] if logarithmic else rows
    if rows.empty:
        return None
    per_step = rows.groupby("step").value
    middle = np.exp(np.log(rows.value).groupby(rows.step).mean()) if logarithmic else per_step.mean()
    (drawn,) = axes.plot(middle.index, middle, **line)
    if rows.seed.nunique() > 1:
        axes.fill_between(middle.index, per_step.min(), per_step.max(), color=line["color"], **style.BAND)
    return drawn


def seeds(
    axes: "Axes",
    at: Sequence[float],
    values: Sequence[Sequence[float]],
    *,
    color: Any = style.BLUE,
    marker: str = "o",
    joined: bool = True,
    unlike: Sequence[Sequence[bool]] | None = None,
) -> None:
    """Every seed a dot, the median a line, or a dash where the places are categories that nothing lies between.

    Args:
        values: those of the seeds at each of ``at``.
        joined: whether the places are numbers.
        unlike: which of the dots are of another kind; they are open.
    """
    middles = []
    for place, (position, found) in enumerate(zip(at, values, strict=True)):
        found = np.asarray(found, dtype=float)
        apart = np.zeros(len(found), bool) if unlike is None else np.asarray(unlike[place], bool)
        for mask, filled in ((~apart, True), (apart, False)):
            if np.isfinite(found[mask]).any():
                dots(axes, [position] * int(mask.sum()), found[mask], color, marker, filled=filled)
        counted = found[np.isfinite(found)]
        middles.append(np.median(counted) if len(counted) else np.nan)
    if joined:
        axes.plot(at, middles, color=color, zorder=1.9)
    else:
        axes.plot(at, middles, linestyle="", marker="_", markersize=11, color=color, zorder=1.9)


def bars(axes: "Axes", names: Sequence[str], shares: Sequence[float], color: Any = style.BLUE) -> None:
    """Shares as bars, with their numbers above them, over named places."""
    drawn = axes.bar(range(len(names)), shares, color=color, width=0.7)
    axes.bar_label(drawn, fmt="%.2g", padding=1)
    named(axes, names)
    axes.grid(axis="x", visible=False)
    axes.set_ylim(0, 1.15)
    axes.set_yticks([0, 0.5, 1])


def stacked(axes: "Axes", names: Sequence[str], found: Sequence[Sequence[str]], colors: dict[str, Any]) -> None:
    """Of each named place the shares of the kinds found there, one above the other."""
    floor = np.zeros(len(names))
    for kind, color in colors.items():
        share = np.array([each.count(kind) / max(len(each), 1) for each in found])
        axes.bar(range(len(names)), share, bottom=floor, color=color, width=0.8, edgecolor="black", linewidth=0.4)
        floor += share
    named(axes, names)
    axes.grid(axis="x", visible=False)
    axes.set_ylim(0, 1)


def named(axes: "Axes", names: Sequence[str]) -> None:
    """Names instead of numbers below the places 0, 1, ..."""
    axes.set_xticks(range(len(names)), list(names))
    axes.set_xlim(-0.6, len(names) - 0.4)


def numbered(axes: "Axes", values: Sequence[float]) -> None:
    """Ticks at these values and nowhere else."""
    axes.set_xticks(list(values), [f"{value:g}" for value in values])
    axes.minorticks_off()


def line(label: str, color: Any = style.GREY, linestyle: Any = "-", **more: Any) -> "Artist":
    """A legend's entry for lines."""
    from matplotlib.lines import Line2D

    return Line2D([], [], color=color, linestyle=linestyle, label=label, **more)


def dot(label: str, color: Any, marker: str = "o", *, filled: bool = True) -> "Artist":
    """A legend's entry for dots."""
    from matplotlib.lines import Line2D

    return Line2D([], [], label=label, **dot_style(color, marker, filled=filled))


def box(label: str, color: Any) -> "Artist":
    """A legend's entry for bars."""
    from matplotlib.patches import Patch

    return Patch(facecolor=color, edgecolor="black", linewidth=0.4, label=label)


def matrix(sheet: Any, axes: "Axes", values: np.ndarray, *, largest: float = 1.0, form: str = "{:.2f}") -> Any:
    """A matrix of numbers of either sign as cells, with the numbers where they have room; the image, for a scale."""
    image = axes.imshow(values, cmap=style.DIVERGING, vmin=-largest, vmax=largest)
    sheet.cells(axes, np.round(values, 2) + 0.0, image, form)  # "+ 0" turns -0.00 into 0.00
    axes.set(xticks=[], yticks=[])
    axes.grid(visible=False)
    return image
