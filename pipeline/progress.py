"""Progress of a long stage: a bar on a terminal, a line now and then in a log."""

import logging
import sys
import time
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

log = logging.getLogger(__name__)

SECONDS_BETWEEN_LINES = 15.0


class Progress:
    """Counts towards ``total`` with rate, time left and a headline metric.

    Args:
        stage: what is going on, e.g. ``head``.
        total: how many units there are.
        unit: what a unit is, e.g. ``step``.
    """

    def __init__(self, stage: str, total: int, unit: str) -> None:
        self.stage, self.total, self.unit = stage, total, unit
        self.done = 0
        self.text = ""
        self.started = self.last_line = time.monotonic()
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[headline]}"),
        )
        console = Console(stderr=True)
        # What goes to a file must not come out on the terminal.
        options = {"console": console, "transient": True, "redirect_stdout": sys.stdout.isatty()}
        self.bar = Bar(*columns, **options) if console.is_terminal else None
        self._streams: list[tuple[logging.StreamHandler, Any]] = []
        if self.bar:
            self.task = self.bar.add_task(stage, total=total, headline="", rate="")

    def __enter__(self) -> "Progress":
        if self.bar:
            handlers = [handler for handler in logging.root.handlers if getattr(handler, "stream", None) is sys.stdout]
            self.bar.start()
            # While the bar lives, sys.stdout prints above it; handlers hold on to the one there was before.
            self._streams = [(handler, handler.setStream(sys.stdout)) for handler in handlers]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.bar:
            self.bar.stop()
            for handler, stream in self._streams:
                handler.setStream(stream)
        if kind is None:
            self._line()

    def advance_to(self, done: int) -> None:
        """``done`` units are done."""
        self.done = done
        if self.bar:
            self.bar.update(self.task, completed=done, rate=self._rate())
        elif time.monotonic() - self.last_line > SECONDS_BETWEEN_LINES:
            self._line()

    def headline(self, text: str) -> None:
        """Show this beside the bar, e.g. the loss and the gap to the optimum."""
        self.text = text
        if self.bar:
            self.bar.update(self.task, headline=text)

    def _line(self) -> None:
        self.last_line = time.monotonic()
        elapsed = self.last_line - self.started
        left = f", {elapsed / self.done * (self.total - self.done):.0f} s left" if 0 < self.done < self.total else ""
        log.info(
            "%s  %s %d/%d  %s  %.0f s%s  %s",
            self.stage,
            self.unit,
            self.done,
            self.total,
            self._rate(),
            elapsed,
            left,
            self.text,
        )

    def _rate(self) -> str:
        elapsed = time.monotonic() - self.started
        plural = f"{self.unit}es" if self.unit.endswith("ch") else f"{self.unit}s"
        return f"{self.done / elapsed:,.0f} {plural}/s" if elapsed > 0 else ""
