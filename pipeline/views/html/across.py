"""Several runs side by side: a table of what came out, in which settings they differ, and their curves together."""

from collections.abc import Sequence

import pandas as pd

from pipeline.views.html.charts import TITLES, Stroke, across_runs, over_steps
from pipeline.views.html.comparing import differing
from pipeline.views.html.formatting import flat, number, one_line
from pipeline.views.html.legend import Entry, legend
from pipeline.views.html.markup import Html, table, tag
from pipeline.views.html.palette import ramp
from pipeline.views.html.runs import METRICS, LocalRun
from pipeline.views.html.series import Line, final, layers, lines

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
    head = ["run", "verdict", "status", "protocol", "data / backbone", "gap", *(metric.upper() for metric in METRICS)]
    rows = [
        [
            tag("a", run.name, href=f"#{anchor}"),
            one_line(run.verdict, 140),
            run.status,
            run.protocol,
            run.subject,
            *(number(value) for value in (run.gap, *run.last_layer.values())),
        ]
        for run, anchor in zip(runs, anchors, strict=True)
    ]
    return table(
        "The runs; gap of the loss to the optimum and DNC1-3 of the head's last layer, medians", head, rows, "overview"
    )


def settings(runs: Sequence[LocalRun]) -> Html:
    """The settings in which the runs differ."""
    changed = differing([flat(run.config) for run in runs])
    if not changed:
        return tag("p", "All runs have the same configuration.")
    return table(
        "Settings that differ", ["setting", *(run.name for run in runs)], ([k, *v] for k, v in changed.items())
    )


def together(runs: Sequence[LocalRun], frames: Sequence[pd.DataFrame | None]) -> Html:
    """The last layer's DNC1-3, loss and gap of all runs over the steps, and the profiles over the head's layers."""
    names, colors = labels(runs), ramp(len(runs))
    shown = [index for index, frame in enumerate(frames) if frame is not None and "head" in set(frame.stage)]
    if not shown:
        return tag("p", "None of the runs has recorded anything of a head.")
    unit = " or ".join(dict.fromkeys(runs[index].step_unit("head") for index in shown))
    curves, profiles = [], []
    for metric in (*METRICS, "loss", "relative_gap"):
        strokes = [
            Stroke(line, names[index], colors[index], {"run": str(index)})
            for index in shown
            for line in _of_last_layer(frames[index], metric)
        ]
        where = ", last layer" if metric in METRICS else ""
        curves.append(over_steps(f"{TITLES[metric]}{where}", strokes, unit))
    keys = {names[index]: str(index) for index in shown}
    for metric in METRICS:
        ends = {names[index]: (colors[index], _entering(frames[index], metric)) for index in shown}
        profiles.append(across_runs(f"{TITLES[metric]}, at the end", ends, keys))
    charts = [*curves[: len(METRICS)], *profiles, *curves[len(METRICS) :]]
    entries = [Entry(str(index), names[index], colors[index]) for index in shown]
    note = "Medians over the seeds, in a band from the smallest to the largest; head layers after the activation."
    figures = tag("div", *(chart.html() for chart in charts if chart is not None), class_="charts")
    legends = tag("div", legend("Runs", "run", entries), class_="legends")
    return tag("section", tag("p", note, class_="note"), legends, figures, class_="panel", aria_label="Comparison")


def _of_last_layer(frame: pd.DataFrame, metric: str) -> list[Line]:
    """The metric of what enters the last weight matrix, or of the whole head."""
    last = layers(frame, "head")[-1:]
    found = [line for line in lines(frame, "head", metric) if line.layer in ("", *last)]
    return found[-1:]  # before the activation comes first


def _entering(frame: pd.DataFrame, metric: str) -> list:
    """The metric of what enters each weight matrix of the head: the features, then activations."""
    return [p for p in final(frame, metric) if p.stage == "head" and (p.tap == "post" or p.layer == "1")]
