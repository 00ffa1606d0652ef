"""What the launcher says of a job that Slurm has ended: where its log lies, and what that says, if it says anything."""

import pytest

from pipeline.cli import cluster
from pipeline.cli.cluster import lost_job


@pytest.fixture
def lost(tmp_path):
    """Submitit's error of job 14, whose log is ``14_0_log.out`` in this test's folder."""
    utils = pytest.importorskip("submitit.core.utils")
    return utils.UncompletedJobError(
        f"Job 14 (task: 0) with path {tmp_path}/14_0_result.pkl\nhas not produced any output (state: FAILED)\nNo output"
    )


SRUN = "srun: error: Task launch failed: Job credential expired\nsrun: Job step aborted\n"


@pytest.mark.parametrize(
    ("log", "words"),
    [
        (None, ""),
        ("\n \n", ""),
        ("starting\n\nKilled\n\n", "; its log says: Killed"),
        (SRUN, "; its log says: srun: error: Task launch failed: Job credential expired"),
        ("ValueError: first\nMemoryError: last\ndone", "; its log says: MemoryError: last"),
        ("an error\n" + "x\n" * cluster.LOG_END, "; its log says: x"),
    ],
)
def test_a_lost_job_is_told_with_the_last_words_of_its_log(log, words, lost, tmp_path):
    path = tmp_path / "14_0_log.out"
    if log is not None:
        path.write_text(log)
    assert lost_job(lost) == f"job 14 ended without a result, Slurm's state of it is FAILED{words} (log: {path})"


def test_what_a_log_says_cannot_steer_the_terminal(lost, tmp_path):
    (tmp_path / "14_0_log.out").write_bytes(b"error: \x1b[2J \xff")
    assert "\x1b" not in lost_job(lost)


def test_other_errors_are_no_lost_jobs():
    assert lost_job(RuntimeError("Job 14 (task: 0) with path x_result.pkl\nhas not (state: FAILED)")) is None
