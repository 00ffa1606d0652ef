"""Checkpoints of a training are whole or absent, noticed when damaged, and found again under the same settings only."""

import logging
import signal
import zipfile
from io import BytesIO
from pathlib import Path

import pytest
import torch

from pipeline.runs.training.checkpoints import (
    AtomicCheckpointIO,
    DamagedCheckpoint,
    TrainingCheckpoints,
    check_finite,
    read_checkpoint,
)
from pipeline.runtime import ranks
from pipeline.runtime.errors import RunError
from pipeline.runtime.interruption import SIGNALS
from pipeline.storage.record import Record, Row
from pipeline.storage.stages import previous_checkpoint, save_keeping_previous


@pytest.fixture
def place(tmp_path) -> Path:
    return tmp_path / "checkpoints" / "backbone.ckpt"


def keep(place: Path, step: int, key: str = "key") -> TrainingCheckpoints:
    """A checkpoint such as Lightning writes one, as far as it is looked at when it is searched for."""
    callback = TrainingCheckpoints(place, key, Record(place.parent), seconds=0)
    content = {"callbacks": {callback.state_key: callback.state_dict()}, "epoch": step // 10, "global_step": step}
    AtomicCheckpointIO().save_checkpoint(content | {"state_dict": {"w": torch.full((64,), float(step))}}, place)
    return callback


def flipped(content: bytes) -> bytes:
    """One bit of the numbers of a tensor is another."""
    at = content.index(torch.full((64,), 20.0).numpy().tobytes()) + 17
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


def saved(content: object) -> bytes:
    file = BytesIO()
    torch.save(content, file)
    return file.getvalue()


def without(content: bytes, record: str) -> bytes:
    """A sound archive in which a record is missing."""
    kept = BytesIO()
    with zipfile.ZipFile(BytesIO(content)) as before, zipfile.ZipFile(kept, "w") as after:
        for name in before.namelist():
            if not name.endswith(record):
                after.writestr(name, before.read(name))
    return kept.getvalue()


def changed(content: bytes, **changes: object) -> bytes:
    return saved(torch.load(BytesIO(content), weights_only=True) | changes)


def own_changed(content: bytes, **changes: object) -> bytes:
    """One thing is another in what the callback keeps."""
    whole = torch.load(BytesIO(content), weights_only=True)
    ((name, own),) = whole["callbacks"].items()
    return saved(whole | {"callbacks": {name: own | changes}})


DAMAGES = {
    "no version": lambda content: without(content, "version"),
    "no data": lambda content: without(content, "data.pkl"),
    "no tensor": lambda content: without(content, "data/0"),
    "callbacks": lambda content: changed(content, callbacks=[1]),
    "callback": lambda content: changed(content, callbacks={"TrainingCheckpoints": [1]}),
    "epoch": lambda content: changed(content, epoch="x"),
    "loops": lambda content: changed(content, loops=[1]),
    "rows": lambda content: own_changed(content, rows=[[1]]),
    "row": lambda content: own_changed(content, rows=[["backbone", "1", 0, "", "", "loss", 1.0]]),
    "reasons": lambda content: own_changed(content, undefined=[["a"]]),
    "generators": lambda content: own_changed(content, generators={"cpu": [1]}),
    "generators of others": lambda content: own_changed(content, generators_of_others=[{"cpu": torch.zeros(3)}]),
    "no list of generators": lambda content: own_changed(content, generators_of_others=1),
    "generator": lambda content: own_changed(content, generators={"cpu": torch.zeros(3)}),
    "truncated": lambda content: content[: len(content) // 2],
    "without its last byte": lambda content: content[:-1],
    "bit flipped": flipped,
    "empty": lambda content: b"",
    "another file": lambda content: b"text" * 100,
    "zeros": lambda content: bytes(len(content)),
    "code": lambda content: saved({"callbacks": Path}),
    "a list": lambda content: saved([1]),
    "other keys": lambda content: saved({"state_dict": {}}),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(kind, place, caplog):
    keep(place, 10)
    found = keep(place, 20)
    assert found.latest() == place
    place.write_bytes(DAMAGES[kind](place.read_bytes()))
    with caplog.at_level(logging.INFO):
        assert found.latest() == previous_checkpoint(place)
    assert f"{place} is damaged" in caplog.text and "the one before it is used" in caplog.text
    assert f"going on from {previous_checkpoint(place)} (epoch 1, step 10)" in caplog.text


def test_when_both_are_damaged_the_training_begins_anew(place, caplog):
    keep(place, 10)
    found = keep(place, 20)
    for path in (place, previous_checkpoint(place)):
        path.write_bytes(path.read_bytes()[:-100])
    assert found.latest() is None
    assert f"{previous_checkpoint(place)} is damaged" in caplog.text and "the training begins anew" in caplog.text


def test_a_missing_latest_checkpoint_is_no_obstacle(place):
    """Between the two renames of a save there is only the one before."""
    keep(place, 10)
    found = keep(place, 20)
    place.unlink()
    assert found.latest() == previous_checkpoint(place)


def test_checkpoints_of_other_settings_are_not_used(place):
    keep(place, 10, key="other")
    keep(place, 20, key="other")
    assert TrainingCheckpoints(place, "key", Record(place.parent), 0).latest() is None
    found = keep(place, 30)
    place.unlink()
    assert found.latest() is None


def test_without_a_checkpoint_there_is_none(place):
    assert TrainingCheckpoints(place, "key", Record(place.parent), 0).latest() is None


def test_every_bit_of_a_file_of_torch_save_that_holds_a_number_is_checked(tmp_path):
    path = tmp_path / "w.pt"
    torch.save({"w": torch.full((64,), 20.0)}, path)
    content = path.read_bytes()
    start = content.index(torch.full((64,), 20.0).numpy().tobytes())
    for bit in range(0, 256 * 8, 37):
        broken = bytearray(content)
        broken[start + bit // 8] ^= 1 << bit % 8
        path.write_bytes(broken)
        with pytest.raises(DamagedCheckpoint, match=r"does not match|CRC"):
            read_checkpoint(path)


def test_the_one_before_is_kept_and_no_other(tmp_path):
    path = tmp_path / "a.ckpt"
    for content in (b"1", b"2", b"3"):
        save_keeping_previous(path, content)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == {"a.ckpt": b"3", "a.previous.ckpt": b"2"}


def test_a_checkpoint_that_cannot_be_written_leaves_both_as_they_were(tmp_path, monkeypatch):
    path = tmp_path / "a.ckpt"
    for content in (b"1", b"2"):
        save_keeping_previous(path, content)

    def full(self, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match=str(path)):
        save_keeping_previous(path, b"3")
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == {"a.ckpt": b"2", "a.previous.ckpt": b"1"}


def test_rows_and_generators_come_back_as_they_were(place):
    record = Record(place.parent)
    record.add("earlier", 0, [0], {"loss": [1.0]})
    kept = TrainingCheckpoints(place, "key", record, 0)
    record.add("backbone", 1, [0], {"dnc1": [float("nan")]}, layer="a", tap="post", reasons={"dnc1": "why"})
    state = kept.state_dict()
    drawn = torch.rand(3)

    again = TrainingCheckpoints(place, "key", Record(place.parent), 0)
    again.load_state_dict(state)
    assert again.record.rows == []  # not before all else of the checkpoint is in use
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    with torch.random.fork_rng(devices=[]):
        again.on_train_start(None, None)
        assert torch.equal(torch.rand(3), drawn)
    (row,) = again.record.rows
    assert row[:-1] == Row("backbone", 1, 0, "a", "post", "dnc1", 0.0)[:-1] and row.value != row.value
    assert again.record.undefined == {("backbone", "a", "post", "dnc1"): "why"}
    for number, handler in handlers.items():
        signal.signal(number, handler)


def test_every_rank_goes_on_with_its_own_generator(place, monkeypatch):
    drawn = []
    with torch.random.fork_rng(devices=[]):
        states = [torch.manual_seed(seed).get_state().clone() for seed in range(3)]
        for state in states:
            torch.set_rng_state(state)
            drawn.append(torch.rand(3))
        monkeypatch.setattr(ranks, "gather", lambda own: [{"cpu": state} for state in states])
        kept = TrainingCheckpoints(place, "key", Record(place.parent), 0).state_dict()
        for rank, expected in enumerate(drawn):
            monkeypatch.setattr(ranks, "rank", lambda rank=rank: rank)
            again = TrainingCheckpoints(place, "key", Record(place.parent), 0)
            again.load_state_dict(kept)
            again.on_fit_end(None, None)
            assert torch.equal(torch.rand(3), expected)


class Learner(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(2, 2)
        self.register_buffer("running", torch.zeros(2))
        self.optimizer = type("Settings", (), {"lr": 0.5})


@pytest.mark.parametrize(("name", "value"), [("layer.weight", float("nan")), ("running", float("inf"))])
def test_what_is_not_finite_is_not_kept(name, value):
    learner = Learner()
    check_finite(learner, "in epoch 1")
    learner.state_dict()[name].view(-1)[1] = value
    with pytest.raises(RunError, match=rf"{name} holds NaN or infinity in epoch 1; .* \(now 0.5\)"):
        check_finite(learner, "in epoch 1")
