"""Results of stages are found again, if they are whole and were made with the same settings."""

import logging

import pytest
import torch
from omegaconf import OmegaConf

from pipeline.config import Config
from pipeline.storage.record import Record
from pipeline.storage.stages import StageCache, fingerprint

FILE = "stages/a.safetensors"


def config(**changes) -> Config:
    cfg = OmegaConf.structured(Config)
    names = {f"{group}.name": "x" for group in ("data", "backbone", "optimizer", "protocol", "logger")}
    for key, value in {**names, **changes}.items():
        OmegaConf.update(cfg, key, value)
    return OmegaConf.to_object(cfg)


class Attempt:
    """One start of a run in a folder: its record, and how often the stage was made."""

    def __init__(self, folder) -> None:
        self.record, self.made = Record(folder), 0
        self.stages = StageCache(folder, self.record)
        self.heard = []
        self.record.listeners.append(self.heard.extend)

    def stage(self, key: str = "key", max_mb: float | None = None) -> dict[str, torch.Tensor]:
        def make():
            self.made += 1
            for step in (0, 1):
                values = {"dnc1": [1 / 3, float("nan")], "dnc2": [float("inf"), 2.0 + step]}
                reasons = {"dnc1": "member 1: the class means coincide"}
                self.record.add("head", step, [0, 1], values, layer="2", tap="post", reasons=reasons)
            self.record.add("head", 1, [0, 1], {"loss": [0.1, 0.2]})
            transposed = torch.arange(6.0, dtype=torch.float64).reshape(2, 3).T
            return {"weights": torch.nn.Parameter(transposed), "step": torch.tensor(7)}

        return self.stages.load_or_run(FILE, key, make, max_mb)


@pytest.fixture
def first(tmp_path):
    """An attempt that recorded something before the stage and finished the stage."""
    attempt = Attempt(tmp_path)
    attempt.record.add("backbone", 0, [0], {"train_loss": [1.0]})
    attempt.stage()
    return attempt


def test_a_finished_stage_is_not_repeated(first, tmp_path):
    again = Attempt(tmp_path)
    found = again.stage()
    assert again.made == 0 and set(found) == {"weights", "step"} and found["step"] == 7
    assert torch.equal(found["weights"], torch.tensor([[0.0, 3.0], [1.0, 4.0], [2.0, 5.0]], dtype=torch.float64))


def test_the_rows_of_a_found_stage_are_recorded_again_in_their_order(first, tmp_path):
    again = Attempt(tmp_path)
    again.record.add("backbone", 0, [0], {"train_loss": [1.0]})
    again.stage()
    for attempt in (first, again):
        attempt.record.save()
        attempt.bytes = (tmp_path / "record.csv").read_bytes()
    assert again.bytes == first.bytes and len(again.record.rows) == 11
    assert repr(again.heard) == repr(first.heard)  # trackers too hear of every row, NaN included
    assert again.record.undefined == first.record.undefined != {}
    assert again.record.final_layers("head", [0, 1]) == first.record.final_layers("head", [0, 1])


def test_rows_of_earlier_stages_are_not_kept_with_a_stage(first, tmp_path):
    again = Attempt(tmp_path)
    again.stage()
    assert {row.stage for row in again.record.rows} == {"head"}


def test_a_stage_kept_under_another_key_is_repeated_and_replaced_and_the_log_says_so(first, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    other = Attempt(tmp_path)
    other.stage("another key")
    assert other.made == 1 and caplog.text.count(f"{tmp_path / FILE} is not used") == 1
    for key, made in (("another key", 0), ("key", 1)):
        later = Attempt(tmp_path)
        later.stage(key)
        assert later.made == made


def test_what_was_made_now_equals_what_is_found_later(tmp_path):
    made, found = Attempt(tmp_path).stage(), Attempt(tmp_path).stage()
    assert all(torch.equal(made[name], found[name]) for name in made)
    assert not any(tensor.requires_grad for tensor in made.values())


def truncated(content: bytes) -> bytes:
    return content[:-8]


def flipped_header(content: bytes) -> bytes:
    return content[:3] + b"\xff" + content[4:]


def without_rows(content: bytes) -> bytes:
    return content.replace(b"rows", b"rowz", 1)


def with_broken_rows(content: bytes) -> bytes:
    return content.replace(b'[[\\"head\\",0,', b'[[\\"head\\",0 ').replace(b'[[\\"head\\", 0,', b'[[\\"head\\", 0 ')


@pytest.mark.parametrize(
    "damage", [truncated, flipped_header, without_rows, with_broken_rows, lambda content: b"", lambda content: b"text"]
)
def test_a_damaged_file_is_warned_of_and_the_stage_repeated(damage, first, tmp_path, caplog):
    content = (tmp_path / FILE).read_bytes()
    assert damage(content) != content
    (tmp_path / FILE).write_bytes(damage(content))
    again = Attempt(tmp_path)
    with caplog.at_level(logging.WARNING):
        again.stage()
    assert again.made == 1 and len(again.record.rows) == 10  # nothing of the damaged file got into the record
    assert "is unreadable" in caplog.text and "repeated" in caplog.text and str(tmp_path / FILE) in caplog.text
    later = Attempt(tmp_path)
    assert later.stage()["step"] == 7 and later.made == 0


def test_a_result_that_is_too_large_is_not_kept(tmp_path):
    for _ in range(2):
        attempt = Attempt(tmp_path)
        assert attempt.stage(max_mb=1e-6)["step"] == 7 and attempt.made == 1
    assert list(tmp_path.iterdir()) == []


def test_a_stage_that_fails_leaves_no_file(tmp_path):
    def make():
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        StageCache(tmp_path, Record(tmp_path)).load_or_run(FILE, "key", make)
    assert not list(tmp_path.rglob("*.safetensors"))


def test_the_fingerprint_is_that_of_the_sections_a_stage_depends_on():
    same = fingerprint(config(), ("seed", "head"), "more")
    assert same == fingerprint(config(**{"logger.project": "other", "optimizer.lr": 1.0}), ("seed", "head"), "more")
    others = [
        fingerprint(config(**{"head.width": 65}), ("seed", "head"), "more"),
        fingerprint(config(seed=1), ("seed", "head"), "more"),
        fingerprint(config(), ("seed", "head"), "less"),
        fingerprint(config(), ("seed",), "more"),
    ]
    assert len({same, *others}) == 5


def test_the_fingerprint_is_that_of_the_place_a_path_leads_to(tmp_path, monkeypatch):
    def seen(path: str) -> set[str]:
        keys = ("data.root", "backbone.from_run", "backbone.checkpoint")
        return {fingerprint(config(**{key: path}), ("data", "backbone")) for key in keys}

    monkeypatch.chdir(tmp_path)
    here = seen("x")
    assert len(here) == 3
    monkeypatch.chdir("/")
    assert seen(f"{tmp_path}/x") == here and not seen("x") & here


class Half:
    """One start of a stage in progress: what it loads, and what it then records and keeps."""

    def __init__(self, folder, key: str = "key") -> None:
        self.record = Record(folder)
        self.record.add("backbone", 0, [0], {"train_loss": [1.0]})  # an earlier stage's
        self.checkpoints = StageCache(folder, self.record).partial(HALF, key)

    def keep(self, *steps: int) -> None:
        for step in steps:
            self.record.add("head", step, [0], {"loss": [1 / (step + 3)]})
            self.checkpoints.save({"weights": torch.full((8,), float(step))}, {"step": step})

    @property
    def steps(self) -> list[int]:
        return [row.step for row in self.record.rows if row.stage == "head"]


HALF = "stages/a.half.safetensors"
PREVIOUS = "stages/a.half.previous.safetensors"


def flipped_tensor(content: bytes) -> bytes:
    """The last byte belongs to a tensor; its file stays readable."""
    return content[:-1] + bytes([content[-1] ^ 1])


def flipped_row(content: bytes) -> bytes:
    """A measured number has another digit, and the file stays readable."""
    return content.replace(b"0.3333", b"0.3433", 1)


def test_a_stage_in_progress_goes_on_from_its_latest_checkpoint_with_the_rows_up_to_it(tmp_path):
    assert Half(tmp_path).checkpoints.load() is None
    Half(tmp_path).keep(0, 1, 2)
    again = Half(tmp_path)
    tensors, facts = again.checkpoints.load()
    assert facts == {"step": 2} and torch.equal(tensors["weights"], torch.full((8,), 2.0))
    assert again.steps == [0, 1, 2] and len(again.record.rows) == 4
    again.keep(3)
    last = Half(tmp_path)
    assert last.checkpoints.load()[1] == {"step": 3} and last.steps == [0, 1, 2, 3]  # none of them twice


@pytest.mark.parametrize("damage", [truncated, flipped_header, flipped_tensor, flipped_row, lambda content: b""])
def test_instead_of_a_damaged_checkpoint_the_one_before_is_used_and_the_damaged_one_named(damage, tmp_path, caplog):
    Half(tmp_path).keep(0, 1)
    content = (tmp_path / HALF).read_bytes()
    (tmp_path / HALF).write_bytes(damage(content))
    assert damage(content) != content
    again = Half(tmp_path)
    with caplog.at_level(logging.INFO):
        assert again.checkpoints.load()[1] == {"step": 0}
    assert again.steps == [0]
    assert f"{tmp_path / HALF} is unreadable" in caplog.text and "the one before it is used" in caplog.text
    assert f"going on from {tmp_path / PREVIOUS}" in caplog.text


def test_without_a_whole_checkpoint_the_stage_is_repeated(tmp_path, caplog):
    Half(tmp_path).keep(0, 1)
    for file in (HALF, PREVIOUS):
        (tmp_path / file).write_bytes(flipped_tensor((tmp_path / file).read_bytes()))
    again = Half(tmp_path)
    assert again.checkpoints.load() is None and again.steps == []
    assert f"{tmp_path / PREVIOUS} is unreadable: its checksum does not match; the stage is repeated" in caplog.text


def test_a_checkpoint_kept_under_another_key_is_not_used_and_the_log_says_so_once(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    Half(tmp_path, "other").keep(0, 1)
    assert Half(tmp_path).checkpoints.load() is None
    assert caplog.text.count("is not used: kept by another version or under other settings") == 1
    Half(tmp_path).keep(5)  # the one before it is still the other's
    (tmp_path / HALF).unlink()
    assert Half(tmp_path).checkpoints.load() is None


def test_a_single_changed_bit_of_a_finished_stage_is_noticed(first, tmp_path, caplog):
    content = (tmp_path / FILE).read_bytes()
    begin = 8 + int.from_bytes(content[:8], "little")
    for at in range(begin, len(content), 5):
        (tmp_path / FILE).write_bytes(content[:at] + bytes([content[at] ^ 4]) + content[at + 1 :])
        caplog.clear()
        again = Attempt(tmp_path)
        again.stage()
        assert again.made == 1 and "its checksum does not match" in caplog.text
