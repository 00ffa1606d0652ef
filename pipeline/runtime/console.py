"""What the command shows: how much (``--quiet``, ``--verbose``), and to what kind of terminal.

How much is kept in an environment variable, so that jobs on a cluster and other processes of a run know it too. It is
no setting: it changes neither results nor the record, and is not part of it.
"""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pipeline.runtime.text import printable_lines

if TYPE_CHECKING:
    from rich.console import Console

VARIABLE = "DNC_VERBOSITY"
QUIET, NORMAL, VERBOSE = "quiet", "normal", "verbose"
WIDTH = 110
"""Columns where there is no terminal that has its own."""


def verbosity() -> str:
    """``quiet``, ``normal`` or ``verbose``."""
    chosen = os.environ.get(VARIABLE)
    return chosen if chosen in (QUIET, VERBOSE) else NORMAL


@contextmanager
def showing(chosen: str | None) -> Iterator[None]:
    """Show this much meanwhile; None leaves it as it is."""
    before = os.environ.get(VARIABLE)
    if chosen is not None:
        os.environ[VARIABLE] = chosen
    try:
        set_levels()
        yield
    finally:
        os.environ.pop(VARIABLE, None)
        if before is not None:
            os.environ[VARIABLE] = before
        set_levels()


def set_levels() -> None:
    """Set what loggers let pass; once more after Hydra has set up a job's logging. The log file keeps all of INFO."""
    quiet, verbose = verbosity() == QUIET, verbosity() == VERBOSE
    logging.getLogger("pipeline").setLevel(logging.DEBUG if verbose else logging.NOTSET)
    for name in ("hydra", "hydra_plugins"):
        logging.getLogger(name).setLevel(logging.WARNING if quiet else logging.NOTSET)
    logging.getLogger("matplotlib").setLevel(logging.NOTSET if verbose else logging.WARNING)  # of its font cache
    for handler in logging.root.handlers:
        if verbose and isinstance(handler, logging.FileHandler):
            handler.setLevel(logging.INFO)
        elif quiet and getattr(handler, "stream", None) in (sys.stdout, sys.stderr):
            handler.setLevel(logging.WARNING)


@contextmanager
def held_back() -> Iterator[list[logging.LogRecord]]:
    """Keep what is logged meanwhile, for `say`: it is said before a run has its log. An error is said after it."""
    logger, kept = logging.getLogger("pipeline"), []
    handler = logging.Handler()
    handler.emit = kept.append
    propagate, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    failed = True
    try:
        yield kept
        failed = False
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate
        if failed:
            say(kept)


def say(kept: list[logging.LogRecord]) -> None:
    """Log what was held back; there is nothing left to be said afterwards."""
    records = kept.copy()
    kept.clear()
    for record in records:
        logging.getLogger(record.name).handle(record)


def escape_what_cannot_be_encoded() -> None:
    """A class called Größe must not end a run under ``LANG=C``; it is printed as ``Gr\\xf6\\xdfe``."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


class PlainFormatter(logging.Formatter):
    """Log lines in which nothing that a file or a folder is called commands the terminal."""

    def format(self, record: logging.LogRecord) -> str:
        return printable_lines(super().format(record))


def console(*, stderr: bool = False) -> "Console":
    """Standard output or error; control characters only for a terminal that understands them, whatever is forced."""
    from pipeline.runtime.plain_console import PlainConsole  # here: --help and refused arguments need no rich

    stream = sys.stderr if stderr else sys.stdout
    terminal = stream.isatty() and os.environ.get("TERM") != "dumb"
    # Names of classes and folders are no markup.
    return PlainConsole(
        stderr=stderr, force_terminal=terminal, width=None if stream.isatty() else WIDTH, markup=False, emoji=False
    )
