"""A Slurm on this machine as tests see it: its command, what it says of jobs, and ``dnc`` as a launcher on it."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

LOCAL_SLURM = Path(__file__).parents[2] / "scripts" / "local_slurm"


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


def until(condition: Callable[[], object], what: str, seconds: float = 60) -> None:
    """Wait until the condition holds; fail after so many seconds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds:g} s: {what}"
        time.sleep(0.3)


class Launched:
    """``dnc`` as a process of its own, its output in a file (jobs outlive a launcher and would keep a pipe open)."""

    def __init__(self, arguments: tuple[str, ...], cwd: Path, env: dict[str, str]) -> None:
        self.output_file = cwd / "launcher.log"
        with open(self.output_file, "w") as stream:
            command = [sys.executable, "-m", "pipeline", *arguments]
            self.process = subprocess.Popen(
                command, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT
            )

    def wait(self, seconds: float = 300) -> tuple[int, str]:
        """Its exit code and all it printed; fails where it has not ended within so many seconds."""
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            pytest.fail(f"the launcher still waits after {seconds:g} s:\n{self.output_file.read_text()}")
        return code, self.output_file.read_text()
