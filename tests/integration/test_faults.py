"""Whatever ends a run, started again it ends as one that was left alone."""

import os
import re
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest
from commands import commands, dnc, script, wait_until
from disturbance import (
    DRAWN,
    FEATURES,
    HEAD,
    HEAD_BEFORE,
    PICTURE,
    RUN,
    TRAINING,
    TRAINING_BEFORE,
    assert_same,
    family,
    fill,
    flip_a_bit,
    small_disk,
    troubled,
    truncate,
    whole_files,
)
from recomputation import summary_of

from pipeline.runtime.interruption import SECONDS_OF_IMPATIENCE


@pytest.fixture(scope="module")
def undisturbed(here, tmp_path_factory):
    run = tmp_path_factory.mktemp("undisturbed") / "run"
    assert here.start(run, *DRAWN).end().code == 0
    return run


def assert_interrupted(done, run: Path, number: int) -> None:
    """Ended as asked, in one line that says how to go on."""
    assert done.code == 128 + number
    announced, sentence = done.err.splitlines()
    assert announced == f"{signal.Signals(number).name}: ending at the next checkpoint ..."
    assert sentence.endswith(f"what is done is kept, and goes on with: dnc resume={run}")
    assert summary_of(run)["status"] == "interrupted"


def test_a_run_that_signals_end_goes_on_also_from_damaged_checkpoints(here, undisturbed, tmp_path):
    run = tmp_path / "run"
    first = here.start(run, *DRAWN).wait_for(TRAINING, TRAINING_BEFORE)
    assert_interrupted(first.signal(signal.SIGINT).end(), run, signal.SIGINT)
    truncate(run / TRAINING)
    second = here.resume(run).wait_for(HEAD, HEAD_BEFORE)
    done = second.signal(signal.SIGTERM).end()
    assert_interrupted(done, run, signal.SIGTERM)
    assert f"{run / TRAINING} is damaged" in done.out and f"going on from {run / TRAINING_BEFORE}" in done.out
    flip_a_bit(run / HEAD)
    done = here.resume(run).end()
    assert done.code == 0 and done.err == "", done.err
    assert f"{run / HEAD} is unreadable" in done.out and f"going on from {run / HEAD_BEFORE}" in done.out
    assert_same(run, undisturbed, PICTURE)


def test_a_run_that_is_killed_goes_on_also_from_damaged_checkpoints(here, undisturbed, tmp_path):
    run = tmp_path / "run"
    here.start(run).kill_when(TRAINING, TRAINING_BEFORE)
    assert summary_of(run)["status"] == "running" and (run / ".dnc.lock").exists()
    flip_a_bit(run / TRAINING)
    killed = here.start(run).kill_when(HEAD, HEAD_BEFORE)
    assert f"{run / TRAINING} is damaged" in killed.out and f"going on from {run / TRAINING_BEFORE}" in killed.out
    truncate(run / HEAD)
    flip_a_bit(run / FEATURES, place=0.9)  # in the tensors
    done = here.start(run).end()
    assert done.code == 0, done.err
    assert f"{run / FEATURES} is unreadable: its checksum does not match; this stage is repeated" in done.out
    assert f"{run / HEAD} is unreadable" in done.out and f"going on from {run / HEAD_BEFORE}" in done.out
    assert_same(run, undisturbed)


@pytest.mark.parametrize("last", [TRAINING_BEFORE, HEAD_BEFORE, Path("stages/head.safetensors")])
def test_a_full_disk_ends_a_run_in_one_sentence_and_costs_nothing(last, here, undisturbed, tmp_path):
    with small_disk(tmp_path / "disk") as disk:
        run = disk / "run"
        running = here.start(run).wait_for(last).signal(signal.SIGSTOP)
        filler = fill(disk)
        done = running.signal(signal.SIGCONT).end()
        assert done.code == 1 and done.err.count("\n") == 1, done.err
        assert "No space left on device" in done.err and f"dnc resume={run}" in done.err
        whole_files(run)
        filler.unlink()
        done = here.resume(run).end()
        assert done.code == 0, done.err
        assert_same(run, undisturbed)


def test_wandb_on_a_full_disk_does_not_hide_why_the_run_ended(here, tmp_path):
    with small_disk(tmp_path / "disk") as disk:
        run = disk / "run"
        running = here.start(run, *RUN, "logger=wandb", "logger.mode=offline").wait_for(HEAD_BEFORE)
        running.signal(signal.SIGSTOP)
        fill(disk)
        done = running.signal(signal.SIGCONT).end()
        assert done.code == 1 and done.err.count("\n") == 1, done.err
        assert "No space left on device" in done.err and f"dnc resume={run}" in done.err
        whole_files(run)


def test_a_read_only_folder_is_refused_and_stays_as_it_is(here, undisturbed, tmp_path):
    with small_disk(tmp_path / "disk") as disk:
        run = disk / "run"
        here.start(run).wait_for(TRAINING_BEFORE).signal(signal.SIGTERM).end()
        before = whole_files(run)
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        for place in (run, disk / "another"):
            done = here.start(place).end()
            assert done.code == 2 and done.err.startswith("error: ") and done.err.count("\n") == 1, done.err
            assert str(place) in done.err and "allowed: " in done.err
        assert whole_files(run) == before and [path.name for path in disk.iterdir()] == ["run"]


def test_a_folder_in_use_is_refused_by_the_name_of_who_uses_it(here, undisturbed, tmp_path):
    run = tmp_path / "run"
    first = here.start(run).wait_for(TRAINING).signal(signal.SIGSTOP)
    second = dnc(*RUN, f"hydra.run.dir={run}", cwd=tmp_path, check=False)
    first.signal(signal.SIGCONT)
    assert second.returncode == 2 and second.stderr.count("\n") == 1
    assert f"is in use by process {first.pid} on {socket.gethostname()}" in second.stderr
    assert first.end().code == 0
    assert_same(run, undisturbed)


def test_a_second_ctrl_c_ends_a_step_that_takes_too_long(here, tmp_path):
    running = here.start(tmp_path / "run", *troubled("Sleeper")).wait_for(TRAINING_BEFORE)
    presses = 0
    while summary_of(tmp_path / "run")["status"] == "running":
        running.signal(signal.SIGINT)
        presses += 1
        # The next one counts if it comes so much later than the first was noted, which only the process knows.
        pause = time.monotonic() + 1.5 * SECONDS_OF_IMPATIENCE
        wait_until(lambda end=pause: time.monotonic() > end or running.is_over())
    done = running.end()
    assert done.code == 130 and presses > 1
    assert f"dnc resume={tmp_path / 'run'}" in done.err.splitlines()[-1]
    assert summary_of(tmp_path / "run")["status"] == "interrupted"
    whole_files(tmp_path / "run")


def test_a_run_outlives_the_service_of_wandb(here, undisturbed, tmp_path):
    run = tmp_path / "run"
    running = here.start(run, *RUN, "logger=wandb", "logger.mode=offline").wait_for(TRAINING_BEFORE)
    (service,) = (pid for pid, command in family(running.pid).items() if "wandb-core" in command)
    os.kill(service, signal.SIGKILL)
    done = running.end()
    assert done.code == 0 and "Traceback" not in done.err
    assert (done.out + done.err).count("wandb failed") <= 1
    assert_same(run, undisturbed)


def test_runs_killed_at_random_moments_lose_nothing(tmp_path):
    stages = ("extraction", "recording")  # which last too short to be hit on purpose
    chaos = Path(__file__).parents[2] / "scripts" / "chaos.py"
    arguments = ["--attempts", "1", "--seed", "3", *[f"--stage={stage}" for stage in stages]]
    done = commands().run(*script(chaos, *arguments), folder=tmp_path)
    assert done.code == 0, done.out + done.err
    rows = [re.findall(r"\w+", line) for line in done.out.splitlines() if line.startswith("│")]
    survived = {row[0]: tuple(map(int, row[-3:])) for row in rows}  # attempts, survived, lost
    assert survived == dict.fromkeys(stages, (1, 1, 0))
