"""Whatever stands in the checkpoints, stages and cache entries of a run: it is used, or named and done without."""

import os
import random
from io import BytesIO
from pathlib import Path

import pytest
import torch
from hostile import CONTENTS, VALUES, check_said, mutated

from pipeline.runs.training.checkpoints import AtomicCheckpointIO, TrainingCheckpoints
from pipeline.runtime import tensor_files
from pipeline.storage.ownership import in_the_way, remove_intermediate
from pipeline.storage.record import Record
from pipeline.storage.stages import StageCache, previous_checkpoint

TRIES = int(os.environ.get("FUZZ_KEPT", 100))


@pytest.fixture
def draw() -> random.Random:
    return random.Random(int(os.environ.get("FUZZ_SEED", 0)))


def measured(folder: Path) -> Record:
    record = Record(folder)
    record.add("head", 1, [0], {"loss": [1.0], "dnc1": [float("nan")]}, layer="1", tap="pre", reasons={"dnc1": "why"})
    return record


def changed(content: bytes, draw: random.Random) -> bytes:
    """A checkpoint with one value at any depth replaced by another, in a sound archive."""
    whole = torch.load(BytesIO(content), weights_only=True)
    places = []

    def walk(node: object) -> None:
        for key in list(node) if isinstance(node, dict) else range(len(node)):
            places.append((node, key))
            if isinstance(node[key], dict | list):
                walk(node[key])

    walk(whole)
    node, key = draw.choice(places)
    if draw.random() < 0.3:
        del node[key]
    else:
        node[key] = draw.choice([*VALUES, torch.zeros(3), torch.zeros(0, dtype=torch.uint8)])
    stream = BytesIO()
    torch.save(whole, stream)
    return stream.getvalue()


def test_no_content_of_a_checkpoint_keeps_the_one_before_from_being_used(tmp_path, draw, caplog):
    place = tmp_path / "checkpoints" / "backbone.ckpt"
    found = TrainingCheckpoints(place, "key", Record(tmp_path), seconds=0)
    found.record = measured(tmp_path)
    for step in (10, 20):
        content = {"callbacks": {found.state_key: found.state_dict()}, "epoch": 1, "global_step": step}
        content |= {"state_dict": {"w": torch.zeros(3)}, "optimizer_states": [{"state": {}, "param_groups": []}]}
        content |= {"loops": {"fit_loop": {"epoch_progress": {}, "epoch_loop.batch_progress": {}}}}
        AtomicCheckpointIO().save_checkpoint(content | {"lr_schedulers": [{}]}, place)
    original = place.read_bytes()
    for _ in range(TRIES):
        if draw.random() < 0.7:
            place.write_bytes(changed(original, draw))
        else:
            place.write_bytes(draw.choice([*CONTENTS, original[: draw.randrange(len(original))]]))
        caplog.clear()
        latest = found.latest()
        assert latest in (place, previous_checkpoint(place))
        if latest == place:  # then it can be taken over
            again = TrainingCheckpoints(place, "key", Record(tmp_path), seconds=0)
            again.load_state_dict(torch.load(place, weights_only=True)["callbacks"][found.state_key])
            again.on_train_start(None, None)
            assert len(again.record.rows) <= 2
        check_said(" ".join(caplog.messages))


def test_no_content_of_a_stage_is_more_than_a_stage_that_is_repeated(tmp_path, draw, caplog):
    path = tmp_path / "stages" / "head.safetensors"
    kept = {"w": torch.arange(3.0)}
    StageCache(tmp_path, measured(tmp_path)).load_or_run("stages/head.safetensors", "key", lambda: kept)
    metadata = {"key": "key", "rows": [["head", 1, 0, "", "", "loss", 1.0]], "undefined": [], "facts": {"step": 1}}
    path.write_bytes(tensor_files.serialised(kept, metadata))
    original = path.read_bytes()
    half = tmp_path / "stages" / "head.half.safetensors"
    for _ in range(TRIES):
        content = mutated(original, path.name, draw)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        half.write_bytes(content)
        caplog.clear()
        record = Record(tmp_path)
        cache = StageCache(tmp_path, record)
        assert cache.load_or_run("stages/head.safetensors", "key", lambda: kept)["w"].tolist() == [0, 1, 2]
        found = cache.partial("stages/head.half.safetensors", "key").load()
        assert found is None or isinstance(found[1], dict)
        assert len(record.rows) <= 2
        record.save()
        check_said(" ".join(caplog.messages))
        assert in_the_way(tmp_path) is not None
        remove_intermediate(tmp_path)
