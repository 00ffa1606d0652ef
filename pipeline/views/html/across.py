"""Several runs side by side: a table of what came out, in which settings they differ, and their curves together."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pandas as pd

from pipeline.storage.summary import MetricDisplay, Stage
from pipeline.views.html.charts import Chart, Ends, Stroke, across_runs, heat, over_steps
from pipeline.views.html.columns import Columns
from pipeline.views.html.curves import OF_HEADS
from pipeline.views.html.formatting import one_line
from pipeline.views.html.legend import Entry, legend
from pipeline.views.html.markup import Html, data, table, tag
from pipeline.views.html.palette import Pair, ramp
from pipeline.views.html.runs import LocalRun
from pipeline.views.html.series import Line, final, lines
from pipeline.views.shown import Names, layers, leading_stage, panels, place_names
from pipeline.views.varying import SUBJECTS, Varied, varied

MOST_WORDS = 60
"""Letters of what a run came to that stand in its row."""
MOST_CURVES = 100
"""Runs that are drawn; of more, no curve could be told from its neighbours, and the page would take a minute."""
MOST_NAMED = 3
"""Settings that go into a run's label, if no more differ."""


def labels(runs: Sequence[LocalRun]) -> list[str]:
    """What the runs are called in legends: their name, and the settings in which they differ if these are few."""
    changed = varied(runs)
    if not 0 < len(changed) <= MOST_NAMED:
        return [run.name for run in runs]
    said = zip(*(one.texts() for one in changed), strict=True)
    return [
        f"{run.name}: " + ", ".join(f"{one.label}={text or '-'}" for one, text in zip(changed, texts, strict=True))
        for run, texts in zip(runs, said, strict=True)
    ]


def overview(runs: Sequence[LocalRun], anchors: Sequence[str]) -> Html:
    """One row per run, with a link to its part of the page; settings that differ first. Its columns sort it."""
    columns, changed = Columns.of(runs), [one for one in varied(runs) if one.key not in SUBJECTS]
    kinds = {"protocol": [run.protocol for run in runs], "data / backbone": [run.subject for run in runs]}
    shared = [f"{name} {values[0]}" for name, values in kinds.items() if len(set(values)) == 1 and values[0]]
    kinds = {name: values for name, values in kinds.items() if len(set(values)) > 1}
    head = ["run", *(one.label for one in changed), "status", *columns.numbers.values(), columns.words, *kinds]
    swept = [one.texts() for one in changed]
    rows = [
        [
            tag("a", run.name, href=f"#{anchor}"),
            *(texts[index] for texts in swept),
            run.status,
            *columns.cells(run),
            tag("span", one_line(columns.rest(run), MOST_WORDS), title=run.title),
            *(values[index] for values in kinds.values()),
        ]
        for index, (run, anchor) in enumerate(zip(runs, anchors, strict=True))
    ]
    said = ["The runs (a column's head sorts them)", *shared, columns.caption]
    return table("; ".join(filter(None, said)), head, rows, "overview sortable")


def settings(runs: Sequence[LocalRun]) -> Html:
    """The settings in which the runs differ, one row each, with their values and how many runs have them."""
    changed = varied(runs)
    if not changed:
        return tag("p", "All runs have the same configuration.")
    rows = []
    for one in changed:
        counts = Counter(one.texts())
        values = (f"{value or '(absent)'} ({count} run{'s' * (count > 1)})" for value, count in counts.items())
        rows.append([one.key, ", ".join(values)])
    return table("Settings that differ", ["setting", "values"], rows)


def heat_maps(runs: Sequence[LocalRun]) -> Html:
    """The numbers of the overview over the two settings with the most values; nothing where fewer than two differ."""
    changed = varied(runs)[:2]
    if len(changed) < 2:
        return Html("")
    rows, columns = (_values(one) for one in changed)
    inside: dict[tuple[str, ...], list[LocalRun]] = {}
    for run, *at in zip(runs, *(one.texts() for one in changed), strict=True):
        inside.setdefault(tuple(at), []).append(run)
    over, shown = ", ".join(one.key for one in varied(runs)[2:]), run_metrics(runs)
    charts = []
    for name, label in Columns.of(runs).numbers.items():
        metric = next((m for run in runs if (m := run.summary.metrics.get(name))), MetricDisplay(name, label))
        worst = min if metric.target == 1 and not metric.logarithmic else max
        cells = [[_worst(inside.get((row, column), ()), name, worst) for column in columns] for row in rows]
        title = label if name not in shown else metric.text
        charts.append(heat(title, changed[0].key, changed[1].key, rows, columns, cells))
    note = f"A cell is the worst run over {over}." if over else "A cell is a run."
    grid = tag("div", *(chart.html() for chart in charts if chart is not None), class_="charts")
    return tag("section", tag("p", note, class_="note"), grid, class_="panel", aria_label="Heat maps")


def run_metrics(runs: Sequence[LocalRun]) -> set[str]:
    """Names of the metrics that the runs say how to show."""
    return {name for run in runs for name in run.summary.metrics}


def _values(one: Varied) -> list[str]:
    """The different values in their order: numbers by size, words as they come."""
    pairs = dict(zip(one.texts(), one.values, strict=True))
    if all(isinstance(value, int | float) for value in pairs.values()):
        return sorted(pairs, key=pairs.get)
    return list(pairs)


def _worst(runs: Sequence[LocalRun], name: str, worst: Callable[[list[float]], float]) -> float | None:
    """Of the runs in a cell."""
    known = [value for run in runs if isinstance(value := run.known_by(name), int | float)]
    return worst(known) if known else None


def drawn(runs: Sequence[LocalRun]) -> tuple[set[int], str]:
    """Places of the runs whose curves are drawn, and which these are if not all; completed ones, with both ends."""
    if len(runs) <= MOST_CURVES:
        return set(range(len(runs))), ""
    name, label = next(iter(Columns.of(runs).numbers.items()), ("", ""))
    known = [run.known_by(name) for run in runs]
    numbers = {at: value for at, value in enumerate(known) if isinstance(value, int | float)}
    order = sorted(numbers, key=numbers.__getitem__) or list(range(len(runs)))
    last, steps = len(order) - 1, min(MOST_CURVES, len(order)) - 1
    found = {order[round(step * last / max(steps, 1))] for step in range(steps + 1)}
    among = f"evenly among those sorted by {label}, with the smallest and the largest" if numbers else "evenly"
    return found, f"{len(found)} of the {len(runs)} runs are drawn, chosen {among}."


@dataclass(frozen=True)
class Compared:
    """A run in the comparison: its place among all, what it is called, its colours, its leading stage.

    Of the record: ``frame`` has the leading stage, ``last`` only its last layer and what belongs to no layer, ``ends``
    only the last step. ``order`` are the stage's layers, ``names`` what all places at the end are called.
    """

    index: int
    name: str
    colors: Pair
    run: LocalRun
    stage: Stage
    frame: pd.DataFrame
    last: pd.DataFrame
    ends: pd.DataFrame
    order: list[str]
    names: Names

    @classmethod
    def of(cls, index: int, name: str, colors: Pair, run: LocalRun, record: pd.DataFrame) -> "Compared | None":
        """The run, if its record has a layer; whatever is asked of the record later is asked of few rows."""
        stage = leading_stage(run.summary, record)
        if stage is None:
            return None
        frame = record[record.stage == stage.name]
        order = layers(frame, stage.name)
        last, ends = frame[frame.layer.isin(["", *order[-1:]])], frame[frame.step == frame.step.max()]
        return cls(index, name, colors, run, stage, frame, last, ends, order, place_names(run.summary, record))


def together(runs: Sequence[LocalRun], frames: Sequence[pd.DataFrame | None], which: str = "") -> Html:
    """Metrics of the last layer, loss and gap of all runs over the steps, and the profiles over the layers.

    Of each run its head is shown or, where it has none, the last stage with layers. Without a frame a run is left out;
    ``which`` says why.
    """
    named = zip(runs, labels(runs), ramp(len(runs)), frames, strict=True)
    shown = [
        one
        for index, (run, name, colors, frame) in enumerate(named)
        if frame is not None and (one := Compared.of(index, name, colors, run, frame))
    ]
    if not shown:
        return tag("p", "None of the runs has recorded anything of a layer.")
    metrics = _metrics(shown)
    over = [_over_steps(shown, m.name, f"{m.text}, last layer", m.logarithmic) for m in metrics]
    charts = [*over, *(_profile(shown, metric) for metric in metrics)]
    charts += [_over_steps(shown, name, title, logarithmic=True) for name, title in OF_HEADS.items()]
    entries = [Entry(str(one.index), one.name, one.colors) for one in shown]
    choice = _coloured_by(runs)
    of_heads = all(one.stage.numbered for one in shown)
    note = "Medians over the seeds, in a band from the smallest to the largest; " + (
        "head layers after the activation." if of_heads else "layers after the activation."
    )
    note += f" {which}" if which else ""
    figures = tag("div", *(chart.html() for chart in charts if chart is not None), class_="charts")
    legends = tag("div", choice, legend("Runs", "run", entries), class_="legends")
    return tag("section", tag("p", note, class_="note"), legends, figures, class_="panel", aria_label="Comparison")


def _coloured_by(runs: Sequence[LocalRun]) -> Html:
    """A choice of what the curves are coloured by: the run, or a setting that differs."""
    changed = [one for one in varied(runs) if len(set(one.texts())) < len(runs)]
    if not changed:
        return Html("")
    palettes = {"run": [list(pair) for pair in ramp(len(runs))]}
    for one in changed:
        order = _values(one)
        colors = dict(zip(order, ramp(len(order)), strict=True))
        palettes[one.key] = [list(colors[text]) for text in one.texts()]
    options = (tag("option", name, value=name) for name in palettes)
    label = tag("label", "coloured by ", tag("select", *options, data_colors=True))
    return tag("div", label, data(palettes, "palettes"), class_="legend choice")


def _metrics(shown: Sequence[Compared]) -> list[MetricDisplay]:
    """Metrics that any of the runs shows of its leading stage; each once."""
    found: dict[str, MetricDisplay] = {}
    for one in shown:
        for metric in panels(one.run.summary, one.frame):
            found.setdefault(metric.name, metric)
    return list(found.values())


def _over_steps(shown: Sequence[Compared], metric: str, title: str, logarithmic: bool) -> Chart | None:
    strokes = [
        Stroke(line, one.name, one.colors, {"run": str(one.index)})
        for one in shown
        for line in _of_last_layer(one, metric, logarithmic)
    ]
    unit = " or ".join(dict.fromkeys(one.stage.unit for one in shown))
    return over_steps(title, strokes, unit, logarithmic=logarithmic)


def _of_last_layer(one: Compared, metric: str, logarithmic: bool) -> list[Line]:
    """The metric of what enters the last weight matrix, or of the whole stage."""
    return list(lines(one.last, one.stage.name, metric, logarithmic=logarithmic))[-1:]  # before activation comes first


def _profile(shown: Sequence[Compared], metric: MetricDisplay) -> Chart | None:
    of_heads = all(one.stage.numbered for one in shown)
    ends = {one.name: (one.colors, _entering(one, metric.name)) for one in shown}
    axis = "layer of the head" if of_heads else "layer, in the order of the data's flow"
    return across_runs(metric, ends, {one.name: str(one.index) for one in shown}, axis)


def _entering(one: Compared, metric: str) -> Ends:
    """The metric of what enters each layer of the leading stage: the features, then activations."""
    return [
        (one.order.index(place.layer) + 1, place)
        for place in final(one.ends, metric, one.names)
        if place.tap == "post" or place.layer == one.order[0]
    ]
