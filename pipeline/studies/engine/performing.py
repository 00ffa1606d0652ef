"""Getting runs done: one after another, several at once, or through a Hydra launcher.

Whoever reproduces in the same folder at the same time shares the work: a run that another process makes is left to it,
and taken as done when it is.
"""

import logging
import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline.config.overrides import quoted
from pipeline.runtime.children import module_command
from pipeline.runtime.errors import RunError
from pipeline.runtime.interruption import Interrupted, interruption
from pipeline.runtime.lock import FolderLock, Occupied, occupied
from pipeline.storage.record import read_summary
from pipeline.storage.summary import COMPLETED
from pipeline.studies.engine.jobs import Job, Order
from pipeline.studies.engine.planning import by_folder
from pipeline.studies.engine.results import ended
from pipeline.studies.engine.study import Study
from pipeline.studies.engine.workers import Workers, working

log = logging.getLogger(__name__)

SECONDS_BETWEEN_LOOKS = 0.5
"""At signals, and at runs that other processes make."""


class Meter:
    """Counts runs and tells how long the rest will take, going by those done so far."""

    def __init__(self, wanted: int, total: int) -> None:
        self.wanted, self.done = wanted, 0
        self.started = time.monotonic()
        if total > wanted:
            log.info("%d of %d runs were finished before", total - wanted, total)

    def count(self, order: Order, note: str = "") -> None:
        """One more run is done; of one that failed the reason is told."""
        self.done += 1
        elapsed = time.monotonic() - self.started
        left = elapsed / self.done * (self.wanted - self.done)
        log.info(
            "[%d/%d, %.0f s, about %.0f s left] %s %s%s",
            self.done,
            self.wanted,
            elapsed,
            left,
            order.folder.parent.name,
            order.name,
            note + ended(read_summary(order.folder) or {"status": COMPLETED}),
        )


class Agenda:
    """Runs that are still to be made, and those that other processes are making."""

    def __init__(self, orders: Sequence[Order], meter: Meter) -> None:
        self._open, self._meter = list(orders), meter
        self._elsewhere: dict[Path, str] = {}  # who makes a run, as far as we have been told

    def __bool__(self) -> bool:
        return bool(self._open)

    def take(self) -> Order | None:
        """The next run that nobody makes; None if there is none. What another process has finished is counted."""
        for order in list(self._open):
            if occupied(order.folder):
                continue
            self._open.remove(order)
            if order.folder not in self._elsewhere or not order.is_done:
                return order
            self._meter.count(order, " (made by another process)")
        return None

    def report(self, order: Order, owner: str | None) -> None:
        """A run that was taken is finished, or being made by somebody else."""
        if owner is None:
            self._meter.count(order)
            return
        self._open.append(order)
        if order.folder not in self._elsewhere:
            log.info("%s %s is being made by %s", order.folder.parent.name, order.name, owner)
        self._elsewhere[order.folder] = owner

    def note_others(self) -> None:
        """Say which runs are waited for."""
        for order in self._open:
            if order.folder not in self._elsewhere:
                self._elsewhere[order.folder] = "another process"
                log.info("waiting for %s %s, which another process makes", order.folder.parent.name, order.name)


def perform_all(orders: Sequence[Order], workers: int, meter: Meter) -> None:
    """Make the runs, ``workers`` at once in processes of their own with an equal share of the CPU threads each.

    Raises:
        ConfigError, RunError: a run could not begin, or broke down; finished ones are kept.
        Interrupted: a signal has asked for the end; runs in progress have kept what they have.
    """
    interruption.exit_if_signalled()  # a signal that came too late for what was done before
    agenda = Agenda(orders, meter)
    if workers == 1 or len(orders) < 2:
        _one_by_one(agenda)
        return
    threads = max(1, (os.cpu_count() or 1) // workers)
    with interruption.deferred(), working(min(workers, len(orders)), threads) as processes:
        _several_at_once(agenda, processes)


def _one_by_one(agenda: Agenda) -> None:
    while agenda:
        interruption.exit_if_signalled()  # a signal that came too late for the run before
        order = agenda.take()
        if order is not None:
            agenda.report(order, order.perform())
        elif agenda:
            agenda.note_others()
            time.sleep(SECONDS_BETWEEN_LOOKS)


def _several_at_once(agenda: Agenda, workers: Workers) -> None:
    while agenda or workers.busy:
        for worker in workers.idle:
            if (order := agenda.take()) is None:
                break
            worker.give(order)
        if not workers.busy and agenda:
            agenda.note_others()
        for worker in workers.ready(SECONDS_BETWEEN_LOOKS):
            agenda.report(*worker.answer())
        if interruption.received:
            workers.stop(workers.busy)
            raise Interrupted(interruption.received)


def launch(
    studies: Sequence[Study], jobs: Mapping[str, list[Job]], overrides: Sequence[str], out: Path, launcher: str
) -> None:
    """Submit every grid that has unfinished runs as a Hydra multirun, all at once, and wait for them.

    Raises:
        RunError: a multirun failed, or another process submits these runs at this moment.
    """
    runs = out / "runs"
    runs.mkdir(parents=True, exist_ok=True)
    try:
        lock = FolderLock(runs)
    except Occupied as error:
        raise RunError(f"the runs in {runs} are being submitted by {error}.") from error
    running: dict[str, subprocess.Popen] = {}
    try:
        for name, command in _multiruns(studies, jobs, overrides, runs, launcher):
            log.info("submitting %s: dnc %s", name, " ".join(command))
            # The children hold the lock as well: should this process be killed, they go on, and it is theirs.
            running[name] = process = subprocess.Popen(
                module_command("pipeline", *command), stdin=subprocess.DEVNULL, pass_fds=[lock.fileno()]
            )
            if launcher == "basic":  # which makes the runs here: one multirun after another
                process.wait()
        failed = [name for name, process in running.items() if process.wait() != 0]
    except Interrupted:
        for process in running.values():
            process.terminate()
        for process in running.values():
            process.wait()
        raise
    finally:
        lock.release()
    if failed:
        raise RunError(f"these multiruns failed: {', '.join(failed)}.")


def _multiruns(
    studies: Sequence[Study], jobs: Mapping[str, list[Job]], overrides: Sequence[str], runs: Path, launcher: str
) -> list[tuple[str, list[str]]]:
    """Name and arguments of the multiruns whose jobs are not all finished."""
    made = []
    attempt = f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"  # so that no job meets the folder of an earlier one
    for study in studies:
        names = {job.point.name for job in by_folder(jobs[study.name]) if not job.is_finished}
        parts = [part for grid in study.grids for part in grid.parts(names.__contains__)]
        for number, part in enumerate(parts):
            named = [] if "experiment" in part.axes or not study.based else [f"experiment={study.name}"]
            command = [*part.multirun, *named, *overrides, f"hydra.sweep.dir={quoted(str(runs / study.name))}"]
            folder = f"{part.name or study.name}-{attempt}-{number}-${{hydra.job.num}}"
            command += [f"hydra/launcher={launcher}", f"hydra.sweep.subdir={folder}"]
            made.append((f"{study.name} {part.name}".strip(), command))
    return made
