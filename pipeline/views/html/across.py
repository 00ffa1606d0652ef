"""Several runs side by side: a table of what came out, in which settings they differ, and their curves together."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from pipeline.storage.summary import MetricDisplay, Stage
from pipeline.views.html.charts import Chart, Ends, Stroke, across_runs, over_steps
from pipeline.views.html.columns import Columns
from pipeline.views.html.comparing import differing
from pipeline.views.html.curves import OF_HEADS
from pipeline.views.html.formatting import flat, one_line
from pipeline.views.html.legend import Entry, legend
from pipeline.views.html.markup import Html, table, tag
from pipeline.views.html.palette import Pair, ramp
from pipeline.views.html.runs import LocalRun
from pipeline.views.html.series import Line, final, lines
from pipeline.views.shown import layers, leading_stage, panels, place_names

MOST_NAMED = 3
"""Settings that go into a run's label, if no more differ."""


def labels(runs: Sequence[LocalRun]) -> list[str]:
    """What the runs are called in legends: their name, and the settings in which they differ if these are few."""
    changed = differing([flat(run.config) for run in runs])
    if not 0 < len(changed) <= MOST_NAMED:
        return [run.name for run in runs]
    return [
        f"{run.name}: " + ", ".join(f"{key}={values[index]}" for key, values in changed.items())
        for index, run in enumerate(runs)
    ]


def overview(runs: Sequence[LocalRun], anchors: Sequence[str]) -> Html:
    """One row per run, with a link to its part of the page."""
    columns = Columns.of(runs)
    head = ["run", "verdict", "status", "protocol", "data / backbone", *columns.numbers.values()]
    rows = [
        [
            tag("a", run.name, href=f"#{anchor}"),
            one_line(run.title, 140),
            run.status,
            run.protocol,
            run.subject,
            *columns.cells(run),
        ]
        for run, anchor in zip(runs, anchors, strict=True)
    ]
    return table("; ".join(filter(None, ("The runs", columns.caption))), head, rows, "overview")


def settings(runs: Sequence[LocalRun]) -> Html:
    """The settings in which the runs differ."""
    changed = differing([flat(run.config) for run in runs])
    if not changed:
        return tag("p", "All runs have the same configuration.")
    return table(
        "Settings that differ", ["setting", *(run.name for run in runs)], ([k, *v] for k, v in changed.items())
    )


@dataclass(frozen=True)
class Compared:
    """A run in the comparison: its place among all, what it is called, its colours, its record, its leading stage."""

    index: int
    name: str
    colors: Pair
    run: LocalRun
    frame: pd.DataFrame
    stage: Stage


def together(runs: Sequence[LocalRun], frames: Sequence[pd.DataFrame | None]) -> Html:
    """Metrics of the last layer, loss and gap of all runs over the steps, and the profiles over the layers.

    Of each run its head is shown or, where it has none, the last stage with layers.
    """
    named = zip(runs, labels(runs), ramp(len(runs)), frames, strict=True)
    shown = [
        Compared(index, name, colors, run, frame, stage)
        for index, (run, name, colors, frame) in enumerate(named)
        if frame is not None and (stage := leading_stage(run.summary, frame))
    ]
    if not shown:
        return tag("p", "None of the runs has recorded anything of a layer.")
    metrics = _metrics(shown)
    over = [_over_steps(shown, m.name, f"{m.text}, last layer", m.logarithmic) for m in metrics]
    charts = [*over, *(_profile(shown, metric) for metric in metrics)]
    charts += [_over_steps(shown, name, title, logarithmic=True) for name, title in OF_HEADS.items()]
    entries = [Entry(str(one.index), one.name, one.colors) for one in shown]
    of_heads = all(one.stage.numbered for one in shown)
    note = "Medians over the seeds, in a band from the smallest to the largest; " + (
        "head layers after the activation." if of_heads else "layers after the activation."
    )
    figures = tag("div", *(chart.html() for chart in charts if chart is not None), class_="charts")
    legends = tag("div", legend("Runs", "run", entries), class_="legends")
    return tag("section", tag("p", note, class_="note"), legends, figures, class_="panel", aria_label="Comparison")


def _metrics(shown: Sequence[Compared]) -> list[MetricDisplay]:
    """Metrics that any of the runs shows of its leading stage; each once."""
    found: dict[str, MetricDisplay] = {}
    for one in shown:
        for metric in panels(one.run.summary, one.frame[one.frame.stage == one.stage.name]):
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
    last = layers(one.frame, one.stage.name)[-1:]
    found = lines(one.frame, one.stage.name, metric, logarithmic=logarithmic)
    return [line for line in found if line.layer in ("", *last)][-1:]  # before the activation comes first


def _profile(shown: Sequence[Compared], metric: MetricDisplay) -> Chart | None:
    of_heads = all(one.stage.numbered for one in shown)
    ends = {one.name: (one.colors, _entering(one, metric.name)) for one in shown}
    axis = "layer of the head" if of_heads else "layer, in the order of the data's flow"
    return across_runs(metric, ends, {one.name: str(one.index) for one in shown}, axis)


def _entering(one: Compared, metric: str) -> Ends:
    """The metric of what enters each layer of the leading stage: the features, then activations."""
    order = layers(one.frame, one.stage.name)
    places = final(one.frame, metric, place_names(one.run.summary, one.frame))
    return [
        (order.index(place.layer) + 1, place)
        for place in places
        if place.stage == one.stage.name and (place.tap == "post" or place.layer == order[0])
    ]
