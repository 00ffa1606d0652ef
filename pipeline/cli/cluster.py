"""Jobs that Hydra's submitit launcher runs on a cluster, in which `pipeline.cli.app.main` is not there.

What goes wrong in one is told with the place of its log, one that Slurm is about to end is requeued, and of the
processes of a job only the first writes the run's log.
"""

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.runs.launches import is_first
from pipeline.runtime.errors import RunError
from pipeline.runtime.interruption import Interrupted, requeue
from pipeline.runtime.text import printable

LOG_END = 65536
"""Bytes at the end of a lost job's log in which its last words are looked for."""

log = logging.getLogger(__name__)


@contextmanager
def failures_name_their_log() -> Iterator[None]:
    """In a submitted job: log what fails, and hand it to the launcher as a `RunError` that says where it is logged."""
    try:
        yield
    except Exception as error:
        if not _submitted():
            raise
        import submitit

        log.exception("The run failed.")
        job = submitit.JobEnvironment()
        # Of several processes it is often another one's log that has the cause: this one only lost its neighbour.
        task = "0" if job.num_tasks == 1 else "*"
        what = str(error) if isinstance(error, RunError) else f"{type(error).__name__}: {error}"
        raise RunError(f"{what} (job {job.job_id}, log: {job.paths.folder}/{job.job_id}_{task}_log.out)") from error


@contextmanager
def interruptions_requeue() -> Iterator[None]:
    """In a submitted job: have Slurm run it again if a signal has ended the run."""
    try:
        yield
    except Interrupted as stop:
        if _submitted():
            requeue(stop, first=is_first())
        raise


def quiet_beside_first() -> None:
    """In a submitted job's other processes: their warnings go to their own log, and nothing to the run's."""
    if not _submitted() or is_first():
        return
    for handler in logging.root.handlers[:]:
        if isinstance(handler, logging.FileHandler):
            logging.root.removeHandler(handler)
            handler.close()
    logging.root.setLevel(logging.WARNING)


def was_requeued() -> bool:
    """Whether this is a submitted job that Slurm had started before."""
    return _submitted() and os.environ.get("SLURM_RESTART_COUNT", "0").strip("0") != ""


def _submitted() -> bool:
    return "SUBMITIT_EXECUTOR" in os.environ


def lost_job(error: Exception) -> str | None:
    """What the launcher's error says of a job that ended without a result (killed, out of memory); None for others."""
    found = re.match(r"Job (\S+) \(task: \d+\) with path (.*)_result\.pkl\nhas not .* \(state: (.*)\)", str(error))
    if not type(error).__module__.startswith("submitit.") or not found:
        return None
    job, path, state = found.groups()
    written = Path(f"{path}_log.out")
    return f"job {job} ended without a result, Slurm's state of it is {state}{_last_words(written)} (log: {written})"


def _last_words(written: Path) -> str:
    """What a job's log ends with: its last line that speaks of an error, or else its last; nothing if there is none."""
    try:
        with written.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - LOG_END))
            lines = list(filter(str.strip, file.read().decode(errors="replace").splitlines()))
    except OSError:
        return ""
    told = [line for line in lines if re.search("error", line, re.IGNORECASE)] or lines
    return f"; its log says: {printable(told[-1].strip())}" if told else ""
