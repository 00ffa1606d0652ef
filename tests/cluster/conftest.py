"""A real Slurm on this machine for the tests of this folder."""

import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from commands import Command, commands
from local_cluster import Slurm, free_ports, local_slurm

NODES = 2


@pytest.fixture(scope="session")
def slurm() -> Iterator[Slurm]:
    """Two nodes with accounting on this machine; skips, and in CI fails, where Slurm or root is missing."""
    _require_root_and_packages()
    # Not pytest's folder: that is closed to the daemons' users, and may be too long for a socket's path.
    folder = Path(tempfile.mkdtemp(prefix="dnc-slurm.", dir="/tmp"))
    port = free_ports(NODES + 2)
    clean = {name: text for name, text in os.environ.items() if not name.startswith(("SLURM_", "SBATCH_", "SUBMITIT_"))}
    try:
        started = local_slurm("start", "--nodes", NODES, "--port", port, folder, env=clean)
        assert started.returncode == 0, started.stderr + "".join(log.read_text() for log in folder.glob("*/*.log"))
        exports = local_slurm("env", folder).stdout.removeprefix("export ").split()
        yield Slurm(folder, port, clean | dict(export.split("=", 1) for export in exports))
    finally:
        local_slurm("stop", folder)
        shutil.rmtree(folder)


def _require_root_and_packages() -> None:
    search = os.environ["PATH"] + ":/usr/sbin"
    missing = [
        name
        for name in ("slurmctld", "slurmd", "slurmdbd", "munged", "mariadbd")
        if not shutil.which(name, path=search)
    ]
    reasons = ["not root"] * (os.geteuid() != 0) + [f"{', '.join(missing)} not installed"] * bool(missing)
    if reasons:
        # In CI, where it can be installed, a skip would hide that it was not.
        say = pytest.fail if os.environ.get("CI") and os.geteuid() == 0 else pytest.skip
        say(f"no Slurm here: {' and '.join(reasons)} (scripts/local_slurm install, as root)")


@pytest.fixture(scope="module")
def launch(slurm) -> Iterator[Callable[..., Command]]:
    """Start ``dnc`` on the cluster: ``launch(folder, *arguments)``, with options as of `Commands.start`. Afterwards
    launchers and jobs are ended."""
    launched: list[Command] = []

    def start(folder: Path, *arguments: str, **options: object) -> Command:
        launched.append(commands().start(*arguments, folder=folder, environment=slurm.env, **options))
        return launched[-1]

    yield start
    for launcher in launched:
        if not launcher.is_over():
            os.kill(launcher.pid, signal.SIGKILL)
        launcher.end()
    if jobs := slurm.ask("squeue", "--noheader", "--format=%A").split():
        slurm.ask("scancel", "--quiet", *jobs)
