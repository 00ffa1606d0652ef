"""A multirun tells of its jobs: their states while they are elsewhere, and all of them at the end."""

import json
import logging
from pathlib import Path
from threading import Event

import handmade
import pytest

from pipeline.cli import sweep_end
from pipeline.cli.sweep_end import states_told, tell_sweep
from pipeline.runtime.command_line import installed_command


@pytest.fixture
def jobs(tmp_path, monkeypatch) -> Path:
    """Three jobs of a multirun: one completed, one failed, one that is not there yet."""
    monkeypatch.chdir(tmp_path)
    for number in range(2):
        folder = handmade.without_head(tmp_path / "my sweep" / str(number))
        (folder / ".hydra" / "overrides.yaml").write_text(f"[seed={number}]")
        (folder / ".hydra" / "config.yaml").write_text(f"{{protocol: {{name: train_only}}, seed: {number}}}")
    fail(folder)
    return Path("my sweep")


def fail(folder: Path) -> None:
    (folder / "summary.json").write_text(json.dumps({"status": "failed", "protocol": "p", "error": "RunError: no"}))


def test_the_end_is_one_table_and_commands_that_can_be_pasted(jobs, capsys):
    (jobs / "0" / "wandb" / "offline-run-1").mkdir(parents=True)
    tell_sweep(jobs)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("2 runs in my sweep")
    assert lines[1].split()[:2] == ["run", "seed"] and lines[2].split()[:3] == ["0", "0", "completed"]
    assert lines[3].split()[:3] == ["1", "1", "failed"] and "RunError: no" in lines[3]
    assert [line.split(maxsplit=1)[1] for line in lines[4:]] == [
        "dnc sweep 'my sweep'",
        "dnc report 'my sweep'",
        f"{installed_command('wandb')} sync 'my sweep'/*/wandb/offline-run-*",
    ]


def test_a_multirun_without_jobs_and_a_quiet_one_say_nothing(jobs, capsys, monkeypatch, tmp_path):
    (tmp_path / "empty").mkdir()
    tell_sweep(tmp_path / "empty")
    monkeypatch.setenv("DNC_VERBOSITY", "quiet")
    tell_sweep(jobs)
    assert capsys.readouterr().out == ""


def test_states_are_told_when_they_change(jobs, caplog, monkeypatch):
    monkeypatch.setattr(sweep_end, "SECONDS", 0.01)
    told = Event()

    class Waiting(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage())
            told.set()

    said: list[str] = []
    log = logging.getLogger(sweep_end.__name__)
    log.addHandler(handler := Waiting())
    log.setLevel(logging.INFO)
    try:
        with states_told(jobs, 3):
            assert told.wait(30)
            told.clear()
            fail(jobs / "0")
            assert told.wait(30)
    finally:
        log.removeHandler(handler)
    assert said == ["3 jobs: 1 completed, 1 failed, 1 waiting", "3 jobs: 2 failed, 1 waiting"]
