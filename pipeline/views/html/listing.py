"""``dnc list``: the runs on this machine as a table, the latest first."""

import time
from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from pipeline.runtime.text import printable
from pipeline.views.html.columns import Columns
from pipeline.views.html.formatting import age, one_line
from pipeline.views.html.runs import LocalRun

STYLES = {"completed": "green", "running": "yellow"} | dict.fromkeys(
    ("killed", "failed", "interrupted", "unreadable"), "red"
)


def runs_table(runs: Sequence[LocalRun]) -> Table:
    """One row per run; numbers are those of the summary (medians over seeds)."""
    columns = Columns.of(runs)
    table = Table(caption=columns.caption)
    table.add_column("run", overflow="fold")
    for column in ("status", "protocol", "data / backbone"):
        table.add_column(column)
    for label in columns.numbers.values():
        table.add_column(_plain(label), justify="right", no_wrap=True)
    table.add_column(columns.words)
    table.add_column("age", justify="right", no_wrap=True)
    now = time.time()
    for run in sorted(runs, key=lambda run: run.changed, reverse=True):
        status = Text(printable(run.status), STYLES.get(run.status, ""))
        words = one_line(columns.rest(run), 60)
        texts = [run.protocol, run.subject, *columns.cells(run), words, age(now - run.changed)]
        table.add_row(_plain(run.name), status, *map(_plain, texts))
    return table


def _plain(text: str) -> Text:
    """Names are the user's, and values may be a stranger's: neither rich nor the terminal obeys them."""
    return Text(printable(text))
