"""A run leaves a closed record however it ends. In this process, of the smallest DUFM."""

import json
from pathlib import Path

import pytest

from pipeline.runs import execution
from pipeline.runs.inputs import prepare
from pipeline.runtime.errors import RunError
from pipeline.runtime.interruption import Interrupted
from pipeline.storage.record import COMPLETED, read_record

SMALL = ["protocol=dufm", "protocol.samples_per_class=2", "protocol.num_features=3", "head.width=3", "head.depth=2"]
SMALL += ["descent.steps=20", "descent.seeds=2", "logger=none", "record.figures=false"]
SMALL += ["descent.records_per_decade=2"]


@pytest.fixture
def execute(composed, tmp_path):
    """Execute `SMALL` with changes; the run folder."""

    def run(*changes: str) -> Path:
        config = composed(*SMALL, *changes)
        execution.execute(config, prepare(config), tmp_path / "run")
        return tmp_path / "run"

    return run


def summary_in(folder: Path) -> dict:
    return json.loads((folder / "run" / "summary.json").read_text())


def test_a_completed_run_has_its_files_and_nothing_of_its_stages(execute, tmp_path):
    run = execute()
    assert summary_in(tmp_path)["status"] == COMPLETED
    assert read_record(run).step.max() == 20 and (run / "tensors.safetensors").exists()
    assert not (run / "stages").exists() and not [path for path in run.rglob("*") if "tmp" in path.name]


def test_a_run_that_fails_says_so_in_its_summary(execute, tmp_path):
    with pytest.raises(RunError, match="diverged"):
        execute("descent.lr=1e6")
    summary = summary_in(tmp_path)
    assert summary["status"] == "failed" and "diverged" in summary["error"]


@pytest.mark.parametrize(
    ("error", "status", "raised"),
    [
        (Interrupted(15), "interrupted", Interrupted),
        (ZeroDivisionError("x"), "failed", ZeroDivisionError),
        (MemoryError(), "failed", RunError),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "failed", RunError),
    ],
    ids=["a signal", "a fault of ours", "no memory", "no memory, as PyTorch says it"],
)
def test_whatever_ends_a_run_its_summary_tells(error, status, raised, execute, tmp_path, monkeypatch):
    def perform(run: object) -> None:
        raise error

    monkeypatch.setattr(execution, "perform", perform)
    with pytest.raises(raised):
        execute()
    assert summary_in(tmp_path)["status"] == status
