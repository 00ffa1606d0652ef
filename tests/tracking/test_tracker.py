"""Tracking mirrors the record and never decides over a run."""

import logging

import pytest
import wandb

from pipeline.config import LoggerConfig
from pipeline.record import Row
from pipeline.tracking import Tracker


@pytest.fixture(autouse=True)
def no_account(monkeypatch, tmp_path):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NETRC", str(tmp_path / "home" / "netrc"))


def start(tmp_path, **settings) -> Tracker:
    return Tracker.start(LoggerConfig(**{"name": "wandb", **settings}), tmp_path, {"seed": 0}, "dufm")


def rows(*values: float) -> list[Row]:
    return [Row("head", 7, seed, "2", "post", "dnc1", value) for seed, value in enumerate(values)]


def test_the_mean_over_seeds_arrives_under_the_records_key(tmp_path):
    tracker = start(tmp_path)
    run = tracker.logger.experiment
    tracker.rows([*rows(1.0, 3.0), Row("backbone", 2, 0, "", "", "train_loss", 0.5)])
    assert run.summary["head/layer_2/post/dnc1"] == 2.0 and run.summary["head/step"] == 7
    assert run.summary["backbone/train_loss"] == 0.5 and run.summary["backbone/step"] == 2
    tracker.finish({"status": "completed", "loss": {"total": [1.0]}}, [])
    assert wandb.run is None


def test_none_tracks_nothing(tmp_path):
    tracker = start(tmp_path, name="none")
    tracker.rows(rows(1.0))
    tracker.finish({}, [])
    assert list(tmp_path.iterdir()) == []


def test_online_without_a_key_falls_back_to_offline_and_says_so(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        tracker = start(tmp_path, mode="online")
    assert tracker.logger.experiment.settings.mode == "offline"
    assert "offline instead" in caplog.text
    tracker.finish({"status": "completed"}, [])


def test_a_failure_ends_the_tracking_and_not_the_run(tmp_path, caplog, monkeypatch):
    tracker = start(tmp_path)
    run = tracker.logger.experiment

    def broken(*arguments, **settings):
        raise OSError("no space left on device")

    with caplog.at_level(logging.WARNING):
        monkeypatch.setattr(run, "log", broken)
        tracker.rows(rows(1.0))
        tracker.rows(rows(2.0))
        tracker.finish({}, [])
    assert caplog.text.count("wandb failed") == 1 and "no space left" in caplog.text
    monkeypatch.undo()
    run.finish()


def test_a_wandb_that_cannot_start_is_reported_once(tmp_path, caplog, monkeypatch):
    def broken(**settings):
        raise RuntimeError("no service")

    monkeypatch.setattr(wandb, "init", broken)
    with caplog.at_level(logging.WARNING):
        tracker = start(tmp_path)
        tracker.rows(rows(1.0))
    assert caplog.text.count("wandb failed (no service)") == 1
