"""What of a record is shown, in which order and under which names: one answer for figures, reports and dashboards."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from pipeline.storage.summary import HEAD, MetricDisplay, RunSummary, Stage

if TYPE_CHECKING:
    import pandas as pd

MOST_PANELS = 6
"""Metrics that are drawn side by side, however many there are."""

NO_SUMMARY = RunSummary({})
"""Of rows that belong to no run: metrics are shown as the registry says."""

Names = dict[tuple[str, str], str]
"""Stage and layer -> what the place is called, in the order of the data's flow."""


def panels(summary: RunSummary, rows: "pd.DataFrame") -> list[MetricDisplay]:
    """Metrics of layers to draw: those among ``rows`` that are drawn by default, or else the first of the others."""
    of_layers = rows[rows.layer != ""]
    present = list(of_layers.metric.unique())
    order = [*(name for name in summary.metrics if name in present), *(n for n in present if n not in summary.metrics)]
    metrics = [summary.metric(name) for name in order if not is_test_twin(name, present)]
    chosen = [metric for metric in metrics if metric.panel] or metrics
    return [metric for metric in chosen if drawable(of_layers, metric).any()][:MOST_PANELS]


def is_test_twin(name: str, present: Sequence[str]) -> bool:
    """Whether the metric is another one, on the test split."""
    return name.startswith("test_") and name.removeprefix("test_") in present


def drawable(rows: "pd.DataFrame", metric: MetricDisplay) -> "pd.Series":
    """Which rows hold a value of the metric that its axis can show."""
    mask = (rows.metric == metric.name) & np.isfinite(rows.value)
    return mask & (rows.value > 0) if metric.logarithmic else mask


def layers(frame: "pd.DataFrame", stage: str) -> list[str]:
    """Layers of a stage, in the order in which they were measured, which is that of data flow."""
    return list(frame.layer[(frame.stage == stage) & (frame.layer != "")].unique())


def stages_at_the_end(summary: RunSummary, frame: "pd.DataFrame") -> list[Stage]:
    """Stages whose layers make up the result, in the order of data flow; those on the way to it if it has none."""
    measured = summary.in_order(set(frame.stage[frame.layer != ""].unique()))
    return [stage for stage in measured if not stage.intermediate] or measured


def leading_stage(summary: RunSummary, frame: "pd.DataFrame") -> Stage | None:
    """The stage that stands for the run where several are compared: its head, or else the last one with layers."""
    measured = stages_at_the_end(summary, frame)
    heads = [stage for stage in measured if stage.name == HEAD]
    return (heads or measured or [None])[-1]


def layer_name(stage: Stage, layer: str, numbered: str = "layer {}") -> str:
    """Blocks of a network by name, layers of a head by number."""
    return numbered.format(layer) if stage.numbered else layer.removeprefix("network.")


def place_names(summary: RunSummary, frame: "pd.DataFrame", numbered: str = "layer {}") -> Names:
    """What the layers at the end are called; with their stage where two stages have layers of one name."""
    stages = stages_at_the_end(summary, frame)
    places = [(stage, layer) for stage in stages for layer in layers(frame, stage.name)]
    named = [layer_name(stage, layer) for stage, layer in places if not stage.numbered]
    if any(name.startswith("layer") for name in named):  # "layer1.0" of a network beside "layer 1" of a head
        numbered = f"head {numbered}"
    short = [layer_name(stage, layer, numbered) for stage, layer in places]
    return {
        (stage.name, layer): name if short.count(name) == 1 else f"{stage.title}: {name}"
        for (stage, layer), name in zip(places, short, strict=True)
    }


def families(rows: "pd.DataFrame") -> dict[str, list[str]]:
    """Metrics of a whole stage that belong into one panel, by what they have in common: ``loss``, ``accuracy``, ...

    Those of the training and of the test split do.
    """
    found: dict[str, list[str]] = {}
    for name in rows.metric[rows.layer == ""].unique():
        found.setdefault(name.removeprefix("train_").removeprefix("test_"), []).append(name)
    return found


def looks_logarithmic(values: "pd.Series") -> bool:
    """Whether a logarithmic axis suits numbers that nothing is known of: all positive, and more than a decade."""
    return bool((values > 0).all()) and values.max() > 10 * values.min()
