"""A Slurm on this machine as tests see it: its command, what it says of jobs, and ``dnc`` as a launcher on it."""

import os
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from commands import forked_python

LOCAL_SLURM = Path(__file__).parents[2] / "scripts" / "local_slurm"
BATCH_SCRIPT = LOCAL_SLURM.with_name("slurm.sbatch")


def local_slurm(*arguments: object, **more) -> subprocess.CompletedProcess:
    """scripts/local_slurm, at most two minutes of it."""
    command = [str(LOCAL_SLURM), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=120, **more)


@dataclass(frozen=True)
class Slurm:
    """A running cluster: its folder, its first port, and the environment in which its commands find it."""

    folder: Path
    port: int
    env: dict[str, str]

    def ask(self, *command: str) -> str:
        """What a command of Slurm's prints."""
        return subprocess.run(command, env=self.env, capture_output=True, text=True, check=True, timeout=60).stdout

    def states(self, job: str) -> dict[str, str]:
        """Accounting's word on a job: id of each element -> its state (the last one, if it was requeued)."""
        lines = self.ask("sacct", "-X", "-n", "-P", "-o", "JobID,State", "-j", job).splitlines()
        return dict(line.split("|") for line in lines)

    def history(self, job: str) -> list[str]:
        """Accounting's word on every attempt at a job (or at one element of an array), ``STATE EXIT_CODE`` each."""
        lines = self.ask("sacct", "-D", "-X", "-n", "-P", "-o", "State,ExitCode", "-j", job).splitlines()
        return [line.replace("|", " ") for line in lines]

    def batch(self, cwd: Path, *arguments: str) -> str:
        """Submit scripts/slurm.sbatch with options of sbatch and arguments of the pipeline; its number.

        Its processes are forked. Pythons of their own, whom signals of Slurm's reach by themselves, are those that
        submitit starts in test_interrupted.py and test_multirun.py.
        """
        options = [argument for argument in arguments if argument.startswith("--")]
        rest = [argument for argument in arguments if argument not in options]
        command = ["sbatch", "--parsable", f"--chdir={cwd}", "--time=10", *options, str(BATCH_SCRIPT), *rest]
        env = self.env | {"PYTHON": str(forked_python())}
        return subprocess.run(command, env=env, capture_output=True, text=True, check=True, timeout=60).stdout.strip()

    def wait_for_end(self, job: str, seconds: float = 300) -> list[str]:
        """The history of a job once it is neither waiting nor running."""
        under_way = ("PENDING", "RUNNING", "REQUEUED", "PREEMPTED", "COMPLETING")

        def ended() -> bool:
            history = self.history(job)  # none at first: accounting is late
            return bool(history) and not history[-1].startswith(under_way)

        until(ended, f"the end of job {job}", seconds)
        return self.history(job)


def free_ports(count: int) -> int:
    """The first of ``count`` consecutive ports that nobody listens on."""
    for first in range(20000 + os.getpid() % 1000 * 8, 32000, count):
        try:
            for port in range(first, first + count):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
        except OSError:
            continue
        return first
    raise OSError("no free ports below 32000")


def until(condition: Callable[[], object], what: str, seconds: float = 60, pause: float = 0.1) -> None:
    """Wait until the condition holds, looking every ``pause`` seconds; fail after so many seconds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds:g} s: {what}"
        time.sleep(pause)


def written(file: Path, text: str) -> Callable[[], bool]:
    """Whether a file is there and says so, as a condition to wait for."""
    return lambda: file.exists() and text in file.read_text()


def job_number(sweep: Path) -> str:
    """The number of a multirun's Slurm job, from the folders that submitit names after it."""
    (number,) = {path.name.partition("_")[0] for path in (sweep / ".submitit").iterdir() if path.is_dir()}
    return number
