"""Folders of interrupted runs, as version 1 wrote them, are gone on with: names, keys and checksums are a format."""

import hashlib
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from pipeline.runs.training.checkpoints import TrainingCheckpoints
from pipeline.storage.record import Record
from pipeline.storage.stages import CHECKPOINT, STAGES, StageCache, previous_checkpoint

ROWS = [["head", 0, 5, "1", "pre", "dnc1", 0.5], ["head", 0, 5, "", "", "loss", 1.25]]
UNDEFINED = [["head", "2", "post", "dnc2", "the class means coincide"]]


def write_as_version_1_did(path: Path, **more) -> None:
    """A file of one tensor, written without the code under test."""
    weights = torch.arange(6.0).reshape(2, 3)
    metadata = {"key": "a key", "rows": ROWS, "undefined": UNDEFINED, **more}
    digest = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    digest.update(b"weights/1")
    digest.update(weights.numpy().tobytes())
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({"weights/1": weights}, path, {"stage": json.dumps(metadata | {"sha256": digest.hexdigest()})})


def restored(record: Record) -> bool:
    where = ("head", "2", "post", "dnc2")
    return [list(row) for row in record.rows] == ROWS and record.undefined == {where: "the class means coincide"}


def test_a_finished_stage_of_version_1_is_found(tmp_path):
    write_as_version_1_did(tmp_path / "stages" / "head.safetensors")
    record = Record(tmp_path)
    found = StageCache(tmp_path, record).load_or_run(f"{STAGES}/head.safetensors", "a key", lambda: pytest.fail("ran"))
    assert found["weights/1"].tolist() == [[0, 1, 2], [3, 4, 5]] and restored(record)


@pytest.mark.parametrize("file", ["head.half.safetensors", "head.half.previous.safetensors"])
def test_a_stage_in_progress_of_version_1_goes_on(file, tmp_path):
    write_as_version_1_did(tmp_path / "stages" / file, facts={"step": 7})
    record = Record(tmp_path)
    tensors, facts = StageCache(tmp_path, record).partial(f"{STAGES}/head.half.safetensors", "a key").load()
    assert facts == {"step": 7} and tensors["weights/1"].shape == (2, 3) and restored(record)


def test_names_that_version_1_gave_to_checkpoints_are_those_of_today(tmp_path):
    assert CHECKPOINT == "checkpoints/backbone.ckpt"
    assert previous_checkpoint(tmp_path / "a.ckpt") == tmp_path / "a.previous.ckpt"
    # Under this name Lightning keeps the state, in which the rows and the key are.
    assert TrainingCheckpoints(tmp_path / "a.ckpt", "a key", Record(tmp_path), 1.0).state_key == "TrainingCheckpoints"
