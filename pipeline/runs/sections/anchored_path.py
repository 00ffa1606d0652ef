"""The layers of an anchor of several steps, measured: a straight path from the anchor to the features."""

from typing import Any

from pipeline.measure.heads import measure_head
from pipeline.metrics.engine.settings import MeasureSettings
from pipeline.metrics.registry import metrics
from pipeline.runs.solutions import HeadSolution

BESIDE = ("ncm_accuracy",)
"""Measured along the path besides the metrics that are drawn by default and those of the verdict."""


def anchored_path(head: HeadSolution, steps: int, judged: tuple[str, ...], settings: MeasureSettings) -> list[dict]:
    """Metrics of H_t = A + t/T (H - A), t = 0..T, per seed (progressive collapse, arXiv 2405.00985, recalled).

    Minimising mu/2 sum_t ||H_{t+1} - H_t||^2 over the layers between leaves them on this line (derived).

    Returns:
        One entry per t: ``step``, and name -> value per seed, None where it is undefined.
    """
    anchor, features = head.terms.anchor.features.to(head.features), head.features
    drawn = {name for name, metric in metrics().items() if metric.panel} | {*judged, *BESIDE}
    path: list[dict[str, Any]] = []
    for step in range(steps + 1):
        at = anchor + step / steps * (features - anchor)
        (place,) = measure_head(
            at, [], head.labels, head.num_classes, head.activation, settings=settings, classifies=False
        )
        found = {name: value.tolist() for name, value in place.values.items() if name in drawn}
        path.append({"step": step, **found})
    return path
