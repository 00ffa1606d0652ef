"""What a multirun says of its jobs: their states while they are on a cluster, and a table of them at the end."""

import logging
import shlex
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

from pipeline.runtime.command_line import installed_command, own_command
from pipeline.runtime.console import QUIET, console, verbosity
from pipeline.views.html.runs import LocalRun, runs_below
from pipeline.views.listing import Listing, plain_lines, terminal_table

log = logging.getLogger(__name__)

SECONDS = 2.0
"""Between two looks at the folders of jobs that run elsewhere."""
ENDED = ("completed", "failed", "interrupted", "unreadable")


@contextmanager
def states_told(folder: Path, jobs: int) -> Iterator[None]:
    """Meanwhile, a line whenever the states of the jobs of a multirun have changed."""
    ended = Event()
    watcher = Thread(target=_watch, args=(folder, jobs, ended), name="states of jobs", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()


def _watch(folder: Path, jobs: int, ended: Event) -> None:
    said = None
    while True:
        found = _states(folder, jobs)
        if found != said:
            said = found
            log.info("%d jobs: %s", jobs, found)
        if ended.wait(SECONDS):
            return


def _states(folder: Path, jobs: int) -> str:
    """``2 completed, 1 running, 5 waiting``; a job is running until its summary says something else."""
    counts = Counter(run.summary.status or "running" for run in sweep_jobs(folder))
    waiting = jobs - sum(counts.values())
    told = [f"{counts[state]} {state}" for state in (*ENDED, "running") if counts[state]]
    return ", ".join([*told, *([f"{waiting} waiting"] if waiting > 0 else [])])


def sweep_jobs(folder: Path) -> list[LocalRun]:
    """The runs of a multirun, in natural order."""
    return runs_below(folder)


def tell_sweep(folder: Path) -> None:
    """Print the table of the jobs, and the commands that make something of all of them."""
    runs = sweep_jobs(folder)
    if not runs or verbosity() == QUIET:
        return
    listing, out = Listing.of(runs), console()
    if out.is_terminal:
        out.print(terminal_table(listing, out.width))
    else:
        for line in plain_lines(listing):
            out.print(line, soft_wrap=True)
    place = shlex.quote(str(folder))
    told = {"table": f"{own_command()} sweep {place}", "report": f"{own_command()} report {place}"}
    if any(any((run.folder / "wandb").glob("offline-run-*")) for run in runs):
        told["upload"] = f"{installed_command('wandb')} sync {place}/*/wandb/offline-run-*"
    for name, command in told.items():
        out.print(f"{name:<12}{command}", soft_wrap=True)
