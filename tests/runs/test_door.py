"""The door of a run folder: nobody overwrites a completed run, nobody shares a folder, nothing is written in vain."""

import json
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from pipeline.config import Config, settings
from pipeline.runs.door import FolderInUse, admit
from pipeline.runtime.errors import ConfigError, RunError
from pipeline.runtime.lock import FILE, FolderLock, occupied
from pipeline.storage.record import COMPLETED, read_summary, write_summary

NAMES = {"data.name": "digits", "backbone.name": "mlp", "optimizer.name": "sgd", "logger.name": "none"}
TINY = {"protocol.name": "dufm", "protocol.num_features": 3, "protocol.samples_per_class": 2, "head.width": 3}
TINY |= {"head.depth": 2, "descent.steps": 5, "descent.seeds": 1, "record.figures": False}


def config(**changes: object) -> Config:
    cfg = OmegaConf.structured(Config)
    for key, value in (NAMES | TINY | changes).items():
        OmegaConf.update(cfg, key, value)
    return settings(cfg)


def test_whoever_is_admitted_has_the_folder_to_themselves_until_the_run_ends(tmp_path):
    run = tmp_path / "run"
    admission = admit(config(), run)
    assert occupied(run) and [path.name for path in run.iterdir()] == [FILE]
    with pytest.raises(FolderInUse, match=rf"hydra\.run\.dir={run} is in use by process \d+") as refused:
        admit(config(), run)
    assert refused.value.owner.startswith("process ")
    admission.perform()
    assert not occupied(run) and read_summary(run)["status"] == COMPLETED
    assert not (run / FILE).exists()
    admission.release()


def test_a_completed_run_is_refused_unless_it_is_to_be_replaced(tmp_path):
    write_summary(tmp_path, {"status": COMPLETED})
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "old")
    with pytest.raises(ConfigError, match="holds a completed run"):
        admit(config(), tmp_path)
    assert read_summary(tmp_path) == {"status": COMPLETED} and not occupied(tmp_path)
    admission = admit(config(), tmp_path, replace=True)
    others = {"old", "link"}  # what no run of ours has made stays
    assert {path.name for path in tmp_path.iterdir()} == {FILE, *others} and occupied(tmp_path)
    admission.release()


def test_a_run_that_completes_while_another_one_prepares_is_not_overwritten(tmp_path, monkeypatch):
    def prepare_slowly(given: Config) -> None:
        write_summary(tmp_path, {"status": COMPLETED})

    monkeypatch.setattr("pipeline.runs.inputs.prepare", prepare_slowly)
    with pytest.raises(ConfigError, match="holds a completed run"):
        admit(config(), tmp_path)
    assert not occupied(tmp_path)


@pytest.mark.parametrize("status", ["running", "interrupted", "failed"])
def test_a_run_that_did_not_complete_goes_on(tmp_path, status):
    write_summary(tmp_path, {"status": status})
    (tmp_path / "kept").touch()
    admit(config(), tmp_path).release()
    assert (tmp_path / "kept").exists()


def test_what_cannot_begin_leaves_nothing(tmp_path):
    (tmp_path / "file").touch()
    for folder, changes, words in (
        ("run", {"protocol.name": "frozen_features", "data.samples_per_class": 9999}, "samples_per_class=9999"),
        ("run", {"trainer.num_nodes": 2}, "num_nodes=2"),
        ("file", {}, "is a file"),
        ("file/run", {}, "lies in"),
    ):
        with pytest.raises(ConfigError, match=words):
            admit(config(**changes), tmp_path / folder)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_run_that_fails_lets_others_in(tmp_path):
    with pytest.raises(RunError, match="diverged"):
        admit(config(**{"descent.lr": 1e6, "descent.steps": 600}), tmp_path).perform()
    assert json.loads((tmp_path / "summary.json").read_text())["status"] == "failed"
    assert not occupied(tmp_path) and not (tmp_path / FILE).exists()


def test_a_second_run_finds_the_folder_of_the_first_by_any_path(tmp_path, monkeypatch):
    admission = admit(config(), tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FolderInUse):
        admit(config(), Path("run"))
    FolderLock(tmp_path).release()
    admission.release()
