"""Signals that ask a run to end: noted at once, acted on where nothing is lost.

SIGINT and SIGTERM, and SIGUSR1 and SIGUSR2, by which Slurm and submitit announce the end of a job. While something is
in progress that can be saved half done (a training, a descent), a signal is only noted: the loop sees it, saves a
checkpoint and raises `Interrupted`. Anywhere else, and at a second Ctrl-C, `Interrupted` is raised at once.
"""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
SECONDS_UNTIL_REQUEUED = 120.0
SECONDS_TO_ASK, ATTEMPTS, SECONDS_BETWEEN_ATTEMPTS = 30.0, 5, 1.0
"""How long and how often Slurm is asked one thing: a controller that ends many jobs at once may let requests fail."""
SECONDS_OF_IMPATIENCE = 1.0
"""Signals that follow within this time are the same request, passed on by a launcher."""


class Interrupted(BaseException):
    """The run was asked to end by a signal; not an `Exception`, so that nobody takes it for a failure."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number

    @property
    def exit_code(self) -> int:
        """What a shell expects of a process that a signal ended: 130 for SIGINT, 143 for SIGTERM."""
        return 128 + self.number


class Interruption:
    """The signals of this process; one instance, `interruption`, because a process has one set of handlers."""

    def __init__(self) -> None:
        self.received, self._when = 0, 0.0
        self._deferring = False

    def listen(self) -> None:
        """Handle the signals from now on; repeated where a library has put its own handlers in our place."""
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                signal.signal(number, self._on_signal)

    def exit_if_signalled(self) -> None:
        """Leave if a signal was noted.

        Raises:
            Interrupted: one was.
        """
        if self.received:
            raise Interrupted(self.received)

    def reset(self) -> None:
        """Forget what was noted: a new run begins."""
        self.received = 0

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Within, a first signal is only noted in ``received``; the loop inside has to look at it."""
        self._deferring = True
        try:
            yield
        finally:
            self._deferring = False

    def ignore_signals(self) -> None:
        """Ignore the signals from now on.

        All is done by then: a signal during the second that Python takes to exit would make a completed run look like
        a failed one.
        """
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if not self._deferring:
            self.received = number
            raise Interrupted(number)
        if self.received:
            if number == signal.SIGINT and time.monotonic() - self._when > SECONDS_OF_IMPATIENCE:
                raise Interrupted(number)
            return
        self.received, self._when = number, time.monotonic()
        with suppress(OSError):  # the terminal may be gone; that is no reason to lose the checkpoint
            os.write(2, f"{signal.Signals(number).name}: ending at the next checkpoint ...\n".encode())


interruption = Interruption()


def requeue(stop: Interrupted, *, first: bool) -> None:
    """Ask Slurm to run this job again, if it is one that Slurm is about to end; returns where it is not.

    Only a batch job can be run again. To requeue an interactive session (``salloc``, ``srun --pty``), or a batch job
    in which somebody works on a terminal (Jupyter, a portal), would end it under its user's hands.

    Where the request is accepted Slurm ends the processes, and a process that ended by itself before would count as
    completed or failed: so this waits for it.

    Args:
        first: this is the rank that asks; the others only give it the time.
    """
    job = _slurm_job()
    if job is None or stop.number == signal.SIGINT:
        return
    with _signals_ignored():
        kept = _kept_by_slurm()
        if kept is not None and kept.get("BatchFlag") != "1":
            return
        if first:
            _ask_slurm_to_requeue(job, kept)
        else:
            time.sleep(2 * SECONDS_TO_ASK)  # there are two more things to ask


@contextmanager
def _signals_ignored() -> Iterator[None]:
    """Within, signals are ignored: those that follow are the same request again, or part of the end it asked for."""
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    interruption.ignore_signals()
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _ask_slurm_to_requeue(job: str, kept: dict[str, str] | None) -> None:
    state = None if kept is None else _slurm("squeue", "-h", "-j", job, "-o", "%T")
    if state not in ("RUNNING", "SIGNALING", None):  # the latter until the node has confirmed that the signal came
        return  # after scancel: a cancelled job must not come back
    again = "run the same command again to go on."
    if state is None:
        _say(f"Slurm did not answer for job {job}; {again}")
    elif _has_terminal():
        _say(f"Slurm job {job} was not requeued, because this is a terminal; {again}")
    elif kept.get("Requeue") == "0":
        _say(f"Slurm job {job} was submitted with --no-requeue; {again}")
    elif _slurm("scontrol", "requeue", job) is None:
        _say(f"Slurm refused to requeue job {job}; {again}")
    else:
        _say(f"Slurm job {job} was requeued and will go on from its checkpoint.")
        time.sleep(SECONDS_UNTIL_REQUEUED)


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)


def _slurm_job() -> str | None:
    """This job, or this element of an array; None outside Slurm."""
    if not os.environ.get("SLURM_JOB_ID"):
        return None
    if os.environ.get("SLURM_ARRAY_JOB_ID") and os.environ.get("SLURM_ARRAY_TASK_ID"):
        return f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    return os.environ["SLURM_JOB_ID"]


def _kept_by_slurm() -> dict[str, str] | None:
    """What Slurm keeps of this job (``BatchFlag``: whether it is one of sbatch's); None if it does not answer."""
    answer = _slurm("scontrol", "show", "job", os.environ["SLURM_JOB_ID"])  # of an array's element the one of its own
    return None if answer is None else dict(re.findall(r"(?:^|\s)(\w+)=(\S*)", answer))


def _has_terminal() -> bool:
    """Whether somebody sits before this process; a job of sbatch has files and pipes."""
    return any(os.isatty(stream) for stream in range(3))


def _slurm(*command: str) -> str | None:
    """Output of one of Slurm's commands; None if it failed at every attempt, or for too long."""
    deadline = time.monotonic() + SECONDS_TO_ASK
    for _ in range(ATTEMPTS):
        left = deadline - time.monotonic()
        try:
            return subprocess.run(command, capture_output=True, text=True, check=True, timeout=left).stdout.strip()
        except subprocess.TimeoutExpired:
            return None
        except (OSError, subprocess.SubprocessError):
            time.sleep(SECONDS_BETWEEN_ATTEMPTS)
    return None
