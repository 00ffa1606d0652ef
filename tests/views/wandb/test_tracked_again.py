"""A run that was killed and started again is one wandb run, whose rows are there once."""

import os
import signal
from pathlib import Path

import pytest
from tracked import (
    IMAGES,
    assert_same,
    curves,
    expected_rows,
    pause_in_the_head,
    rows_on_disk,
    run,
    start,
    wait_for_rows_on_disk,
    wandb,
)
from wandb_server import serving

from pipeline.storage.record import read_record

LONG = [*IMAGES, "descent.steps=20000"]
EPOCHS = 4  # with epoch 0


def interrupt(folder: Path, arguments: list[str], more: dict[str, str], until) -> None:
    """Kill a run in the middle of its second stage, once ``until`` has returned."""
    command = start(folder, arguments, more)
    try:
        pause_in_the_head(command, folder)
        until()
    finally:
        os.kill(command.pid, signal.SIGKILL)
        command.end()


@pytest.fixture(scope="module")
def online_again(tmp_path_factory):
    """Killed when the server had some rows; then run to its end. The folder, the server, what it had at the kill."""
    folder = tmp_path_factory.mktemp("online_again")
    arguments = [*LONG, "logger.mode=online"]
    with serving() as server:
        interrupt(folder, arguments, server.environment, until=lambda: server.wait_for_rows(EPOCHS - 1))
        before = server.only_run.history
        run(folder, arguments, server.environment)
    return folder / "run", server, before


def test_an_online_run_goes_on_where_the_server_is(online_again):
    folder, server, before = online_again
    arrived = server.only_run
    assert len(before) >= EPOCHS - 1 and arrived.history[: len(before)] == before  # sent once, by the first attempt
    assert [row["_step"] for row in arrived.history] == list(range(len(arrived.history)))
    assert_same(list(curves(arrived.history)), expected_rows(read_record(folder)))
    assert len(list((folder / "wandb").glob("run-*"))) == 2 and arrived.exit_codes == [0]


def test_the_summary_of_an_online_run_that_went_on_is_complete(online_again):
    folder, server, _ = online_again
    summary, record = server.only_run.summary, read_record(folder)
    assert summary["status"] == "completed" and "layers" in summary
    losses = record.query("stage == 'backbone' and metric == 'train_loss'").value
    assert summary["backbone/train_loss"] == losses.iloc[-1] and summary["min/backbone/train_loss"] == losses.min()


@pytest.fixture(scope="module")
def offline_again(tmp_path_factory):
    """The same without a server; then ``wandb sync`` of the whole folder. The run folder, files, and the server."""
    folder = tmp_path_factory.mktemp("offline_again")
    interrupt(folder, LONG, {}, until=lambda: wait_for_rows_on_disk(EPOCHS - 1, folder))
    run(folder, LONG)
    files = sorted((folder / "run" / "wandb").glob("offline-run-*/*.wandb"))
    with serving() as server:
        wandb("sync", "--yes", *[str(file.parent) for file in files], folder=folder, more=server.environment)
    return folder, files, server


def test_each_attempt_is_complete_on_disk(offline_again):
    folder, (first, second), _ = offline_again
    expected = expected_rows(read_record(folder / "run"))
    begun = list(curves(rows_on_disk(first, folder)))
    assert EPOCHS - 1 <= len(begun) < len(expected)
    assert_same(begun, expected[: len(begun)])
    assert_same(list(curves(rows_on_disk(second, folder))), expected)


def test_syncing_all_attempts_gives_one_run_with_every_row_once(offline_again):
    folder, _, server = offline_again
    arrived = server.only_run
    assert_same(list(curves(arrived.history)), expected_rows(read_record(folder / "run")))
    assert [row["_step"] for row in arrived.history] == list(range(len(arrived.history)))
    assert arrived.summary["status"] == "completed" and arrived.exit_codes == [0]


def test_an_offline_run_arrives_with_its_tables_and_figures(offline_again):
    _, _, server = offline_again
    names = {Path(name).name.rsplit("_", 2)[0] for name in server.only_run.files if name.startswith("media/")}
    assert names == {"layers", "verdict_by_layer", "seeds", "collapse"}
