"""Labels of panels that are laid out: broken, turned, thinned out and moved until none touches another."""

import math
import re
from collections.abc import MutableMapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from pipeline.views.measured import text_width, wrapped

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.text import Annotation, Text

LINE_HEIGHT = 1.4
"""Of lines of text, in units of their size."""
APART, SYMBOLS_APART = 0.6, 0.4
"""Between labels side by side, in units of their size; symbols (W_1 W_2) do not read as one word."""
LEAST_HEIGHT = 40
"""Points that the label of a y axis may take, however low the panel."""


def wrap(axes: "Axes", height: float) -> None:
    """Break labels, tags and notes that are longer than the panel that they stand at; it will be as high as this."""
    width = axes.bbox.width * 72 / axes.figure.dpi
    _break(axes.yaxis.label, max(height, LEAST_HEIGHT))
    _break(axes.xaxis.label, 0.95 * width)
    for one in axes.texts:
        if one.get_gid() in ("tag", "note"):
            _break(one, width)


def _break(text: "Text", points: float) -> None:
    text.set_text(wrapped(text.get_text().replace("\n", " "), points, text.get_fontsize()))


def thin(axes: "Axes", text: float, known: MutableMapping[Any, list[str]]) -> None:
    """Turn labels of fixed ticks that would touch, and leave out some of those that still would.

    Args:
        text: size in points.
        known: what the labels were before, by the ticks that they stand at; added to.
    """
    from matplotlib.ticker import FixedFormatter, FixedLocator

    for axis in (axes.xaxis, axes.yaxis):
        ticks, places = axis.get_major_locator(), axis.get_majorticklocs()
        if isinstance(ticks, FixedLocator) and len(places) > 1:  # axes that share an axis share its ticks
            labels = known.setdefault(ticks, axis.get_major_formatter().format_ticks(places))
            axis.set_major_formatter(FixedFormatter(_thinned(axes, axis, labels, text)))


def _thinned(axes: "Axes", axis: "Axis", labels: Sequence[str], text: float) -> list[str]:
    ticks, along = axis.get_majorticklocs(), 0 if axis is axes.xaxis else 1
    points = [(tick, axes.get_ylim()[1]) if along == 0 else (axes.get_xlim()[1], tick) for tick in ticks]
    places = [place[along] * 72 / axes.figure.dpi for place in axes.transData.transform(points)]
    gap = min(abs(b - a) for a, b in pairwise(places))
    tall = text * LINE_HEIGHT * max(label.count("\n") + 1 for label in labels)
    sizes = [tall] * len(labels)
    if along == 0:
        apart_by = text * (SYMBOLS_APART if all(label.startswith("$") for label in labels) else APART)
        sizes = [max(text_width(line, text) for line in label.split("\n")) + apart_by for label in labels]
        turned = max(sizes) > gap and not _are_numbers(labels)
        axis.set_tick_params(labelrotation=90 if turned else 0)
        sizes = [tall] * len(labels) if turned else sizes
    return apart(places, sizes, labels)


def _are_numbers(labels: Sequence[str]) -> bool:
    return all(re.fullmatch(r"[-+.\de]*", label) for label in labels)


def apart(places: Sequence[float], sizes: Sequence[float], labels: Sequence[str]) -> list[str]:
    """The labels that do not touch one another, the last one first; the others empty.

    Where all are equally far apart, every n-th is left.
    """
    gaps = [abs(b - a) for a, b in pairwise(places)]
    if max(gaps) < 1.01 * min(gaps) and min(gaps) > 0:
        every = max(1, math.ceil(max(sizes) / min(gaps)))
        last = (len(labels) - 1) % every
        return [label if place % every == last else "" for place, label in enumerate(labels)]
    kept, edge = [""] * len(labels), math.inf
    for place in sorted(range(len(labels)), key=lambda place: places[place], reverse=True):
        if places[place] + sizes[place] / 2 <= edge:
            kept[place], edge = labels[place], places[place] - sizes[place] / 2
    return kept


def spread(ends: "Sequence[Annotation]") -> None:
    """Move names at the ends of a panel's lines apart from one another, within its height."""
    axes, least = ends[0].axes, ends[0].get_fontsize() * 1.2
    scale = 72 / axes.figure.dpi
    wanted = sorted(
        ((axes.transData.transform((1.0, end.xy[1]))[1] * scale, end) for end in ends), key=lambda pair: pair[0]
    )
    placed: list[float] = []
    for height, _ in wanted:
        placed.append(max(height, placed[-1] + least if placed else axes.bbox.y0 * scale + least / 2))
    for place in reversed(range(len(placed))):
        above = axes.bbox.y1 * scale if place == len(placed) - 1 else placed[place + 1] - least
        placed[place] = min(placed[place], above)
    for (height, end), new in zip(wanted, placed, strict=True):
        end.xyann = (3, new - height)


def fit_cells(panels: "Sequence[tuple[Axes, list[Text]]]") -> None:
    """Show the numbers in the cells of all heat maps, or none."""
    fits = True
    for axes, texts in panels:
        axes.apply_aspect()
        corner = axes.transData.transform((1, 1)) - axes.transData.transform((0, 0))
        width, height = abs(corner) * 72 / axes.figure.dpi
        for text in texts:
            size = text.get_fontsize()
            fits = fits and text_width(text.get_text(), size) < 0.97 * width and size < 0.97 * height
    for text in (text for _, texts in panels for text in texts):
        text.set_visible(fits)
