"""Running one of our programs: whatever happens, it ends with one sentence, and with a traceback only for ``-v``."""

import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from pipeline.runtime.command_line import EXIT_BAD_ARGUMENTS, EXIT_FAILED, exit_with
from pipeline.runtime.console import VERBOSE, verbosity
from pipeline.runtime.errors import ConfigError, RunError
from pipeline.runtime.interruption import Interrupted, interruption
from pipeline.runtime.startup import begin

LONGEST = 500
"""Characters of an error that nobody foresaw."""


def run_program(load: Callable[[], Callable[[], object]]) -> None:
    """Load a program (imports take seconds) and run it; a signal ends either in a sentence."""
    begin()
    with ended_in_a_sentence():
        with interruption.deferred():  # an import that is broken off leaves nothing to end with
            interruption.listen()
            program = load()
        interruption.exit_if_signalled()
        program()
    interruption.ignore_signals()


@contextmanager
def ended_in_a_sentence() -> Iterator[None]:
    """Within, what ends the program does so with a line on standard error and an exit code.

    2: bad arguments or settings, 1: failed, 130 and 143: ended by a signal. ``--verbose`` (also as the environment
    variable that stands for it) shows the traceback, too.
    """
    try:
        yield
    except (Interrupted, KeyboardInterrupt) as stop:
        number = stop.number if isinstance(stop, Interrupted) else signal.SIGINT
        interruption.ignore_signals()
        said = "interrupted" if number == signal.SIGINT else f"ended by {signal.Signals(number).name}"
        exit_with(said, 128 + number)
    except BrokenPipeError:  # nobody reads on
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(EXIT_FAILED)
    except Exception as error:
        told, code = sentence_of(error)
        if verbosity() == VERBOSE:
            traceback.print_exc()
        exit_with(f"error: {told}", code)


def sentence_of(error: Exception) -> tuple[str, int]:
    """What is said of an error, and the exit code."""
    if isinstance(error, ConfigError):
        return str(error), EXIT_BAD_ARGUMENTS
    if isinstance(error, RunError):
        return str(error), EXIT_FAILED
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or 'a file'}: {error.strerror}.", EXIT_FAILED
    if isinstance(error, MemoryError):
        return "out of memory.", EXIT_FAILED
    words = " ".join(str(error).split())
    words = words if len(words) <= LONGEST else f"{words[:LONGEST]} ..."
    words = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in words)
    what = f"{type(error).__name__}: {words}" if words else type(error).__name__
    return f"{what.rstrip('.')} (a bug of this package; please report what -v shows of it).", EXIT_FAILED
