"""Whatever the server does, a run neither waits long, nor asks, nor loses anything."""

import logging
import os
import pty
import socket
import subprocess
import sys

import pytest
import wandb as client
from tracked import DUFM, assert_same, curves, environment, expected_rows, rows_on_disk, start, wandb
from wandb_server import KEY, WandbServer, serving

from pipeline.config import LoggerConfig
from pipeline.storage.record import Row, read_record, read_summary
from pipeline.views.wandb.tracker import Tracker

SHORT, LONG = 1.0, 60.0
"""``logger.patience``, seconds: of tests in which all of it is waited, and of those in which something is awaited."""


@pytest.fixture
def online_tracker(tmp_path, monkeypatch):
    """Start a tracker online with the given variables set, and close it afterwards."""
    for name in [name for name in os.environ if name.startswith("WANDB")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NETRC", str(tmp_path / "home" / "netrc"))

    def begin(patience: float = LONG, **variables: str) -> Tracker:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        client.teardown()  # it has read its settings once and for all
        return Tracker.start(
            LoggerConfig(name="wandb", mode="online", patience=patience), tmp_path, {"seed": 0}, "dufm", {}
        )

    yield begin
    client.teardown()


def assert_offline_and_said_once(tracker: Tracker, folder, caplog, why: str) -> None:
    tracker.rows([Row("head", step, 0, "", "", "loss", 1.0 / (step + 1)) for step in range(3)])
    tracker.finish({"status": "failed"}, [])
    (said,) = [record.message for record in caplog.records if record.name.startswith("pipeline")]
    assert why in said and said.endswith("tracking offline instead.") and KEY not in said
    (file,) = (folder / "wandb").glob("offline-run-*/*.wandb")
    assert [row["head/loss"] for row in rows_on_disk(file, folder)] == [1.0, 1 / 2, 1 / 3]


def test_a_wrong_key(online_tracker, tmp_path, caplog):
    with caplog.at_level(logging.WARNING), serving() as server:
        tracker = online_tracker(WANDB_BASE_URL=server.url, WANDB_API_KEY="f" * 40)
        assert_offline_and_said_once(tracker, tmp_path, caplog, "401")
    assert not server.runs


def test_a_malformed_key(online_tracker, tmp_path, caplog):
    with caplog.at_level(logging.WARNING), serving() as server:
        tracker = online_tracker(WANDB_BASE_URL=server.url, WANDB_API_KEY="abc")
        assert_offline_and_said_once(tracker, tmp_path, caplog, "40+ characters")


def test_no_network(online_tracker, tmp_path, caplog):
    with caplog.at_level(logging.WARNING), socket.create_server(("127.0.0.1", 0)) as closed:
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        closed.close()
        tracker = online_tracker(WANDB_BASE_URL=url, WANDB_API_KEY=KEY)
        assert_offline_and_said_once(tracker, tmp_path, caplog, f"{url} does not answer")


def test_a_server_that_accepts_and_says_nothing(online_tracker, tmp_path, caplog):
    with caplog.at_level(logging.WARNING), socket.create_server(("127.0.0.1", 0)) as silent:
        tracker = online_tracker(SHORT, WANDB_BASE_URL=f"http://127.0.0.1:{silent.getsockname()[1]}", WANDB_API_KEY=KEY)
        assert_offline_and_said_once(tracker, tmp_path, caplog, "does not answer")


def test_a_server_that_dies_does_not_hold_up_the_end(online_tracker):
    server = WandbServer()
    server.start()
    tracker = online_tracker(10 * SHORT, WANDB_BASE_URL=server.url, WANDB_API_KEY=KEY)
    server.stop()
    tracker.rows([Row("head", step, 0, "", "", "loss", 1.0) for step in range(3)])
    tracker.finish({"status": "failed"}, [])
    client.teardown()  # as at the end of the process


def test_a_key_in_netrc_is_found(online_tracker, tmp_path):
    (tmp_path / "home").mkdir()
    with serving() as server:
        host = server.url.removeprefix("http://")
        (tmp_path / "home" / "netrc").write_text(f"machine {host}\n  login user\n  password {KEY}\n")
        (tmp_path / "home" / "netrc").chmod(0o600)
        tracker = online_tracker(WANDB_BASE_URL=server.url)
        tracker.rows([Row("head", 0, 0, "", "", "loss", 1.0)])
        tracker.finish({"status": "failed"}, [], failed=True)
        assert [row["head/loss"] for row in server.only_run.history] == [1.0] and server.only_run.exit_codes == [1]


def test_no_key_and_a_terminal_asks_nothing(tmp_path):
    ours, theirs = pty.openpty()
    try:
        command = [sys.executable, "-m", "pipeline", *DUFM, "logger.mode=online", "record.figures=false"]
        command += ["hydra.run.dir=run"]
        with (
            serving() as server,
            subprocess.Popen(
                command,
                cwd=tmp_path,
                env=environment(tmp_path / "home", {"WANDB_BASE_URL": server.url}),
                **dict.fromkeys(("stdin", "stdout", "stderr"), theirs),
            ) as process,
        ):
            os.close(theirs)
            said = read_all(ours)
            assert process.wait(300) == 0, said
    finally:
        os.close(ours)
    assert said.count("no API key found") == 1 and "tracking offline instead" in said
    assert "wandb: (1)" not in said and "API key:" not in said and "paste" not in said.lower()
    assert not server.operations and read_summary(tmp_path / "run")["status"] == "completed"
    (file,) = (tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb")
    assert_same(list(curves(rows_on_disk(file, tmp_path))), expected_rows(read_record(tmp_path / "run")))


def read_all(terminal: int) -> str:
    """What is written to a terminal until the last writer has closed it."""
    said = b""
    try:
        while chunk := os.read(terminal, 4096):
            said += chunk
    except OSError:
        pass  # how Linux says that nobody has it open any more
    return said.decode()


@pytest.fixture(scope="module")
def deserted(tmp_path_factory):
    """A run whose server goes away when it has begun; its folder, and what it said."""
    folder = tmp_path_factory.mktemp("deserted")
    server = WandbServer()
    server.start()
    command = start(folder, [*DUFM, "logger.mode=online"], server.environment)
    with server.arrived:
        assert server.arrived.wait_for(lambda: "UpsertBucket" in server.operations, 120)
    server.stop()
    done = command.end()
    assert done.code == 0, done.err
    return folder, done.out + done.err


def test_a_server_that_dies_is_reported_once_and_the_run_completes(deserted):
    folder, said = deserted
    assert said.count("the server has stopped answering") == 1 and "Traceback" not in said
    assert read_summary(folder / "run")["status"] == "completed"


def test_what_a_dead_server_has_not_got_can_be_synced(deserted):
    folder, said = deserted
    (advice,) = [line for line in said.splitlines() if "stopped answering" in line]
    command = advice.split("`")[1].split()
    assert command[:2] == ["wandb", "sync"]
    with serving() as server:
        wandb(*command[1:], "--yes", folder=folder, more=server.environment)
    arrived = server.only_run
    assert_same(list(curves(arrived.history)), expected_rows(read_record(folder / "run")))
    assert arrived.summary["status"] == "completed" and "figures/collapse" in arrived.summary
