"""Getting runs done: one after another, several at once, or through a Hydra launcher."""

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import active_children, get_context
from pathlib import Path

from pipeline.runtime.errors import RunError
from pipeline.studies.engine.runs import Job
from pipeline.studies.engine.study import Study

log = logging.getLogger(__name__)


class Meter:
    """Counts runs and tells how long the rest will take, going by those done so far."""

    def __init__(self, wanted: int, total: int) -> None:
        self.wanted, self.done = wanted, 0
        self.started = time.monotonic()
        if total > wanted:
            log.info("%d of %d runs were finished before", total - wanted, total)

    def count(self, job: Job) -> None:
        """One more run is done."""
        self.done += 1
        elapsed = time.monotonic() - self.started
        left = elapsed / self.done * (self.wanted - self.done)
        log.info(
            "[%d/%d, %.0f s, about %.0f s left] %s %s",
            self.done,
            self.wanted,
            elapsed,
            left,
            job.folder.parent.name,
            job.point.name,
        )


def perform_all(jobs: Sequence[Job], workers: int, meter: Meter) -> None:
    """Run the jobs, ``workers`` at once in processes of their own with an equal share of the CPU threads each."""
    if workers == 1 or len(jobs) < 2:
        for job in jobs:
            job.perform()
            meter.count(job)
        return
    threads = max(1, (os.cpu_count() or 1) // workers)
    # Spawned, because a fork of a process whose thread pools have run may hang.
    with ProcessPoolExecutor(workers, get_context("spawn"), _begin_worker, (threads,)) as pool:
        futures = {pool.submit(job.perform): job for job in jobs}
        try:
            for future in as_completed(futures):
                future.result()
                meter.count(futures[future])
        except BaseException:
            # What is under way would otherwise be waited for; it is kept as far as its finished stages.
            pool.shutdown(wait=False, cancel_futures=True)
            for process in active_children():
                process.terminate()
            raise


def _begin_worker(threads: int) -> None:
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    torch.set_num_threads(threads)
    logging.basicConfig(format="%(message)s", stream=sys.stdout)  # warnings only: the lines of many runs would mix


def launch(
    studies: Sequence[Study], jobs: Mapping[str, list[Job]], overrides: Sequence[str], out: Path, launcher: str
) -> None:
    """Submit every sweep that has unfinished runs as a Hydra multirun, all at once, and wait for them.

    Raises:
        RunError: a sweep failed.
    """
    running: dict[str, subprocess.Popen] = {}
    attempt = time.strftime("%Y%m%d-%H%M%S")  # so that no job meets the folder of an earlier one
    for study in studies:
        open_points = {job.point.name for job in jobs[study.name] if not job.is_finished}
        for grid in study.grids:
            rest = grid.without(lambda name, wanted=open_points: name not in wanted)
            if rest is None:
                continue
            named = [] if "experiment" in grid.axes else [f"experiment={study.name}"]
            command = [sys.executable, "-m", "pipeline", *rest.multirun, *named, *overrides]
            command += [f"hydra.sweep.dir={out / 'runs' / study.name}", f"hydra/launcher={launcher}"]
            command += [f"hydra.sweep.subdir={grid.name}-{attempt}-${{hydra.job.num}}"]
            log.info("submitting %s: %s", grid.name, " ".join(command[1:]))
            running[f"{study.name} {grid.name}"] = process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
            if launcher == "basic":  # which runs the jobs here: one sweep after another
                process.wait()
    failed = [name for name, process in running.items() if process.wait() != 0]
    if failed:
        raise RunError(
            f"these sweeps failed: {', '.join(failed)}; what they finished is kept, the same command goes on."
        )
