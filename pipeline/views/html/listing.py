"""``dnc list``: the runs on this machine as a table, the latest first."""

import time
from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from pipeline.views.html.formatting import age, number, one_line
from pipeline.views.html.runs import METRICS, LocalRun

STYLES = {"completed": "green", "running": "yellow", "killed": "red", "failed": "red", "interrupted": "red"}


def runs_table(runs: Sequence[LocalRun]) -> Table:
    """One row per run; numbers are those of the summary (medians over seeds)."""
    table = Table(caption="gap: of the loss to the closed-form optimum; DNC1-3: of the head's last layer; medians.")
    table.add_column("run", overflow="fold")
    for column in ("status", "protocol", "data / backbone"):
        table.add_column(column)
    for column in ("gap", *(metric.upper() for metric in METRICS)):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("collapse")
    table.add_column("age", justify="right", no_wrap=True)
    now = time.time()
    for run in sorted(runs, key=lambda run: run.changed, reverse=True):
        status = Text(run.status, STYLES.get(run.status, ""))
        numbers = [number(value) for value in (run.gap, *run.last_layer.values())]
        texts = [run.protocol, run.subject, *numbers, one_line(run.collapse, 60), age(now - run.changed)]
        # As Text, because rich reads plain strings as markup and names are the user's.
        table.add_row(Text(run.name), status, *map(Text, texts))
    return table
