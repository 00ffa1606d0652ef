"""Runs of a study are shared, end when they are asked to, and go on: with real processes, signals and kills."""

import shutil
import signal

import pytest
from commands import dnc, wait_until
from reproducing import CHECKPOINT, LONG, POINTS, SHORT, Reproduction, is_alive, kill

from pipeline.runtime.lock import FolderLock, occupied

pytestmark = pytest.mark.slow


@pytest.fixture
def start(tmp_path):
    """Start a reproduction in one and the same folder; what is still there in the end is killed."""
    started = []

    def start(*arguments: str, overrides: list[str]) -> Reproduction:
        started.append(Reproduction(tmp_path / "out", *arguments, overrides=overrides))
        return started[-1]

    yield start
    for reproduction in started:
        reproduction.close()


def test_a_run_that_somebody_else_makes_is_waited_for_and_taken_as_they_leave_it(start, tmp_path):
    first, second, third = POINTS
    done = start(overrides=SHORT)
    assert done.end() == 0, done.said
    finished = tmp_path / "finished"
    shutil.copytree(done.runs / first, finished)
    locks = []
    for point in (first, second):
        shutil.rmtree(done.runs / point)
        (done.runs / point).mkdir()
        locks.append(FolderLock(done.runs / point))
    again = start(overrides=SHORT)
    again.wait_for(lambda: all(f"waiting for e2_lr {point}" in again.said for point in (first, second)))
    shutil.copytree(finished, done.runs / first, dirs_exist_ok=True)  # they complete one of theirs
    for lock in locks:
        lock.release()  # and give up the other
    assert again.end() == 0, again.said
    assert f"{first} (made by another process)" in again.said and f"{second} (made" not in again.said
    assert [again.times_made(point) for point in POINTS] == [1, 1, 1]
    assert "1 of 3 runs were finished before" in again.said and third not in again.said.partition("What was")[0]


def test_two_reproductions_at_once_make_every_run_once(start):
    pair = [start("--jobs", jobs, overrides=SHORT) for jobs in ("1", "2")]
    assert [one.end() for one in pair] == [0, 0], [one.said for one in pair]
    assert [pair[0].times_made(point) for point in POINTS] == [1, 1, 1]
    assert all("Traceback" not in one.said and "claims hold" in one.said for one in pair)


@pytest.mark.parametrize(("number", "code", "jobs"), [(signal.SIGINT, 130, "1"), (signal.SIGTERM, 143, "2")])
def test_a_signal_keeps_what_is_done_and_the_same_command_goes_on(start, number, code, jobs, tmp_path):
    running = start("--jobs", jobs, overrides=LONG).descending(*POINTS[: int(jobs)])
    with running.paused():
        assert running.statuses() == {"running"} and "running" in dnc("list", "out", cwd=tmp_path).stdout
    workers = running.workers()
    assert running.end(number) == code, running.said
    assert "the same command goes on" in running.said and "Traceback" not in running.said
    assert not any(map(is_alive, workers)) and len(workers) == (0 if jobs == "1" else 2)
    assert running.statuses() == {"interrupted"} and "interrupted" in dnc("list", "out", cwd=tmp_path).stdout
    assert all((running.runs / point / CHECKPOINT).exists() for point in POINTS[: int(jobs)])
    assert not any(occupied(folder) for folder in running.runs.iterdir())
    again = start("--jobs", jobs, overrides=LONG)
    assert again.end() == 0, again.said
    assert again.statuses() == {"completed"}
    assert "going on from" in (again.runs / POINTS[0] / "dnc.log").read_text()


def test_workers_end_with_a_parent_that_is_killed_and_keep_what_they_have(start):
    running = start("--jobs", "2", overrides=LONG).descending(*POINTS[:2])
    workers = running.workers()
    assert len(workers) == 2
    kill(running.pid)
    wait_until(lambda: not any(map(is_alive, workers)))
    assert running.statuses() == {"interrupted"}
    assert all((running.runs / point / CHECKPOINT).exists() for point in POINTS[:2])


def test_a_worker_that_is_killed_ends_the_study_in_one_sentence_and_nothing_is_left_behind(start):
    running = start("--jobs", "2", overrides=LONG).descending(*POINTS[:2])
    one, other = running.workers()
    kill(one)
    assert running.end() == 1
    assert "ended without an answer (exit code -9" in running.said and "Traceback" not in running.said
    assert not is_alive(other) and running.statuses() == {"running", "interrupted"}
