"""A run that was killed goes on after its last finished stage, and ends as if nothing had happened."""

import os
import signal
from pathlib import Path

import pytest
from commands import commands, dnc
from recomputation import summary_of

SMALL = ["data.samples_per_class=40", "backbone.hidden=[32,16]", "backbone.epochs=5", "head.width=16", "head.depth=3"]
SMALL += ["descent.records_per_decade=3", "descent.seeds=2", "logger=none"]
RUN = [*SMALL, "descent.steps=20000", "hydra.run.dir=a run"]
FILE = Path("checkpoints", "backbone.safetensors")
FEATURES = Path("stages", "features.safetensors")
"""What is kept last before the head descends."""


def kill_once(folder: Path, file: Path, *arguments: str) -> None:
    """Start a run and kill it as soon as ``file`` is there."""
    running = commands().start(*arguments, folder=folder)
    running.wait_for(file)
    os.kill(running.pid, signal.SIGKILL)
    running.end()
    assert summary_of(folder / "a run")["status"] == "running"


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    dnc(*RUN, cwd=folder)
    return folder / "a run"


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """The same run, killed while its head was descending; the folder, and what its checkpoints were then."""
    folder = tmp_path_factory.mktemp("killed")
    kill_once(folder, folder / "a run" / FEATURES, *RUN)
    assert not (folder / "a run" / "stages" / "head.safetensors").exists()
    assert not (folder / "a run" / "tensors.safetensors").exists()
    before = times(folder / "a run" / "checkpoints")
    done = dnc(*RUN, cwd=folder)
    return folder / "a run", before, done


def times(checkpoints: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in checkpoints.iterdir()}


def test_a_killed_run_does_not_train_its_backbone_again(killed):
    run, before, done = killed
    assert set(before) == {"backbone.ckpt", "backbone.safetensors"} and times(run / "checkpoints") == before
    assert f"found {run / FILE}: this stage is not repeated" in done.stdout
    assert "epoch 5/5" not in done.stdout


def test_a_killed_run_ends_as_one_that_was_left_alone(killed, undisturbed):
    run = killed[0]
    for name in ("record.csv", "tensors.safetensors", "figures/collapse.png"):
        assert (run / name).read_bytes() == (undisturbed / name).read_bytes()
    ours, theirs = summary_of(run), summary_of(undisturbed)
    assert ours["status"] == "completed" and not (run / "stages").exists()
    for summary in (ours, theirs):
        del summary["timings"]
    assert ours == theirs
