"""Tracking mirrors the record and never decides over a run."""

import json
import logging
from pathlib import Path

import handmade
import pandas as pd
import pytest
import wandb
from tracked import rows_on_disk

from pipeline.config import Config, LoggerConfig
from pipeline.runs.recording import reached
from pipeline.storage.record import Row, read_record
from pipeline.storage.summary import RunSummary, Uses, read
from pipeline.views.wandb import content, track
from pipeline.views.wandb.artifacts import send_files

FAILED = {"status": "failed"}
RUN_CONFIG = {"seed": 3, "descent": {"seeds": 2}, "data": {"name": "digits"}, "logger": {}}


@pytest.fixture(autouse=True)
def no_account(monkeypatch, tmp_path):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NETRC", str(tmp_path / "home" / "netrc"))


def start(tmp_path, **settings):
    return track(LoggerConfig(**{"name": "wandb", **settings}), tmp_path, RUN_CONFIG, "dufm")


def rows(step: int, *values: float) -> list[Row]:
    return [Row("head", step, seed, "2", "post", "dnc1", value) for seed, value in enumerate(values, start=3)]


def test_measurements_of_one_step_make_one_row_whatever_the_calls(tmp_path):
    tracker = start(tmp_path)
    run = tracker.channels[0].run
    for part in (rows(7, 1.0, 3.0), [Row("head", 7, 3, "", "", "loss", 0.5)], rows(8, 5.0, 5.0)):
        tracker.rows(part)
    assert run.summary["head/layer_2/post/dnc1"] == 2.0 and run.summary["head/step"] == 7
    assert run.summary["head/loss"] == 0.5
    tracker.finish(FAILED, [])
    assert wandb.run is None


def test_the_last_row_of_an_interrupted_run_is_left_to_the_next_attempt(tmp_path):
    tracker = start(tmp_path)
    tracker.rows([*rows(7, 1.0), *rows(8, 2.0)])
    run = tracker.channels[0].run
    tracker.finish({"status": "interrupted"}, [], failed=True)
    (row,) = rows_on_disk(Path(run.dir).parent / f"run-{run.id}.wandb", tmp_path)
    assert row["head/step"] == 7 and tracker.channels == []


def test_a_wandb_run_of_a_seed_has_that_seed_only(tmp_path):
    tracker = start(tmp_path, runs="per_seed")
    tracker.rows([*rows(7, 1.0, 3.0), Row("backbone", 0, 3, "", "", "train_loss", 0.25), *rows(8, 0.0)])
    first, second = (channel.run for channel in tracker.channels)
    assert (first.summary["head/layer_2/post/dnc1"], second.summary["head/layer_2/post/dnc1"]) == (1.0, 3.0)
    assert "backbone/train_loss" in first.summary.keys() and "backbone/train_loss" not in second.summary.keys()  # noqa: SIM118
    assert first.group == second.group != "" and first.id.endswith("-seed3")
    tracker.finish(FAILED, [])


def test_two_runs_in_one_process_are_two_wandb_runs(tmp_path):
    identities = set()
    for name in ("a", "b"):
        tracker = start(tmp_path / name)
        identities.add(tracker.channels[0].run.id)
        tracker.finish(FAILED, [])
    assert len(identities) == 2


def test_offline_attempts_share_an_id_until_they_are_uploaded(tmp_path):
    def attempt() -> tuple[str, Path]:
        tracker = start(tmp_path)
        run = tracker.channels[0].run
        tracker.finish(FAILED, [])
        return run.id, Path(run.dir).parent / f"run-{run.id}.wandb"

    (first, file), (second, newer) = attempt(), attempt()
    assert first == second and file != newer
    assert "superseded" in Path(f"{file}.synced").read_text() and not Path(f"{newer}.synced").exists()
    Path(f"{newer}.synced").touch()  # what `wandb sync` leaves
    assert attempt()[0] != first


def test_none_tracks_nothing(tmp_path):
    tracker = start(tmp_path, name="none")
    tracker.rows(rows(0, 1.0))
    tracker.finish({}, [])
    assert list(tmp_path.iterdir()) == []


def test_a_failure_ends_the_tracking_and_not_the_run(tmp_path, caplog, monkeypatch):
    tracker = start(tmp_path)
    run = tracker.channels[0].run

    def broken(*arguments, **settings):
        raise OSError("no space left on device")

    with caplog.at_level(logging.WARNING):
        monkeypatch.setattr(run, "log", broken)
        for step in range(3):
            tracker.rows(rows(step, 1.0))
        tracker.finish({}, [])
    assert caplog.text.count("wandb failed") == 1 and "no space left" in caplog.text


def test_a_wandb_that_cannot_start_is_reported_once(tmp_path, caplog, monkeypatch):
    def broken(**settings):
        raise RuntimeError("no service")

    monkeypatch.setattr(wandb, "init", broken)
    with caplog.at_level(logging.WARNING):
        tracker = start(tmp_path)
        tracker.rows(rows(0, 1.0))
    assert caplog.text.count("wandb failed (no service)") == 1


def test_the_metric_comes_first_where_that_is_asked_for(tmp_path):
    tracker = start(tmp_path, keys="metric")
    named = [
        Row("backbone", 7, 3, "network.fc.1", "post", "dnc1", 0.5),
        Row("backbone", 7, 3, "", "", "train_loss", 0.25),
    ]
    tracker.rows([*named, *rows(7, 1.0), Row("head", 7, 3, "", "", "loss", 2.0), *rows(8, 5.0)])
    run = tracker.channels[0].run
    tracker.finish(FAILED, [])
    first, second, _ = rows_on_disk(Path(run.dir).parent / f"run-{run.id}.wandb", tmp_path)
    assert {key for key in first if not key.startswith("_")} == {
        "dnc1/backbone/network.fc.1/post",
        "train_loss/backbone",
        "backbone/step",
    }
    assert second["dnc1/head/layer_2/post"] == 1.0 and second["loss/head"] == 2.0 and second["head/step"] == 7
    assert content.in_order({"min/head/loss": 1.0, "head/loss": 2.0}, "metric") == {
        "min/loss/head": 1.0,
        "loss/head": 2.0,
    }


def test_a_layer_is_called_as_the_table_of_the_command_calls_it():
    assert Row("backbone", 0, 0, "network.hidden1", "post", "dnc1", 0.0).key == "backbone/network.hidden1/post/dnc1"
    assert Row("head", 0, 0, "3", "post", "dnc1", 0.0).key == "head/layer_3/post/dnc1"
    assert Row("head", 0, 0, "", "", "loss", 0.0).key == "head/loss"


def test_what_is_noted_beside_a_step_is_logged_with_it(tmp_path):
    asides = {("backbone", 7): {"learning_rate": 0.25}}
    row = content.history_row([Row("backbone", 7, 3, "", "", "train_loss", 1.0)], None, asides)
    assert row == {"backbone/step": 7, "backbone/learning_rate": 0.25, "backbone/train_loss": 1.0}


@pytest.mark.parametrize(
    ("place", "name"),
    [("multirun/decay", "decay"), ("/a/2026-01-02/10-11-12-5", "2026-01-02_10-11-12-5"), ("x/" + "y" * 200, "y" * 128)],
)
def test_jobs_of_a_multirun_are_a_group_of_its_name(place, name, tmp_path):
    (tmp_path / ".hydra").mkdir()
    noted = {"mode": "MULTIRUN", "sweep": {"dir": place}, "runtime": {"choices": {"experiment": "e1"}}}
    (tmp_path / ".hydra" / "hydra.yaml").write_text(json.dumps({"hydra": noted}))
    tracker = start(tmp_path)
    assert tracker.channels[0].run.group == name
    tracker.finish(FAILED, [])
    (tmp_path / ".hydra" / "hydra.yaml").write_text(json.dumps({"hydra": noted | {"mode": "RUN"}}))
    tracker = start(tmp_path)  # one job of it, started again by itself
    assert tracker.channels[0].run.group == name
    tracker.finish(FAILED, [])


@pytest.mark.parametrize(
    ("summary", "told"),
    [
        ({"status": "failed", "error": "RunError: backbone training diverged: x"}, [("diverged", "ERROR")]),
        ({"status": "failed", "error": "RunError: out of memory"}, [("failed", "ERROR")]),
        ({"status": "interrupted", "error": "Interrupted: 15"}, []),
        ({"status": "completed", "title": "t"}, [("finished", "INFO")]),
        (
            {"status": "completed", "verdict": {"text": "v", "collapsed_from_layer": 2}, "diverged": {"3": 10}},
            [("diverged", "WARN"), ("verdict reached", "INFO"), ("finished", "INFO")],
        ),
    ],
)
def test_alerts_tell_what_has_happened(summary, told):
    found = list(content.alerts(summary, "dufm head.depth=2"))
    assert [(title, level) for title, _, level in found] == told
    assert all(text.startswith("dufm head.depth=2: ") for _, text, _ in found)


def judged(config: Config, layers: dict[int, float], step: int) -> list[Row]:
    """A measurement of a head, in the order in which it is recorded: every layer with these values of DNC1."""
    places = [(layer, tap) for layer in layers for tap in (("pre", "post") if layer > 1 else ("pre",))]
    values = {"dnc1": None, "dnc2": 1.0, "dnc3": 0.0}
    return [
        Row("head", step, 3, str(layer), tap, name, layers[layer] if value is None else value)
        for layer, tap in places
        for name, value in values.items()
    ]


def test_the_first_measurement_that_meets_the_verdict_is_told_when_it_is_there_and_only_once(tmp_path):
    config = Config()
    config.head.depth = 2
    tracker = track(LoggerConfig(name="wandb", alert=True), tmp_path, RUN_CONFIG, "dufm", None, reached(config))
    run, told = tracker.channels[0].run, []
    run.alert = lambda title, text, level: told.append((title, text.rpartition(" (")[2]))
    for step, values in enumerate(({1: 1.0, 2: 1.0}, {1: 1.0, 2: 1e-7}, {1: 1e-7, 2: 1e-7}), start=1):
        *before, last = judged(config, values, step)
        tracker.rows(before)
        assert len(told) == (step > 2), "a part of a measurement says nothing"
        tracker.rows([last])
        assert len(told) == (step > 1)
    tracker.finish({"status": "interrupted"}, [])
    assert told == [("verdict reached", "step 2)")]


def test_a_backbone_that_is_taken_over_is_the_one_that_was_kept(tmp_path):
    """wandb joins artifacts of one name and one content: the run that trained, and the one that takes over."""

    class Run:
        def __init__(self, identity: str) -> None:
            self.id, self.logged, self.used = identity, [], []
            self.log_artifact, self.use_artifact = self.logged.append, self.used.append

    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        (folder / "checkpoints").mkdir(parents=True)
        (folder / "checkpoints" / "backbone.safetensors").write_bytes(b"weights" + folder.name.encode())
    (first / "wandb").mkdir()
    (first / "wandb" / "run.json").write_text('{"id": "abc"}')
    trained, taking, joint = Run("abc"), Run("def"), Run("ghi")
    send_files(trained, first, RunSummary({}), None, 1.0)
    send_files(taking, second, RunSummary({}), str(first), 1.0)
    send_files(joint, second, RunSummary({"uses": {"images": True, "network": True, "head": "joint"}}), str(first), 1.0)
    ((kept,), (used,)) = trained.logged, taking.used
    assert (kept.name, kept.digest) == (used.name, used.digest) and kept.type == used.type == "model"
    assert taking.logged == []  # the same network, not trained on
    assert [artifact.name for artifact in joint.logged] == ["backbone-ghi"] and joint.used[0].digest == kept.digest


def test_the_smallest_value_outlives_a_nan():
    best: dict[str, float] = {}
    for value in (3.0, 1.0, float("nan"), 2.0):
        best = content.smallest(best, {"head/loss": value, "head/layer_2/post/dnc1": value, "head/step": value})
    assert best == {"min/head/loss": 1.0}


def test_a_long_table_of_seeds_keeps_the_last_step_and_whole_steps():
    record = pd.DataFrame(
        [Row("head", step, seed, "", "", "loss", step + seed / 10) for step in range(100) for seed in range(3)]
    )
    columns, table = content.seed_table(record, RunSummary({}), limit=50)
    assert columns == ["stage", "step", "seed", "layer", "tap", "loss"] and 3 < len(table) <= 50
    steps = [row[1] for row in table]
    assert max(steps) == 99 and {steps.count(step) for step in steps} == {3}


def test_names_and_groups_come_from_what_hydra_noted(tmp_path):
    (tmp_path / ".hydra").mkdir()
    noted = {"runtime": {"choices": {"experiment": "e1"}}, "overrides": {"task": ["experiment=e1", "head.depth=6"]}}
    (tmp_path / ".hydra" / "hydra.yaml").write_text(json.dumps({"hydra": noted}))
    assert content.chosen(tmp_path) == ("e1", ["experiment=e1", "head.depth=6"])
    assert content.display_name("dufm", ["experiment=e1", "logger.mode=online", "head.depth=6"]) == "dufm head.depth=6"
    assert content.chosen(tmp_path / "nothing") == (None, [])


def test_settings_that_a_run_has_no_use_for_are_not_its_configuration(tmp_path):
    config = {"data": 1, "backbone": 2, "optimizer": 3, "head": 4, "logger": 5}
    assert content.run_config(config, Uses()) == {"data": 1, "backbone": 2, "optimizer": 3, "head": 4}
    assert content.run_config(config, Uses(images=True, network=False)) == {"data": 1, "head": 4}
    assert content.run_config(config, Uses(images=False, network=False)) == {"head": 4}
    opened = handmade.summary("p", status="running", uses={"images": False, "network": False, "head": "descent"})
    (tmp_path / "summary.json").write_text(json.dumps(opened))
    tracker = start(tmp_path)
    assert "data" not in tracker.channels[0].run.config.keys()  # noqa: SIM118
    tracker.finish(FAILED, [])


@pytest.mark.parametrize("kind", list(handmade.KINDS))
def test_a_run_of_any_kind_is_mirrored_whole(kind, tmp_path, caplog):
    folder = handmade.KINDS[kind](tmp_path / "run")
    record, written = read_record(folder), json.loads((folder / "summary.json").read_text())
    with caplog.at_level(logging.WARNING):
        tracker = start(folder, runs="per_seed")
        (channel,) = tracker.channels  # without a head there are no seeds to tell apart
        tracker.rows([Row(*row) for row in record.itertuples(index=False)])
        tracker.finish(written, [])
    assert "wandb failed" not in caplog.text
    run = channel.run
    history = rows_on_disk(Path(run.dir).parent / f"run-{run.id}.wandb", tmp_path)
    stages = {key.split("/")[0] for row in history for key in row if key.endswith("/step")}
    assert stages == set(record.stage)
    numbers = content.headline(read(folder), None)
    assert numbers["status"] == "completed" and numbers["title"] == written["title"]
    assert {entry["name"]: entry["value"] for entry in written["headline"]}.items() <= numbers.items()


def test_tables_of_a_run_without_a_head_have_what_it_measured(tmp_path):
    folder = handmade.without_head(tmp_path / "run")
    summary = read(folder)
    columns, rows = content.layer_table(summary, None)
    assert columns == ["place", "stage", "layer", "tap", "log10_dnc1", "dnc1", "dnc2", "dnc3"]
    assert rows[0] == ["backbone network.conv1 post", "backbone", "network.conv1", "post", -1.0, 0.1, 1.1, None]
    assert content.verdict_table(summary) is None
    columns, rows = content.seed_table(read_record(folder), summary, limit=1000)
    assert columns[5:] == ["train_loss", "train_accuracy", "test_loss", "test_accuracy", "dnc1", "dnc2"] and rows
