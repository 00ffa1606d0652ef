"""Jobs that Slurm is about to end keep what they have, are requeued, and end as if nothing had happened."""

import json
import os
import re
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
from commands import forked_python
from local_cluster import job_number, until, written
from safetensors import safe_open

from pipeline.storage.record import read_summary

STEPS = 400_000
# Seconds of training and seconds of descent, so that a signal finds them in progress.
RUN = [
    "logger=none",
    "record.figures=false",
    "data.samples_per_class=20",
    "backbone.hidden=[8,8]",
    "backbone.epochs=100",
]
RUN += ["backbone.batch_size=4", "head.width=8", "head.depth=2", "descent.seeds=2", f"descent.steps={STEPS}"]
RUN += ["descent.records_per_decade=1", "trainer.checkpoint_seconds=0"]
TRAINS = "epoch 1/100"
CHECKPOINTS = ("checkpoints/backbone.ckpt (epoch", "stages/head.half.safetensors")


@pytest.fixture(scope="module")
def started(launch, slurm, tmp_path_factory):
    """All jobs of this module at once: mostly they wait."""
    scenarios = {"signalled": signalled, "preempted": preempted, "cancelled": cancelled, "session": session}
    with ThreadPoolExecutor() as pool:
        folders = {name: tmp_path_factory.mktemp(name) for name in scenarios}
        on_slurm = ["--multirun", "hydra/launcher=slurm", "hydra.sweep.dir=sweep", "seed=0,0"]
        launcher = launch(folders["signalled"], *on_slurm, *RUN)
        jobs = {name: pool.submit(scenario, slurm, folders[name]) for name, scenario in scenarios.items()}
        yield SimpleNamespace(folders=folders, launcher=launcher, jobs=jobs)


def signalled(slurm, cwd: Path) -> int:
    """Of two equal runs of a multirun, the first gets a signal while it trains, another while its head descends.

    Returns the step of the descent that was kept.
    """
    run = cwd / "sweep" / "0"
    until(written(run / "dnc.log", TRAINS), "the training", 240)
    job = f"{job_number(cwd / 'sweep')}_0"
    slurm.ask("scancel", "--signal=USR2", job)
    checkpoint = run / "stages" / "head.half.safetensors"
    until(checkpoint.exists, "the descent of the second attempt", 240, pause=0.001)
    (process,) = map(int, re.findall(r"process (\d+) ", (run / ".dnc.lock").read_text()))
    os.kill(process, signal.SIGSTOP)  # the signal is slower than a descent may be
    slurm.ask("scancel", "--signal=TERM", job)
    until(lambda: is_pending(process, signal.SIGTERM), "the signal")
    os.kill(process, signal.SIGCONT)
    until(lambda: not Path(f"/proc/{process}").exists(), "the end of the second attempt", 120)
    with safe_open(checkpoint, framework="pt") as content:  # the third takes seconds to begin
        kept = json.loads(content.metadata()["stage"])["facts"]["step"]
    until(lambda: slurm.history(job)[:2] == ["REQUEUED 0:0"] * 2, "the second requeue", 120)
    return kept


def is_pending(process: int, number: int) -> bool:
    """Whether a stopped process has been sent a signal."""
    (signals,) = re.findall(r"^ShdPnd:\s*(\w+)$", Path(f"/proc/{process}/status").read_text(), re.M)
    return bool(int(signals, 16) >> (number - 1) & 1)


def preempted(slurm, cwd: Path) -> list[str]:
    """A job that trains on a node of its own, which a job with more rights then wants; the history of the first."""
    job = slurm.batch(cwd, "--partition=low", "--exclusive", *RUN)
    until(written(cwd / "outputs" / f"slurm-{job}" / "dnc.log", TRAINS), "the training", 240)
    node = slurm.ask("squeue", "-h", "-j", job, "-o", "%N").strip()
    important = ["--partition=high", "--exclusive", f"--nodelist={node}", "--output=/dev/null", "--wrap=true"]
    wanted = slurm.ask("sbatch", "--parsable", *important).strip()
    assert slurm.wait_for_end(wanted) == ["COMPLETED 0:0"]
    return slurm.wait_for_end(job)


def cancelled(slurm, cwd: Path) -> list[str]:
    """A job that is cancelled while it trains; its history."""
    job = slurm.batch(cwd, *RUN)
    until(written(cwd / "outputs" / f"slurm-{job}" / "dnc.log", TRAINS), "the training", 240)
    slurm.ask("scancel", job)
    until(lambda: slurm.ask("squeue", "-h", "-j", job, "-t", "all", "-o", "%T").strip() == "CANCELLED", "its end")
    return slurm.wait_for_end(job)


def session(slurm, cwd: Path) -> tuple[int, str]:
    """A run in an interactive session that gets a signal while it trains; its exit code, and the job's number."""
    command = ["srun", "--job-name=sys/dashboard", str(forked_python()), "-m", "pipeline", *RUN, "hydra.run.dir=run"]
    with subprocess.Popen(command, cwd=cwd, env=slurm.env) as process:
        until(written(cwd / "run" / "dnc.log", TRAINS), "the training", 240)
        job = slurm.ask("squeue", "-h", "--name=sys/dashboard", "-o", "%i").strip()
        slurm.ask("scancel", "--signal=TERM", job)
    return process.returncode, job


@pytest.fixture(scope="module")
def sweep(started) -> Path:
    """The multirun when it has ended."""
    started.jobs["signalled"].result(480)
    done = started.launcher.end()
    assert done.code == 0, done.err
    return started.folders["signalled"] / "sweep"


def test_an_element_of_an_array_is_requeued_alone_at_every_signal(sweep, slurm):
    number = job_number(sweep)
    until(
        lambda: slurm.history(f"{number}_0") == ["REQUEUED 0:0"] * 2 + ["COMPLETED 0:0"], "two requeues in accounting"
    )
    assert slurm.history(f"{number}_1") == ["COMPLETED 0:0"]


def test_a_requeued_run_goes_on_where_it_was(sweep, started):
    assert 0 < started.jobs["signalled"].result() < STEPS
    story = (sweep / "0" / "dnc.log").read_text()
    training, descent = (story.index(f"going on from {sweep / '0' / name}") for name in CHECKPOINTS)
    assert training < descent and story.count("going on from") == 2
    assert story.count(TRAINS) == 1 and "going on" not in (sweep / "1" / "dnc.log").read_text()


def test_an_interrupted_run_ends_as_one_that_was_left_alone(sweep):
    assert_equal_runs(sweep / "0", sweep / "1")


def test_a_preempted_job_goes_on_when_there_is_room_again(sweep, started):
    history = started.jobs["preempted"].result(480)
    (log,) = started.folders["preempted"].glob("slurm-*.log")
    assert len(history) == 2 and history[-1] == "COMPLETED 0:0", (history, log.read_text())
    (run,) = (started.folders["preempted"] / "outputs").iterdir()
    assert f"going on from {run}/checkpoints/backbone.ckpt (epoch" in (run / "dnc.log").read_text()
    assert_equal_runs(run, sweep / "1")


def test_a_cancelled_job_stays_cancelled_and_keeps_what_it_had(started):
    (history,) = started.jobs["cancelled"].result(480)
    assert history.startswith("CANCELLED")
    (run,) = (started.folders["cancelled"] / "outputs").iterdir()
    assert read_summary(run)["status"] == "interrupted" and (run / "checkpoints" / "backbone.ckpt").exists()


def test_an_interactive_session_is_not_requeued(started, slurm):
    code, job = started.jobs["session"].result(480)
    assert code == 128 + signal.SIGTERM and len(slurm.wait_for_end(job)) == 1
    run = started.folders["session"] / "run"
    assert read_summary(run)["status"] == "interrupted" and (run / "checkpoints" / "backbone.ckpt").exists()


def assert_equal_runs(run: Path, undisturbed: Path) -> None:
    for folder in (run, undisturbed):
        assert read_summary(folder)["status"] == "completed" and not (folder / "stages").exists()
    for name in ("record.csv", "tensors.safetensors", "checkpoints/backbone.safetensors"):
        assert (run / name).read_bytes() == (undisturbed / name).read_bytes()
