"""Charts as plotly figures, with what the page's script needs to colour them and to hide lines.

Every trace carries ``meta``: ``keys`` (what the checkboxes of its panel call it), ``colors`` (for the light and the
dark page) and ``role`` (line, band, reference or gram). Colours are applied in the page, which knows if it is dark.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import plotly.graph_objects as go

from pipeline.views.html.formatting import number
from pipeline.views.html.markup import Html, data, swatch, tag
from pipeline.views.html.palette import TEST, TRAIN, Pair
from pipeline.views.html.series import Line, Place

TITLES = {
    "dnc1": "DNC1: within / between variability",
    "dnc2": "DNC2: condition number of class means",
    "dnc3": "DNC3: weight rows to class means (sine)",
    "loss": "Loss",
    "relative_gap": "Relative gap of the loss to the optimum",
}
DASHES = {("train", "post"): "solid", ("train", "pre"): "dash", ("test", "post"): "dot", ("test", "pre"): "dashdot"}

MANY_DECADES = 1e7
"""Above it not every decade has room for a tick."""


@dataclass(frozen=True)
class Chart:
    """A figure with its title, its accessible name and what else is to be said about it (text or markup)."""

    title: str
    label: str
    figure: go.Figure
    caption: str = ""

    def html(self, class_: str = "chart") -> Html:
        """The chart as a figure element, drawn by the page's script when it comes into view."""
        plotted = self.figure.to_plotly_json()
        content = {"data": list(plotted["data"]), "layout": plotted["layout"]}
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
    title: str, strokes: Sequence[Stroke], unit: str, reference: tuple[float, str] | None = None
) -> Chart | None:
    """Lines over the steps on logarithmic axes, with bands from seed to seed; None if there is nothing to draw.

    Args:
        unit: what a step counts.
        reference: a value to draw across, with its name.
    """
    if not strokes:
        return None
    steps = [step for stroke in strokes for step in stroke.line.steps]
    ends = [value for stroke in strokes for value in (*stroke.line.low, *stroke.line.high)]
    ends += [] if reference is None else [reference[0]]
    figure = _figure(xaxis=_log_axis(steps, title={"text": unit}), yaxis=_log_axis(ends))
    for stroke in strokes:
        if stroke.line.spread:
            figure.add_trace(_band(stroke))
    for stroke in strokes:
        figure.add_trace(_curve(stroke))
    said = [Html(f"{swatch(stroke.colors)} {escape(stroke.name)}") for stroke in strokes if not stroke.keys]
    said = said if len(said) > 1 else []
    if reference is not None:
        figure.add_trace(_reference([min(steps), max(steps)], *reference))
        said.append(Html(escape(f"Dash-dotted: {reference[1]} {number(reference[0], 4)}.")))
    last = "; ".join(f"{stroke.name} {stroke.line.middle[-1]:.3g}" for stroke in strokes if stroke.split == "train")
    label = f"{title}, over {unit}s, logarithmic axes. At the end: {last}."
    return Chart(title, label, figure, Html(" ".join(said)))


def profile(title: str, places: Mapping[str, Sequence[Place]], threshold: float | None) -> Chart | None:
    """The final metric against the layer, one series per split and tap; None if there is nothing to draw.

    Args:
        places: by split (train, test), in the order of data flow.
        threshold: what counts as collapsed, drawn across.
    """
    order = list(dict.fromkeys(place_name(place) for series in places.values() for place in series))
    axis = {"categoryorder": "array", "categoryarray": order, "type": "category", "automargin": True}
    figure = _figure(xaxis=axis, yaxis=_log_axis([]))
    shown: list[float] = []
    for split, colors in (("train", TRAIN), ("test", TEST)):
        for tap, symbol in (("post", "circle"), ("pre", "square-open")):
            chosen = [place for place in places.get(split, ()) if place.tap == tap and (place.middle or 0) > 0]
            shown += [place.middle for place in chosen]
            if chosen:
                trace = _points(f"{split}, {tap}", chosen, colors, symbol, DASHES[split, tap])
                trace.meta["keys"] = {"split": split, "tap": tap}
                figure.add_trace(trace)
    if not shown:
        return None
    caption = ""
    if threshold is not None:
        shown.append(threshold)
        figure.add_trace(_reference([order[0], order[-1]], threshold, "threshold"))
        caption = f"Dash-dotted: the threshold {threshold:g}."
    figure.update_yaxes(_log_axis(shown))
    ends = "; ".join(
        f"{place_name(place)} {place.tap} {place.middle:.3g}"
        for place in places.get("train", ())
        if place.middle is not None
    )
    return Chart(title, f"{title}, against the layer at the end. Training split: {ends}.", figure, caption)


def across_runs(title: str, ends: Mapping[str, tuple[Pair, Sequence[Place]]], keys: Mapping[str, str]) -> Chart | None:
    """The final metric of every run against the layer of its head; None if there is nothing to draw.

    Args:
        ends: name of a run -> its colours and what it ended at.
        keys: name of a run -> what its checkbox is called.
    """
    values = [place.middle for _, places in ends.values() for place in places if (place.middle or 0) > 0]
    axis = {"title": {"text": "layer of the head"}, "dtick": 1, "automargin": True}
    figure = _figure(xaxis=axis, yaxis=_log_axis(values))
    for name, (colors, places) in ends.items():
        shown = [place for place in places if (place.middle or 0) > 0]
        if shown:
            trace = _points(name, shown, colors, "circle", "solid")
            trace.x = [int(place.layer) for place in shown]
            trace.meta["keys"] = {"run": keys[name]}
            figure.add_trace(trace)
    if not figure.data:
        return None
    lasts = "; ".join(
        f"{name} {places[-1].middle:.3g}" for name, (_, places) in ends.items() if places and places[-1].middle
    )
    return Chart(title, f"{title}, against the layer of the head. Last layer: {lasts}.", figure)


def place_name(place: Place) -> str:
    """Blocks of the backbone by name, layers of the head by number."""
    return f"layer {place.layer}" if place.stage == "head" else place.layer.removeprefix("network.")


def _figure(**layout: Any) -> go.Figure:
    """An empty figure; plotly's own template would repeat the same 7 kB in every chart."""
    return go.Figure(layout=go.Layout(template="none", showlegend=False, **layout))


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


def _curve(stroke: Stroke) -> go.Scatter:
    line = stroke.line
    spread = "<br>seeds %{customdata[0]:.3g} to %{customdata[1]:.3g}" if line.spread else ""
    return go.Scatter(
        x=line.steps,
        y=line.middle,
        customdata=list(zip(line.low, line.high, strict=True)) if line.spread else None,
        name=_name(stroke.name),
        mode="lines+markers" if len(line.steps) < 12 else "lines",
        line={"dash": DASHES[stroke.split, line.tap or "post"], "width": 2},
        marker={"size": 5},
        hovertemplate=f"%{{y:.4g}} at %{{x}}{spread}",
        meta=_meta("line", stroke.colors, stroke.keys),
    )


def _band(stroke: Stroke) -> go.Scatter:
    line = stroke.line
    return go.Scatter(
        x=line.steps + line.steps[::-1],
        y=line.low + line.high[::-1],
        fill="toself",
        mode="lines",
        line={"width": 0},
        hoverinfo="skip",
        name=_name(f"{stroke.name}, seeds"),
        meta=_meta("band", stroke.colors, stroke.keys),
    )


def _points(name: str, places: Sequence[Place], colors: Pair, symbol: str, dash: str) -> go.Scatter:
    up = [place.high - place.middle for place in places]
    down = [place.middle - place.low for place in places]
    return go.Scatter(
        x=[place_name(place) for place in places],
        y=[place.middle for place in places],
        error_y={"array": up, "arrayminus": down, "width": 3, "thickness": 1.2, "visible": any(up) or any(down)},
        name=_name(name),
        mode="lines+markers",
        line={"dash": dash, "width": 1.5},
        marker={"symbol": symbol, "size": 8},
        hovertemplate="%{y:.4g}, %{x}",
        meta=_meta("line", colors),
    )


def _reference(ends: Sequence[Any], value: float, name: str) -> go.Scatter:
    return go.Scatter(
        x=list(ends),
        y=[value] * len(ends),
        mode="lines",
        line={"dash": "longdashdot", "width": 1.2},
        name=_name(name),
        hovertemplate="%{y:.4g}",
        meta=_meta("reference"),
    )
