"""Whatever ends a run, started again it ends as one that was left alone."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from disturbance import (
    BACKBONE,
    FEATURES,
    HEAD,
    HEAD_BEFORE,
    RUN,
    TRAINING,
    TRAINING_BEFORE,
    assert_same,
    fill,
    flip_a_bit,
    members_of_group,
    small_disk,
    stage,
    truncate,
    wait_until,
)
from recomputation import dnc, summary_of

from pipeline.checkpoints import damage


@pytest.fixture(scope="module")
def here():
    with stage() as started:
        yield started


@pytest.fixture(scope="module")
def undisturbed(here, tmp_path_factory):
    run = tmp_path_factory.mktemp("undisturbed") / "run"
    assert here.run(run).code == 0
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
    first = here.start(run).wait_for(TRAINING, TRAINING_BEFORE)
    assert_interrupted(first.signal(signal.SIGINT).end(), run, signal.SIGINT)
    truncate(run / TRAINING)
    second = here.resume(run).wait_for(HEAD, HEAD_BEFORE)
    done = second.signal(signal.SIGTERM).end()
    assert_interrupted(done, run, signal.SIGTERM)
    assert f"{run / TRAINING} is damaged" in done.out and f"going on from {run / TRAINING_BEFORE}" in done.out
    flip_a_bit(run / HEAD)
    done = here.resume(run).end()
    assert done.code == 0 and done.err == "", done.err
    assert f"{run / HEAD} cannot be read" in done.out and f"going on from {run / HEAD_BEFORE}" in done.out
    assert_same(run, undisturbed)


def test_a_run_that_is_killed_goes_on_also_from_damaged_checkpoints(here, undisturbed, tmp_path):
    run = tmp_path / "run"
    here.start(run).wait_for(TRAINING, TRAINING_BEFORE).signal(signal.SIGKILL).end()
    assert summary_of(run)["status"] == "running" and (run / ".lock").exists()
    flip_a_bit(run / TRAINING)
    killed = here.start(run).wait_for(HEAD, HEAD_BEFORE).signal(signal.SIGKILL).end()
    assert f"{run / TRAINING} is damaged" in killed.out and f"going on from {run / TRAINING_BEFORE}" in killed.out
    truncate(run / HEAD)
    flip_a_bit(run / FEATURES, place=0.9)  # in the tensors
    done = here.start(run).end()
    assert done.code == 0, done.err
    assert f"{run / FEATURES} cannot be read (its checksum does not match); this stage is repeated" in done.out
    assert f"{run / HEAD} cannot be read" in done.out and f"going on from {run / HEAD_BEFORE}" in done.out
    assert_same(run, undisturbed)


