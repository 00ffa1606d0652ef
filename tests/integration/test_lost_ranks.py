"""A rank that dies ends the run, leaves nothing running, and costs nothing that was kept."""

import os
import signal
import time

from commands import forked_python, wait_until
from disturbance import RUN, TRAINING, TRAINING_BEFORE, family, whole_files
from recomputation import summary_of

TWO = [*RUN, "descent.steps=2000", "trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2"]


def follower(pid: int) -> int:
    (other,) = (number for number, command in family(pid).items() if "pipeline.cli.follower" in command)
    return other


def test_whichever_process_is_killed_nothing_is_left_behind_and_the_run_goes_on(here, tmp_path):
    run = tmp_path / "run"
    running = here.start(run, *TWO).wait_for(TRAINING_BEFORE, TRAINING)
    os.kill(follower(running.pid), signal.SIGKILL)
    done = running.end()
    assert done.code == 1  # and was not killed because it hung
    assert done.err.count("error: ") == 1 and "rank 0 lost another process of the run" in done.err, done.err
    assert "Traceback" not in done.err and family(running.pid) == {}
    assert summary_of(run)["status"] == "failed"
    whole_files(run)

    running = here.start(run, *TWO)
    done = running.kill_when(TRAINING, newer_than=time.time_ns())
    assert f"going on from {run / TRAINING}" in done.out
    wait_until(lambda: family(running.pid) == {})

    done = here.resume(run, python=forked_python()).end()
    assert done.code == 0, done.err
    assert f"going on from {run / TRAINING}" in done.out and summary_of(run)["status"] == "completed"
