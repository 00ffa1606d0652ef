"""Whether a figure can be read: asked of what is drawn, not of the code that drew it."""

import re
from collections.abc import Callable, Mapping
from itertools import combinations
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from pipeline.views import style
from pipeline.views.figures import write_figure

TOUCHING = 1.0
"""Points by which two boxes of text may overlap: they are a little larger than what is inked."""


def drawn_for(medium: str, draw: Callable[[], Mapping[str, Figure]]) -> dict[str, Figure]:
    """What is drawn for a medium, every figure of it found readable."""
    with style.drawn_for(medium):
        figures = dict(draw())
    for name, figure in figures.items():
        assert_readable(figure, f"{name} ({medium})")
    return figures


def assert_readable(figure: Figure, name: str = "figure") -> None:
    """Everything that holds of every figure of ours, for the medium that it was made for."""
    import matplotlib

    medium = figure.medium
    with matplotlib.rc_context(medium.rc):
        FigureCanvasAgg(figure).draw()
        if medium.width is not None:
            assert abs(figure.get_figwidth() - medium.width) < 1e-9, f"{name}: not as wide as {medium.name}"
        texts = shown_texts(figure)
        small = [text.get_text() for text, _ in texts if text.get_fontsize() < style.SMALLEST]
        assert small == [], f"{name}: text below 7 points"
        assert not (found := _outside(figure, texts)), f"{name}: text beyond the edge, {found}"
        assert not (found := _overlapping(figure, texts)), f"{name}: text on text, {found}"
        if not medium.titled:
            assert not figure.get_suptitle() and not any(axes.get_title() for axes in figure.axes), name
        for axes in figure.axes:
            if axes.get_visible() and axes.axison:
                assert axes.get_title() == "", f"{name}: a panel's quantity stands at its axis"
                _assert_labelled(axes, name)
        assert pale(figure) == [], f"{name}: colours of a contrast below 3"
        assert _flat(figure) == [], f"{name}: bars of no length"


def shown_texts(figure: Figure) -> list[tuple[Text, Bbox]]:
    """All text that is seen, with its box in pixels; ticks beyond the limits are not."""
    renderer = figure.canvas.get_renderer()
    hidden = set()
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            inside = {id(tick) for tick in axis._update_ticks()}
            ticks = [*axis.majorTicks, *axis.minorTicks]
            unseen = not axes.get_visible() or not axes.axison or not axis.get_visible()
            hidden |= {id(t) for tick in ticks if unseen or id(tick) not in inside for t in (tick.label1, tick.label2)}
            if unseen:
                hidden |= {id(axis.label), id(axis.offsetText)}
        if not axes.get_visible():
            hidden |= {id(text) for text in axes.findobj(Text)}
    found = []
    for text in figure.findobj(Text):
        if id(text) not in hidden and text.get_visible() and text.get_text().strip():
            found.append((text, text.get_window_extent(renderer)))
    return found


def _outside(figure: Figure, texts: list[tuple[Text, Bbox]]) -> list[str]:
    width, height = figure.bbox.width, figure.bbox.height
    slack = TOUCHING * figure.dpi / 72
    return [
        text.get_text()
        for text, box in texts
        if box.x0 < -slack or box.y0 < -slack or box.x1 > width + slack or box.y1 > height + slack
    ]


def _overlapping(figure: Figure, texts: list[tuple[Text, Bbox]]) -> list[tuple[str, str]]:
    slack = TOUCHING * figure.dpi / 72
    return [
        (one.get_text(), other.get_text())
        for (one, a), (other, b) in combinations(texts, 2)
        if min(a.x1, b.x1) - max(a.x0, b.x0) > slack and min(a.y1, b.y1) - max(a.y0, b.y0) > slack
    ]


def _assert_labelled(axes: Axes, name: str) -> None:
    empty = not (axes.lines or axes.collections or axes.images or axes.patches)
    shared = [other for other in axes.get_shared_y_axes().get_siblings(axes) if other is not axes]
    if not empty:
        here = axes.get_position()
        row = [other for other in shared if abs(other.get_position().y0 - here.y0) < 0.02]
        said = axes.get_ylabel() or axes.get_xlabel() or any(other.get_ylabel() for other in row)
        if axes.get_label() != "<colorbar>":
            said = axes.get_ylabel() or any(other.get_ylabel() for other in row) or axes.images
        assert said, f"{name}: a y axis without a label"
    for axis, (low, high) in ((axes.xaxis, sorted(axes.get_xlim())), (axes.yaxis, sorted(axes.get_ylim()))):
        if axis.get_scale() == "log" and not empty:
            labels = axis.get_major_formatter().format_ticks(axis.get_majorticklocs())
            ticks = zip(axis.get_majorticklocs(), labels, strict=True)
            inside = [label for tick, label in ticks if low * (1 - 1e-9) <= tick <= high * (1 + 1e-9) and label]
            assert len(inside) >= 2 or len(axis.get_majorticklocs()) == 1, f"{name}: a log axis with {inside} only"
    for other in shared:
        assert other.get_ylim() == axes.get_ylim(), f"{name}: panels of one row have different ranges"


def pale(figure: Figure) -> list[str]:
    """Lines, markers and text that do not stand out from white; fillings and grids need not."""
    found = []
    for axes in (axes for axes in figure.axes if axes.get_visible()):
        for line in axes.lines:
            color = to_rgba(line.get_color(), line.get_alpha())
            face, edge = to_rgba(line.get_markerfacecolor()), to_rgba(line.get_markeredgecolor())
            told = [color] if line.get_linestyle() != "None" else [face, edge]
            if max(style.contrast_on_white(one) for one in told) < style.CONTRAST:
                found.append(f"line {color}")
        for lines in (one for one in axes.collections if isinstance(one, LineCollection)):
            found += [f"bar {c}" for c in lines.get_edgecolor() if style.contrast_on_white(c) < style.CONTRAST]
        for patch in axes.patches:
            colors = patch.get_facecolor(), patch.get_edgecolor()
            if max(style.contrast_on_white(color) for color in colors) < style.CONTRAST:
                found.append(f"patch {colors[0]}")
    for text, _ in shown_texts(figure):
        if text.get_gid() != "cell" and style.contrast_on_white(to_rgba(text.get_color())) < style.CONTRAST:
            found.append(f"text {text.get_text()}")
    return found


def _flat(figure: Figure) -> list[str]:
    bars = [one for axes in figure.axes for one in axes.collections if isinstance(one, LineCollection)]
    return [str(segment) for one in bars for segment in one.get_segments() if np.ptp(segment, axis=0).max() == 0]


def fonts_of(pdf: bytes) -> set[str]:
    """Kinds of fonts that a PDF names."""
    return {kind.decode() for kind in re.findall(rb"/Subtype /(Type3|TrueType|Type0|CIDFontType2|Type1)\b", pdf)}


def as_pdf(figure: Figure, folder: Path) -> bytes:
    """What is written for it."""
    path = folder / "figure.pdf"
    write_figure(figure, path, ".pdf")
    return path.read_bytes()
