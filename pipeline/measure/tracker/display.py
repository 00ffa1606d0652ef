"""How a tracker shows itself, in a terminal and in a notebook."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

import pandas as pd

from pipeline.metrics.registry import CLASS


def summary(model: str, num_classes: int, layers: Iterable[str], history: pd.DataFrame) -> str:
    """One line: the network, its classes, what is measured, and how often that was done."""
    steps = history.step.unique()
    done = f"{len(steps)} measured, the last at step {steps[-1]}" if len(steps) else "not measured yet"
    return f"CollapseTracker({model}, num_classes={num_classes}, layers=[{', '.join(layers)}]: {done})"


def as_html(line: str, history: pd.DataFrame) -> str:
    """That line, and the last measurement as a table of layers by metrics."""
    if history.empty:
        return f"<p>{escape(line)}</p>"
    last = history[history.step == history.step.iloc[-1]].drop_duplicates(["layer", "tap", "metric"], keep="last")
    last = last[~last.metric.str.contains(CLASS, regex=False)]  # they have a table of their own
    table = pd.DataFrame(index=pd.MultiIndex.from_frame(last[["layer", "tap"]].drop_duplicates()))
    for metric, rows in last.groupby("metric", sort=False):
        table[metric] = rows.set_index(["layer", "tap"])["value"]
    return f"<p>{escape(line)}</p>\n{table.to_html(float_format='{:.4g}'.format, na_rep='')}"
