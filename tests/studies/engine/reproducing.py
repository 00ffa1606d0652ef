"""Real processes of the command behind ``scripts/reproduce``, on a study of three small descents."""

import json
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from commands import commands, wait_until

from pipeline.runtime.lock import FILE as LOCK
from pipeline.studies.engine.folders import folder_of
from pipeline.studies.engine.study import QUICK

SPEAKING = "import os, runpy, sys; said = os.open(sys.argv.pop(1), os.O_WRONLY); os.dup2(said, 1); os.dup2(said, 2); "
SPEAKING += "runpy.run_module('pipeline.studies', run_name='__main__', alter_sys=True)"
"""Python that runs the command, which says everything to the file that is its first argument."""
STUDY, POINTS = "e2_lr", ("lr_0.2", "lr_0.5", "lr_8.0")
SHORT = ["descent.steps=12", "descent.seeds=2", "head.width=4", "protocol.num_features=4"]
SHORT += ["protocol.samples_per_class=3", "record.figures=false", "trainer.threads=1"]
SHORT += ["descent.records_per_decade=1"]
LONG = [*SHORT, "descent.steps=300000", "trainer.checkpoint_seconds=0"]
"""Seconds of descent, so that a signal finds it in progress, with a checkpoint whenever there can be one."""
CHECKPOINT = "stages/head.half.safetensors"


def is_alive(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


class Reproduction:
    """A reproduction of `STUDY` that goes on in ``out``."""

    def __init__(self, out: Path, *arguments: str, overrides: list[str]) -> None:
        self.runs = folder_of(out, QUICK, overrides) / "runs" / STUDY
        self._said = out.parent / f"said-{time.monotonic_ns()}"
        self._said.touch()
        command = [STUDY, "--quick", "--out", str(out), *arguments, *overrides]
        self._command = commands().start("-c", SPEAKING, str(self._said), *command, folder=out.parent)
        self.pid = self._command.pid

    @property
    def said(self) -> str:
        """What it has printed so far."""
        return self._said.read_text()

    def wait_for(self, so: Callable[[], object]) -> "Reproduction":
        """Until something is true, and the process still there."""
        wait_until(lambda: so() or self._command.is_over(), pause=0.02)
        assert not self._command.is_over(), self.said
        return self

    def descending(self, *points: str) -> "Reproduction":
        """Wait until the descents of these points have a checkpoint; who is first waits for the others."""
        waiting: dict[str, int] = {}

        def all_wait() -> bool:
            for point in points:
                if point not in waiting and (self.runs / point / CHECKPOINT).exists():
                    waiting[point] = int((self.runs / point / LOCK).read_text().split()[1])  # process PID on HOST
                    os.kill(waiting[point], signal.SIGSTOP)
            return len(waiting) == len(points)

        self.wait_for(all_wait)
        for pid in waiting.values():
            os.kill(pid, signal.SIGCONT)
        return self

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Within, nothing happens."""
        pids = [*self.workers(), self.pid]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        yield
        for pid in pids:
            os.kill(pid, signal.SIGCONT)

    def end(self, number: int | None = None) -> int:
        """Its exit code, after a signal."""
        if number is not None:
            os.kill(self.pid, number)
        return self._command.end().code

    def close(self) -> None:
        """End it, if it is still there."""
        if not self._command.is_over():
            kill(self.pid)
        self._command.end()

    def workers(self) -> list[int]:
        """Processes that make its runs."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        return [int(pid) for pid in children if "engine.worker" in Path(f"/proc/{pid}/cmdline").read_text()]

    def status(self, point: str) -> str:
        """The status of a run."""
        return json.loads((self.runs / point / "summary.json").read_text())["status"]

    def statuses(self) -> set[str]:
        """Those of all runs that were begun."""
        return {json.loads(path.read_text())["status"] for path in self.runs.glob("*/summary.json")}

    def times_made(self, point: str) -> int:
        """How often the run was made to its end."""
        return len(re.findall("^record ", (self.runs / point / "dnc.log").read_text(), re.M))


def kill(pid: int) -> None:
    """End a process as the kernel does that wants its memory."""
    os.kill(pid, signal.SIGKILL)
