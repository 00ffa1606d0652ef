"""Progress of a long stage: a bar on a terminal, a line now and then in a log."""

import logging
import sys
import time
from types import TracebackType
from typing import Any, ClassVar

from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.table import Column

from pipeline.runtime import ranks
from pipeline.runtime.console import QUIET, console, verbosity

log = logging.getLogger(__name__)

SECONDS_BETWEEN_LINES = 15.0
SECONDS_UNNOTICED = 3.0
"""How long something that is usually short may take before it is shown at all."""


class Progress:
    """Counts towards ``total`` with rate, time left and a headline metric.

    On a terminal stages within stages share one display. Only the first rank shows anything, and with ``--quiet`` only
    the log file is told.

    Args:
        stage: what is going on, e.g. ``head``.
        total: how many units there are.
        unit: what a unit is, e.g. ``step``.
        brief: whether it is usually short: then nothing is shown for a few seconds, and no end of what was not shown.
    """

    _display: ClassVar[Bar | None] = None  # the one that is live

    def __init__(self, stage: str, total: int, unit: str, *, brief: bool = False) -> None:
        self.stage, self.total, self.unit, self.brief = stage, total, unit, brief
        self.done = 0
        self.text = ""
        self.started = self.last_line = time.monotonic()
        self._first: tuple[int, float] | None = None  # units done and time when counting began
        self._lines = 0
        self._bar: Bar | None = None
        self._owner = False
        self._streams: list[tuple[logging.StreamHandler, Any]] = []

    def __enter__(self) -> "Progress":
        if not self.brief:
            self._show()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._hide()
        if kind is None and (self._lines or not self.brief):
            self._line()

    def advance_to(self, done: int) -> None:
        """``done`` units are done."""
        self.done, now = done, time.monotonic()
        self._first = self._first or (done, now)
        if self.brief and not self._bar and now - self.started > SECONDS_UNNOTICED:
            self._show()
        if self._bar:
            self._bar.update(self.task, completed=done, rate=self._rate())
        elif now - self.last_line > SECONDS_BETWEEN_LINES:
            self._line()

    def headline(self, text: str) -> None:
        """Show this beside the bar, e.g. the loss and the gap to the optimum."""
        self.text = text
        if self._bar:
            self._bar.update(self.task, headline=text)

    def _show(self) -> None:
        """Take a line of the display, which is opened if there is none, on a terminal."""
        screen = console(stderr=True)
        if not screen.is_terminal or verbosity() == QUIET or not ranks.is_first():
            return
        self._owner = Progress._display is None
        if self._owner:
            Progress._display = _display(screen)
            handlers = [handler for handler in logging.root.handlers if getattr(handler, "stream", None) is sys.stdout]
            Progress._display.start()
            # While the bar lives, sys.stdout prints above it; handlers hold on to the one there was before.
            self._streams = [(handler, handler.setStream(sys.stdout)) for handler in handlers]
        self._bar = Progress._display
        self.task = self._bar.add_task(self.stage, total=self.total, headline=self.text, rate="")

    def _hide(self) -> None:
        if self._owner:
            Progress._display = None
            self._bar.stop()
            for handler, stream in self._streams:
                handler.setStream(stream)
        else:
            self._bar.remove_task(self.task)
        self._bar = None

    def _line(self) -> None:
        self._lines, self.last_line = self._lines + 1, time.monotonic()
        per_second = self._per_second()
        left = f", {(self.total - self.done) / per_second:.0f} s left" if per_second and self.done < self.total else ""
        line = f"{self.stage}  {self.unit} {self.done}/{self.total}  {self._rate()}  "
        line += f"{self.last_line - self.started:.0f} s{left}  {self.text}"
        log.info("%s", line.rstrip())

    def _rate(self) -> str:
        per_second = self._per_second()
        plural = f"{self.unit}es" if self.unit.endswith("ch") else f"{self.unit}s"
        return f"{per_second:,.{0 if per_second >= 10 else 2}f} {plural}/s" if per_second else ""

    def _per_second(self) -> float:
        """Units per second since counting began: what an earlier attempt at the run has done took no time now."""
        now, (first, began) = time.monotonic(), self._first or (0, self.started)
        if self.done == first:
            first, began = 0, self.started
        return (self.done - first) / (now - began) if now > began else 0.0


def _display(screen: Any) -> Bar:
    fixed = {"table_column": Column(no_wrap=True)}
    return Bar(
        TextColumn("{task.description}", **fixed),
        BarColumn(bar_width=16),
        MofNCompleteColumn(**fixed),
        TextColumn("{task.fields[rate]}", **fixed),
        TimeRemainingColumn(**fixed),
        # Given what room there is, so that the others keep theirs.
        TextColumn("{task.fields[headline]}", table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis")),
        console=screen,
        transient=True,
        expand=True,
        # What goes to a file must not come out on the terminal.
        redirect_stdout=sys.stdout.isatty(),
    )
