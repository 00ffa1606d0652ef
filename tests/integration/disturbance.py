"""Runs of the command that are disturbed while they go on: real processes, signals, damaged files, full disks."""

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from commands import Command, Done, commands, wait_until
from recomputation import record_of
from safetensors.numpy import load_file

from pipeline.runs.training.checkpoints import read_checkpoint

SMALL = ["data.samples_per_class=40", "backbone.hidden=[8]", "head.width=8", "head.depth=2", "descent.seeds=2"]
SMALL += ["descent.records_per_decade=2", "logger=none", "record.figures=false", "trainer=cpu", "trainer.threads=1"]
RUN = [*SMALL, "backbone.epochs=15", "backbone.batch_size=8", "descent.steps=200000"]
RUN += ["trainer.checkpoint_seconds=0"]
TROUBLED = [argument for argument in RUN if not argument.startswith("backbone.hidden")]
TRAINING, TRAINING_BEFORE = Path("checkpoints/backbone.ckpt"), Path("checkpoints/backbone.previous.ckpt")
HEAD, HEAD_BEFORE = Path("stages/head.half.safetensors"), Path("stages/head.half.previous.safetensors")
BACKBONE, FEATURES = Path("checkpoints/backbone.safetensors"), Path("stages/features.safetensors")
COMPARED = ("record.csv", "tensors.safetensors")
PICTURE = "figures/collapse.png"
DRAWN = [*RUN, "record.figures=true"]


def troubled(network: str) -> list[str]:
    """`RUN` with a network of `troubled`."""
    return [*TROUBLED, "backbone=custom", f"backbone._target_=troubled.{network}"]


class Running:
    """A run in a folder, going on."""

    def __init__(self, folder: Path, command: Command) -> None:
        self.folder, self.pid, self._command = folder, command.pid, command
        self.is_over, self.end = command.is_over, command.end

    def wait_for(self, *files: Path) -> "Running":
        """Until these files of the run folder are there, and the process still is."""
        self._command.wait_for(*[self.folder / file for file in files])
        return self

    def kill_when(self, *files: Path, newer_than: int = 0) -> Done:
        """Kill it at a moment when these files of the run folder are there, all written after a time (ns)."""

        def there() -> bool:
            try:
                return min((self.folder / file).stat().st_mtime_ns for file in files) > newer_than
            except FileNotFoundError:  # not there yet, or gone since it was looked at
                return False

        while True:  # a file that is being replaced is not there for a moment
            wait_until(lambda: self.is_over() or there())
            assert not self.is_over(), self.end()
            self.signal(signal.SIGSTOP)
            if there():
                return self.signal(signal.SIGKILL).end()
            self.signal(signal.SIGCONT)

    def signal(self, number: int) -> "Running":
        os.kill(self.pid, number)
        return self


class Stage:
    """Where runs are started, in a working directory of the stage's own, where `troubled.py` can be imported."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        shutil.copy(Path(__file__).with_name("troubled.py"), directory)

    def start(self, folder: Path, *arguments: str) -> Running:
        """`RUN`, or other arguments."""
        return self._start(folder, *(arguments or RUN), f"hydra.run.dir={folder}")

    def resume(self, folder: Path, **options: object) -> Running:
        """What the farewell of an interrupted run says, with options as of `Commands.start`."""
        return self._start(folder, f"resume={folder}", **options)

    def _start(self, folder: Path, *arguments: str, **options: object) -> Running:
        return Running(folder, commands().start(*arguments, folder=self._directory, **options))


def family(pid: int) -> dict[int, str]:
    """Processes alive that a process started, or that are of its group: id -> command line."""
    found = {}
    for place in Path("/proc").iterdir():
        if place.name.isdigit():
            try:
                state, parent, group = (place / "stat").read_text().rpartition(")")[2].split()[:3]
                command = (place / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue  # it has just ended
            if pid in (int(parent), int(group)) and place.name != str(pid) and state != "Z":
                found[int(place.name)] = command
    return found


def truncate(path: Path) -> None:
    """Cut off the second half."""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def flip_a_bit(path: Path, place: float = 0.5) -> None:
    """Change one bit at a relative place of the file."""
    content = bytearray(path.read_bytes())
    content[int(len(content) * place)] ^= 0x10
    path.write_bytes(content)


@contextmanager
def small_disk(place: Path, size: str = "4m") -> Iterator[Path]:
    """A file system of its own, in memory; skips where it cannot be mounted."""
    place.mkdir()
    if shutil.which("mount") is None or os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", place], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"a small disk cannot be mounted: {mounted.stderr.decode().strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


def fill(disk: Path) -> Path:
    """Leave not a byte; returns the file that takes it all."""
    filler = disk / "filler"
    with open(filler, "wb", buffering=0) as stream:
        try:
            while True:
                stream.write(bytes(4096))
        except OSError:
            return filler


def whole_files(run: Path) -> dict[str, bytes]:
    """The files of a run, every one of which can be read to its end; what is half written has another name."""
    assert not list(run.rglob(".*tmp*"))
    for path in run.rglob("*.ckpt"):
        read_checkpoint(path)
    for path in run.rglob("*.safetensors"):
        load_file(path)
    if (run / "record.csv").exists():
        record_of(run)
    return {str(path.relative_to(run)): path.read_bytes() for path in run.rglob("*") if path.is_file()}


def assert_same(run: Path, expected: Path, *more: str) -> None:
    """Byte by byte what an undisturbed run leaves (with `more` of its files), and nothing half done beside it."""
    for name in (*COMPARED, *more):
        assert (run / name).read_bytes() == (expected / name).read_bytes(), name
    assert not list(run.rglob(".*tmp*")) and not (run / "stages").exists()
    assert not (run / TRAINING_BEFORE).exists() and not (run / ".dnc.lock").exists()
