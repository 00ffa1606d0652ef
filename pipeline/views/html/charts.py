"""Charts as plotly figures, with what the page's script needs to colour them and to hide lines.

Every trace carries ``meta``: ``keys`` (what the checkboxes of its panel call it), ``colors`` (for the light and the
dark page) and ``role`` (line, band, reference or gram). Colours are applied in the page, which knows if it is dark.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

from pipeline.storage.summary import MetricDisplay
from pipeline.views.html.formatting import number
from pipeline.views.html.markup import Html, data, swatch, tag
from pipeline.views.html.palette import TEST, TRAIN, Pair
from pipeline.views.html.series import Line, Place

DASHES = {("train", "post"): "solid", ("train", "pre"): "dash", ("test", "post"): "dot", ("test", "pre"): "dashdot"}
SYMBOLS = {"post": "circle", "pre": "square-open"}
OTHER_DASH, OTHER_SYMBOL = "longdash", "diamond-open"
"""Of taps that are neither."""

MOST_TICKS = 8
"""Steps that all have room for their numbers."""
MOST_NUMBERED = 150
"""Cells of a heat map that have room for their numbers."""
MANY_DECADES = 1e7
"""Above it not every decade has room for a tick."""


Trace = dict[str, Any]


@dataclass
class Figure:
    """What plotly draws, as its JSON: its own Python classes take ten times as long and say no more."""

    layout: dict[str, Any]
    data: list[Trace] = field(default_factory=list)


@dataclass(frozen=True)
class Chart:
    """A figure (plotly's ``data`` and ``layout``) with its title, its accessible name and what else is to be said about
    it (text or markup)."""

    title: str
    label: str
    figure: Figure
    caption: str = ""

    def html(self, class_: str = "chart") -> Html:
        """The chart as a figure element, drawn by the page's script when it comes into view."""
        content = {"data": self.figure.data, "layout": {"showlegend": False, **self.figure.layout}}
        caption = tag("figcaption", tag("strong", self.title), " ", self.caption)
        plot = tag("div", class_="plot", role="img", aria_label=self.label)
        return tag("figure", caption, plot, data(content, "chart-data"), class_=class_)


@dataclass(frozen=True)
class Stroke:
    """A line with its name, its colours and its keys (without keys the chart explains it); split: train or test."""

    line: Line
    name: str
    colors: Pair
    keys: Mapping[str, str]
    split: str = "train"


def over_steps(
    title: str,
    strokes: Sequence[Stroke],
    unit: str,
    reference: tuple[float, str] | None = None,
    *,
    logarithmic: bool = True,
) -> Chart | None:
    """Lines over the steps, with bands from seed to seed; None if there is nothing to draw.

    Args:
        unit: what a step counts.
        reference: a value to draw across, with its name.
        logarithmic: whether the axis of the values is; that of the steps always is.
    """
    if not strokes:
        return None
    steps = [step for stroke in strokes for step in stroke.line.steps]
    ends = [value for stroke in strokes for value in (*stroke.line.low, *stroke.line.high)]
    ends += [] if reference is None else [reference[0]]
    figure = Figure({"xaxis": _step_axis(steps, unit), "yaxis": _axis(ends, logarithmic)})
    for stroke in strokes:
        if stroke.line.spread:
            figure.data.append(_band(stroke))
    for stroke in strokes:
        figure.data.append(_curve(stroke))
    said = [Html(f"{swatch(stroke.colors)} {escape(stroke.name)}") for stroke in strokes if not stroke.keys]
    said = said if len(said) > 1 else []
    if reference is not None:
        figure.data.append(_reference([min(steps), max(steps)], *reference))
        said.append(Html(escape(f"Dash-dotted: {reference[1]} {number(reference[0], 4)}.")))
    last = "; ".join(f"{stroke.name} {stroke.line.middle[-1]:.3g}" for stroke in strokes if stroke.split == "train")
    axes = "logarithmic axes" if logarithmic else "logarithmic axis of steps"
    label = f"{title}, over {unit}s, {axes}. At the end: {last}."
    return Chart(title, label, figure, Html(" ".join(said)))


def profile(
    metric: MetricDisplay, places: Mapping[str, Sequence[Place]], threshold: float | None = None
) -> Chart | None:
    """The final metric against the layer, one series per split and tap; None if there is nothing to draw.

    Args:
        places: by split (train, test), in the order of data flow.
        threshold: what counts as collapsed, drawn across.
    """
    title = metric.text
    order = list(dict.fromkeys(place.name for series in places.values() for place in series))
    taps = [*SYMBOLS, *dict.fromkeys(p.tap for series in places.values() for p in series if p.tap not in SYMBOLS)]
    axis = {"categoryorder": "array", "categoryarray": order, "type": "category", "automargin": True}
    figure = Figure({"xaxis": axis})
    shown: list[float] = []
    for split, colors in (("train", TRAIN), ("test", TEST)):
        for tap in taps:
            chosen = [place for place in places.get(split, ()) if place.tap == tap and has_a_point(place, metric)]
            shown += [place.middle for place in chosen]
            if chosen:
                symbol, dash = SYMBOLS.get(tap, OTHER_SYMBOL), DASHES.get((split, tap), OTHER_DASH)
                trace = _points(f"{split}, {tap}", chosen, colors, symbol, dash)
                trace["meta"]["keys"] = {"split": split, "tap": tap}
                figure.data.append(trace)
    if not shown:
        return None
    caption = ""
    if threshold is not None:
        shown.append(threshold)
        figure.data.append(_reference([order[0], order[-1]], threshold, "threshold"))
        caption = f"Dash-dotted: the threshold {threshold:g}."
    figure.layout["yaxis"] = _axis(shown, metric.logarithmic)
    ends = "; ".join(
        f"{place.name} {place.tap} {place.middle:.3g}" for place in places.get("train", ()) if place.middle is not None
    )
    return Chart(title, f"{title}, against the layer at the end. Training split: {ends}.", figure, caption)


def heat(
    title: str,
    rows: str,
    columns: str,
    names: Sequence[str],
    across: Sequence[str],
    cells: Sequence[Sequence[float | None]],
) -> Chart | None:
    """A table of numbers as colours, logarithmic where all are positive and span a decade; None without numbers.

    Args:
        rows, columns: what the axes are called.
        names, across: what stands beside the rows and below the columns.
    """
    known = [value for row in cells for value in row if value is not None and math.isfinite(value)]
    if not known:
        return None
    logarithmic = min(known) > 0 and max(known) > 10 * min(known)
    finite = [[value if value is not None and math.isfinite(value) else None for value in row] for row in cells]
    shade = [[math.log10(v) if logarithmic and v is not None else v for v in row] for row in finite]
    trace = {
        "type": "heatmap",
        "z": shade,
        "text": [["" if value is None else f"{value:.3g}" for value in row] for row in finite],
        "texttemplate": "%{text}" if len(names) * len(across) <= MOST_NUMBERED else None,
        "x": [_name(name) for name in across],
        "y": [_name(name) for name in names],
        "showscale": False,
        "hovertemplate": "%{text}<extra></extra>",
        "meta": _meta("heat"),
    }
    axis = {"type": "category", "automargin": True}
    layout = {
        "xaxis": {**axis, "title": {"text": _name(columns)}},
        "yaxis": {**axis, "title": {"text": _name(rows), "standoff": 6}, "autorange": "reversed"},  # beside its ticks
    }
    label = f"{title}: {number(min(known))} to {number(max(known))}, over {rows} and {columns}."
    return Chart(title, label, Figure(layout, [trace]), "Logarithmic colours." if logarithmic else "")


def has_a_point(place: Place, metric: MetricDisplay) -> bool:
    """Whether the axis of the metric can show the place's value."""
    return place.middle is not None and (place.middle > 0 or not metric.logarithmic)


Ends = Sequence[tuple[int, Place]]
"""What a run ended at: places with their position on an axis of layers."""


def across_runs(
    metric: MetricDisplay, ends: Mapping[str, tuple[Pair, Ends]], keys: Mapping[str, str], axis: str
) -> Chart | None:
    """The final metric of every run against the layer; None if there is nothing to draw.

    Args:
        ends: name of a run -> its colours and what it ended at.
        keys: name of a run -> what its checkbox is called.
        axis: what the axis of layers is called.
    """
    title = f"{metric.text}, at the end"
    shown = {
        name: (colors, [(at, place) for at, place in places if has_a_point(place, metric)])
        for name, (colors, places) in ends.items()
    }
    values = [place.middle for _, places in shown.values() for _, place in places]
    if not values:
        return None
    layers = {"title": {"text": axis}, "dtick": 1, "automargin": True}
    figure = Figure({"xaxis": layers, "yaxis": _axis(values, metric.logarithmic)})
    for name, (colors, places) in shown.items():
        if places:
            trace = _points(name, [place for _, place in places], colors, "circle", "solid")
            trace["x"] = [at for at, _ in places]
            trace["meta"]["keys"] = {"run": keys[name]}
            figure.data.append(trace)
    lasts = "; ".join(f"{name} {places[-1][1].middle:.3g}" for name, (_, places) in shown.items() if places)
    return Chart(title, f"{title}, against the {axis}. Last layer: {lasts}.", figure)


def _axis(values: Sequence[float], logarithmic: bool) -> dict[str, Any]:
    return _log_axis(values) if logarithmic else {"automargin": True}


def _step_axis(steps: Sequence[int], unit: str) -> dict[str, Any]:
    """A logarithmic axis of steps; of few steps every one has its tick, so that none stands at half an epoch."""
    axis, different = _log_axis(steps, title={"text": unit}), sorted(set(steps))
    if max(steps) <= 5 * min(steps) and len(different) <= MOST_TICKS:
        axis |= {"tickmode": "array", "tickvals": different, "ticktext": [str(step) for step in different]}
    return axis


def _log_axis(values: Sequence[float], **more: Any) -> dict[str, Any]:
    """An axis for positive ``values``, with ticks at 1, 2, 5 or whole decades: plotly's own would write nine digits."""
    low, high = min(values, default=1), max(values, default=1)
    ticks: dict[str, Any] = {"minorloglabels": "complete"}
    if 5 < high / low < MANY_DECADES:
        ticks["dtick"] = "D2" if high / low < 100 else 1
    plain = low > 1e-4 and high < 1e5
    return {"type": "log", "exponentformat": "none" if plain else "power", "automargin": True, **ticks, **more}


def _name(text: str) -> str:
    """Plotly reads tags in names, which are the user's."""
    return escape(text, quote=False)


def _meta(role: str, colors: Pair | None = None, keys: Mapping[str, str] | None = None) -> dict[str, Any]:
    return {"role": role, "colors": list(colors or ()), "keys": dict(keys or {})}


def _curve(stroke: Stroke) -> Trace:
    line = stroke.line
    spread = "<br>seeds %{customdata[0]:.3g} to %{customdata[1]:.3g}" if line.spread else ""
    return _scatter(
        x=line.steps,
        y=line.middle,
        customdata=list(zip(line.low, line.high, strict=True)) if line.spread else None,
        name=_name(stroke.name),
        mode="lines+markers" if len(line.steps) < 12 else "lines",
        line={"dash": DASHES.get((stroke.split, line.tap or "post"), OTHER_DASH), "width": 2},
        marker={"size": 5},
        hovertemplate=f"%{{y:.4g}} at %{{x}}{spread}",
        meta=_meta("line", stroke.colors, stroke.keys),
    )


def _band(stroke: Stroke) -> Trace:
    line = stroke.line
    return _scatter(
        x=line.steps + line.steps[::-1],
        y=line.low + line.high[::-1],
        fill="toself",
        mode="lines",
        line={"width": 0},
        hoverinfo="skip",
        name=_name(f"{stroke.name}, seeds"),
        meta=_meta("band", stroke.colors, stroke.keys),
    )


def _points(name: str, places: Sequence[Place], colors: Pair, symbol: str, dash: str) -> Trace:
    up = [place.high - place.middle for place in places]
    down = [place.middle - place.low for place in places]
    return _scatter(
        x=[place.name for place in places],
        y=[place.middle for place in places],
        error_y={"array": up, "arrayminus": down, "width": 3, "thickness": 1.2, "visible": any(up) or any(down)},
        name=_name(name),
        mode="lines+markers",
        line={"dash": dash, "width": 1.5},
        marker={"symbol": symbol, "size": 8},
        hovertemplate="%{y:.4g}, %{x}",
        meta=_meta("line", colors),
    )


def _reference(ends: Sequence[Any], value: float, name: str) -> Trace:
    return _scatter(
        x=list(ends),
        y=[value] * len(ends),
        mode="lines",
        line={"dash": "longdashdot", "width": 1.2},
        name=_name(name),
        hovertemplate="%{y:.4g}",
        meta=_meta("reference"),
    )


def _scatter(**properties: Any) -> Trace:
    return {"type": "scatter", **{name: value for name, value in properties.items() if value is not None}}
