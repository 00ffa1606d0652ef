"""Runs as one table for a terminal or a pipe.

What is the same in all runs stands once above it; settings that differ are columns.
"""

import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.cells import cell_len
from rich.console import Group
from rich.table import Table
from rich.text import Text

from pipeline.runtime.text import printable
from pipeline.views.html.columns import Columns
from pipeline.views.html.formatting import age, one_line
from pipeline.views.html.runs import LocalRun
from pipeline.views.varying import SUBJECTS, Varied, varied

STYLES = {"completed": "green", "running": "yellow"} | dict.fromkeys(
    ("killed", "failed", "interrupted", "unreadable"), "red"
)
WORDS, FEWEST_WORDS = 60, 11
"""Most and fewest letters of what a run is known by in words."""
KEPT = ("run", "status")
"""Columns that are shown however narrow the terminal is."""


@dataclass(frozen=True)
class Column:
    """One column: its key for programs, what stands above it, a text per run, and whether it is numbers.

    Attributes:
        rank: the column with the highest is left out first where the width does not suffice.
        cut: whether its texts may be cut.
    """

    key: str
    label: str
    texts: tuple[str, ...]
    rank: int
    right: bool = False
    cut: bool = False

    @property
    def width(self) -> int:
        """Of the widest cell."""
        return max(map(cell_len, (self.label, *self.texts)))


@dataclass(frozen=True)
class Listing:
    """Runs in the order in which they are shown.

    Attributes:
        place: the folder that their names begin at.
        settings: those that differ between the runs that these were chosen from.
        shared: what is the same in all of them, in words.
        among: how many runs they were chosen from.
    """

    runs: tuple[LocalRun, ...]
    place: str
    settings: Sequence[Varied]
    numbers: Columns
    shared: tuple[str, ...]
    among: int

    @classmethod
    def of(cls, runs: Sequence[LocalRun], among: Sequence[LocalRun] = ()) -> "Listing":
        """The listing of runs as they stand, chosen ``among`` others."""
        parents = [run.folder.parent for run in runs]
        shared_parent = Path(os.path.commonpath(parents))
        named = tuple(run.called(str(run.folder.relative_to(shared_parent))) for run in runs)
        shared = [_shared(named, attribute) for attribute in ("protocol", "subject")]
        among = among or runs
        place_of = {run.folder: place for place, run in enumerate(among)}
        places = [place_of[run.folder] for run in runs]
        settings = [
            replace(one, values=tuple(one.values[place] for place in places))
            for one in varied(among)
            if one.key not in SUBJECTS
        ]
        shared += [f"{one.key}={one.texts()[0]}" for one in settings if one.same and one.texts()[0]]
        return cls(
            named, _from_here(shared_parent), settings, Columns.of(named), tuple(filter(None, shared)), len(among)
        )

    @property
    def heading(self) -> str:
        """How many runs, where, and what all of them have in common."""
        shown = len(self.runs)
        count = f"{shown} of {self.among}" if shown < self.among else f"{shown}"
        return f"{count} run{'s' * (self.among != 1)} in {self.place}" + "".join(f" | {said}" for said in self.shared)

    def columns(self, when: Callable[[LocalRun], str], words: int | None) -> list[Column]:
        """All columns, in their order; ``words`` is the most letters of those that may be cut."""
        runs = self.runs
        found = [Column("run", "run", tuple(run.name for run in runs), 0)]
        for rank, one in enumerate(one for one in self.settings if not one.same):
            found.append(
                Column(one.key, one.label, tuple(one.texts()), 1 if rank < 4 else 6 + rank, right=_numeric(one.values))
            )
        found.append(Column("status", "status", tuple(run.status for run in runs), 0))
        if _shared(runs, "protocol") is None:
            found.append(Column("protocol", "protocol", tuple(run.protocol for run in runs), 13))
        if _shared(runs, "subject") is None:
            found.append(Column("subject", "data / backbone", tuple(run.subject for run in runs), 14))
        cells = [self.numbers.cells(run) for run in runs]
        for rank, (name, label) in enumerate(self.numbers.numbers.items()):
            texts = tuple(row[rank] for row in cells)
            found.append(Column(name, label, texts, (2, 3, 4, 5)[rank] if rank < 4 else 16 + rank, right=True))
        told = tuple(self._words(run, words) for run in runs)
        found.append(Column("result", self.numbers.words, told, 6, cut=True))
        found.append(Column("changed", "age", tuple(map(when, runs)), 15, right=True))
        return [column for column in found if column.key in KEPT or any(column.texts)]

    def _words(self, run: LocalRun, most: int | None) -> str:
        words = self.numbers.rest(run)
        return " ".join(words.split()) if most is None else one_line(words, most)


def terminal_table(listing: Listing, width: int) -> Group:
    """The table in at most ``width`` columns: names are never cut, less important columns give way and are named."""
    now = time.time()
    columns = listing.columns(lambda run: age(now - run.changed), WORDS)
    shown, left_out = _fitting(columns, width)
    caption = [listing.numbers.caption or ""]
    if left_out:
        names = ", ".join(column.label for column in columns if column.key in left_out)
        caption.append(f"Not shown at this width: {names} (--csv and --json have all).")
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in shown:
        table.add_column(_plain(column.label), justify="right" if column.right else "left", no_wrap=True)
    for row in zip(*(column.texts for column in shown), strict=True):
        cells = zip(shown, row, strict=True)
        table.add_row(*(_plain(text, STYLES.get(text, "") if c.key == "status" else "") for c, text in cells))
    return Group(_plain(listing.heading), table, Text(" ".join(filter(None, caption)), "dim italic"))


def plain_lines(listing: Listing) -> list[str]:
    """The table for a pipe: every column, nothing cut, no ornament; times as dates, so that it stays what it is."""
    columns = listing.columns(changed, None)
    rows = [[column.label.replace("age", "changed") for column in columns]]
    rows += [list(row) for row in zip(*(column.texts for column in columns), strict=True)]
    rows = [[printable(text) or "-" for text in row] for row in rows]
    widths = [max(cell_len(row[index]) for row in rows) for index in range(len(columns))]
    return [printable(listing.heading), *(_aligned(row, widths) for row in rows)]


def _fitting(columns: list[Column], width: int) -> tuple[list[Column], set[str]]:
    """The columns that fit, the last of them cut if it may be, and the keys of those that had to go."""
    shown = list(columns)
    while (over := sum(column.width + 2 for column in shown) - width) > 0:
        words = next((column for column in shown if column.cut and column.width > FEWEST_WORDS), None)
        if words and words.width - over >= FEWEST_WORDS:
            return [_cut(column, column.width - over) if column is words else column for column in shown], _gone(
                columns, shown
            )
        goes = max((column for column in shown if column.key not in KEPT), key=lambda c: c.rank, default=None)
        if goes is None:
            break
        shown.remove(goes)
    return shown, _gone(columns, shown)


def _gone(columns: list[Column], shown: list[Column]) -> set[str]:
    return {column.key for column in columns} - {column.key for column in shown}


def _cut(column: Column, width: int) -> Column:
    texts = tuple(one_line(text, width) for text in column.texts)
    return Column(column.key, column.label, texts, column.rank, column.right, column.cut)


def _aligned(row: Sequence[str], widths: Sequence[int]) -> str:
    padded = (text + " " * (width - cell_len(text)) for text, width in zip(row, widths, strict=True))
    return "  ".join(padded).rstrip()


def _shared(runs: Sequence[LocalRun], attribute: str) -> str | None:
    """What all runs have; None if they differ."""
    found = {getattr(run, attribute) for run in runs}
    return found.pop() if len(found) == 1 else None


def _numeric(values: Iterable[Any]) -> bool:
    return all(value is None or (isinstance(value, int | float) and not isinstance(value, bool)) for value in values)


def changed(run: LocalRun) -> str:
    """When the folder last heard of the run, UTC."""
    return datetime.fromtimestamp(run.changed, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _from_here(folder: Path) -> str:
    here = Path.cwd().resolve()
    return str(folder.relative_to(here) if folder.is_relative_to(here) else folder)


def _plain(text: str, style: str = "") -> Text:
    """Names are the user's, and values may be a stranger's: neither rich nor the terminal obeys them."""
    return Text(printable(text), style)
