"""Lightning's loggers get what the record holds, under the names that wandb has for it, each row once."""

import csv
import json
import logging
import math
import struct
from pathlib import Path

import handmade
import pytest

from pipeline.config import LoggerConfig, check
from pipeline.runtime.errors import ConfigError
from pipeline.storage.record import Row, read_record
from pipeline.storage.summary import read
from pipeline.views.trackers import track
from pipeline.views.wandb import content

RUN_CONFIG = {"seed": 0, "descent": {"seeds": 2}, "head": {"depth": 3, "activation": "relu"}, "logger": {}}
ASIDES = {("backbone", 0): {"learning_rate": 0.5}}


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return handmade.without_head(tmp_path / "run")


def rows_of(folder: Path) -> list[Row]:
    return [Row(*row) for row in read_record(folder).itertuples(index=False)]


def mirrored(folder: Path, count: int | None = None, **settings) -> None:
    """An attempt at the run, which sends so many rows of the record and ends, or all of it and completes."""
    rows, summary = rows_of(folder), json.loads((folder / "summary.json").read_text())
    tracker = track(LoggerConfig(**settings), folder, RUN_CONFIG, "dufm", ASIDES)
    tracker.rows(rows[:count])
    tracker.finish(summary if count is None else {"status": "interrupted"}, [], failed=count is not None)


def expected(folder: Path, order: str = "place") -> dict[tuple[int, str], float]:
    """By step and key, what is to be there."""
    by_step: dict[tuple[str, int], list[Row]] = {}
    for row in rows_of(folder):
        by_step.setdefault((row.stage, row.step), []).append(row)
    found = {}
    for (_, step), rows in by_step.items():
        values = content.in_order(content.history_row(rows, None, ASIDES), order)
        found |= {(step, key): value for key, value in values.items() if math.isfinite(value)}
    return found


def in_csv(folder: Path) -> dict[tuple[int, str], float]:
    with open(folder / "csv" / "metrics.csv", newline="") as stream:
        lines = list(csv.DictReader(stream))
    cells = [(line["step"], key, text) for line in lines for key, text in line.items() if text and key != "step"]
    values = [(int(step), key, float(text)) for step, key, text in cells]
    assert len({(step, key) for step, key, _ in values}) == len(values)  # each once
    return {(step, key): value for step, key, value in values if math.isfinite(value)}


def in_tensorboard(folder: Path) -> dict[tuple[int, str], float]:
    event_pb2 = pytest.importorskip("tensorboardX.proto.event_pb2")
    found = {}
    for file in sorted((folder / "tensorboard").glob("events.out.tfevents.*")):
        content, at = file.read_bytes(), 0
        while at < len(content):
            (length,) = struct.unpack_from("<Q", content, at)
            event = event_pb2.Event.FromString(content[at + 12 : at + 12 + length])
            at += 16 + length
            if event.session_log.status == 1:  # a new attempt: what was sent before is forgotten
                found = {key: value for key, value in found.items() if key[0] < event.step}
            scalars = [value for value in event.summary.value if value.HasField("simple_value")]
            found |= {(event.step, value.tag): value.simple_value for value in scalars}
    return found


def in_mlflow(folder: Path) -> dict[tuple[int, str], float]:
    tracking = pytest.importorskip("mlflow.tracking")
    kept = json.loads((folder / "mlflow" / "run.json").read_text())
    client = tracking.MlflowClient(kept["uri"])
    values = [
        (entry.step, key, entry.value)
        for key in client.get_run(kept["id"]).data.metrics
        for entry in client.get_metric_history(kept["id"], key)
    ]
    assert len({(step, key) for step, key, _ in values}) == len(values)
    return {(step, key): value for step, key, value in values}


READERS = {"csv": in_csv, "tensorboard": in_tensorboard, "mlflow": in_mlflow}


@pytest.fixture(params=READERS)
def name(request) -> str:
    for package in check.PACKAGES.get(request.param, ())[-1:]:
        pytest.importorskip(package)
    return request.param


def test_a_logger_has_the_record_under_the_names_of_wandb(name, folder):
    mirrored(folder, name=name)
    found = READERS[name](folder)
    assert {at: found[at] for at in expected(folder)} == pytest.approx(expected(folder), rel=1e-6)
    numbers = {key: value for key, value in content.headline(read(folder), None).items() if isinstance(value, float)}
    ends = {key: value for (_, key), value in found.items()}
    assert numbers and {key: ends[key] for key in numbers} == pytest.approx(numbers, rel=1e-6)


def test_an_attempt_that_goes_on_sends_nothing_twice(name, folder):
    mirrored(folder, 40, name=name)
    mirrored(folder, name=name)
    found = READERS[name](folder)
    assert {at: found[at] for at in expected(folder)} == pytest.approx(expected(folder), rel=1e-6)


def test_several_loggers_at_once_with_the_metric_first(folder, caplog):
    pytest.importorskip("tensorboardX")
    with caplog.at_level(logging.WARNING, logger="pipeline"):
        mirrored(folder, name="csv", also=["tensorboard"], keys="metric", histograms=True)
    assert "failed" not in caplog.text  # a CSV file has no histograms, and does without
    wanted = expected(folder, "metric")
    assert any(key.startswith("dnc1/backbone/network.") for _, key in wanted)
    for found in (in_csv(folder), in_tensorboard(folder)):
        assert {at: found[at] for at in wanted} == pytest.approx(wanted, rel=1e-6)


def test_a_failure_ends_the_tracking_and_not_the_run(folder, caplog):
    (folder / "csv").write_text("a file where the folder should be")
    with caplog.at_level(logging.WARNING):
        mirrored(folder, name="csv")
    assert caplog.text.count("csv failed") == 1


@pytest.mark.parametrize("name", check.PACKAGES)
def test_a_missing_package_is_a_sentence_that_names_the_extra(name, composed, monkeypatch):
    monkeypatch.setattr(check, "find_spec", lambda package: None)
    for argument in (f"logger={name}", f"logger.also=[{name}]"):
        with pytest.raises(ConfigError) as caught:
            composed(argument)
        sentence = str(caught.value)
        assert sentence.startswith(argument) and f"[{name}]" in sentence and "\n" not in sentence


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["logger=csv", "logger.alert=true"], "logger.alert=true needs wandb, not [csv]"),
        (["logger=csv", "logger.histograms=true"], "needs wandb or tensorboard"),
        (["logger=csv", "logger.runs=per_seed"], "logger.runs=per_seed needs logger=wandb"),
        (["logger=none", "logger.also=[csv]"], "logger.also=[csv] does not go with logger=none"),
        (["logger=csv", "logger.also=[csv]"], "does not go with logger=csv"),
        (["logger.also=[tensorbord]"], "did you mean tensorboard"),
        (["logger.entity=a/b"], "logger.entity=a/b is no team or user"),
    ],
)
def test_what_does_not_go_together_is_a_sentence(arguments, part, composed):
    with pytest.raises(ConfigError) as caught:
        composed(*arguments)
    assert part in str(caught.value) and "allowed: " in str(caught.value)
