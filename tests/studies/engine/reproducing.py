"""Real processes of the command behind ``scripts/reproduce``, on a study of three small descents."""

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.runtime.children import module_command
from pipeline.studies.engine.folders import folder_of
from pipeline.studies.engine.study import QUICK

SECONDS = 240.0
STUDY, POINTS = "e2_lr", ("lr_0.2", "lr_0.5", "lr_8.0")
SHORT = ["descent.steps=12", "descent.seeds=2", "head.width=4", "protocol.num_features=4"]
SHORT += ["protocol.samples_per_class=3", "record.figures=false", "trainer.threads=1"]
LONG = [*SHORT, "descent.steps=300000", "trainer.checkpoint_seconds=0"]
"""Seconds of descent, so that a signal finds it in progress, with a checkpoint whenever there can be one."""
CHECKPOINT = "stages/head.half.safetensors"


def wait_until(so: Callable[[], object]) -> None:
    """Fail unless something becomes true in time."""
    end = time.monotonic() + SECONDS
    while not so():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.02)


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
        command = module_command("pipeline.studies", STUDY, "--quick", "--out", str(out), *arguments, *overrides)
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        with open(self._said, "w") as said:
            self.process = subprocess.Popen(
                command, stdout=said, stderr=subprocess.STDOUT, cwd=out.parent, env=environment
            )

    @property
    def said(self) -> str:
        """What it has printed so far."""
        return self._said.read_text()

    def wait_for(self, so: Callable[[], object]) -> "Reproduction":
        """Until something is true, and the process still there."""
        wait_until(lambda: so() or self.process.poll() is not None)
        assert self.process.poll() is None, self.said
        return self

    def descending(self, *points: str) -> "Reproduction":
        """Wait until the descents of these points have a checkpoint."""
        return self.wait_for(lambda: all((self.runs / point / CHECKPOINT).exists() for point in points))

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Within, nothing happens."""
        pids = [*self.workers(), self.process.pid]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        yield
        for pid in pids:
            os.kill(pid, signal.SIGCONT)

    def end(self, number: int | None = None) -> int:
        """Its exit code, after a signal."""
        if number is not None:
            self.process.send_signal(number)
        return self.process.wait(SECONDS)

    def workers(self) -> list[int]:
        """Processes that make its runs."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
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
