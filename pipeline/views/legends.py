"""What the marks of a record's figures mean, as entries of a legend."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from pipeline.storage.summary import MetricDisplay, RunSummary, Stage
from pipeline.views import marks
from pipeline.views.shown import layer_name, layers
from pipeline.views.style import EXPLAINED, OPTIMUM, TEST, THRESHOLD, TRAIN

FILLED = {"post": True}
"""Dots are filled after the activation and open at every other tap."""
SPLITS = {"": (TRAIN, "o", -0.14), "test_": (TEST, "^", 0.14)}
"""What begins a metric's name -> colour, marker and place of its dots, so that neither split hides the other."""
BESIDE = {"post": -0.07, "pre": 0.07}
"""The same of taps."""
MOST_NAMED = 16
"""Layers in a legend; of more only some are named."""


def has_target_line(metric: MetricDisplay) -> bool:
    """Whether there is a value at collapse that the metric's axis can show."""
    return metric.target is not None and (metric.target > 0 or not metric.logarithmic)


def of_run(
    run: RunSummary,
    frame: pd.DataFrame,
    stages: Sequence[Stage],
    metrics: Sequence[MetricDisplay],
    colors: Mapping[str, Any],
) -> list[Any]:
    """Of `pipeline.views.figures.run_figure`."""
    names = {layer: layer_name(stage, layer) for stage in stages for layer in layers(frame, stage.name)}
    every = -(-len(names) // MOST_NAMED) or 1
    handles = [marks.line(name, colors[layer]) for layer, name in list(names.items())[::every]]
    taps = set(frame[frame.layer != ""].tap)
    handles += tap_handles(taps) if names else []
    if any(has_target_line(metric) for metric in metrics):
        handles.append(marks.line("theory's optimum" if run.has_head else "value at collapse", **OPTIMUM))
    test = frame.metric.isin([f"test_{metric.name}" for metric in metrics]).any()
    return handles + end_handles(taps, test=test, threshold=run.has_head)


def tap_handles(taps: set[str]) -> list[Any]:
    """Of lines before and after the activation, if there are both."""
    said = zip(("post", "pre"), EXPLAINED.items(), strict=True)
    return [marks.line(text, linestyle=dashes) for tap, (text, dashes) in said if tap in taps]


def end_handles(taps: set[str], *, test: bool, threshold: bool) -> list[Any]:
    """Of the dots of `plot_profile`."""
    handles = []
    for split, text in (("", "end, training"), ("test_", "end, test")):
        color, marker, _ = SPLITS[split]
        if split == "" or test:
            handles += [
                marks.dot(f"{text}, {named}", color, marker, filled=tap == "post")
                for tap, named in (("post", r"$\sigma(H_l)$"), ("pre", "$H_l$"))
                if tap in taps or (tap == "pre" and taps - {"post"})
            ]
    return handles + ([marks.line("threshold", **THRESHOLD)] if threshold else [])
