"""A rank that waits for one that is gone, in a call that nothing interrupts, is told so, or ends."""

import subprocess
import sys
import threading

import pytest

from pipeline.runs import watching
from pipeline.runs.watching import watched

WAITS_FOR_EVER = """
import subprocess, sys, threading
from pipeline.runs import watching

watching.SECONDS_TO_NOTICE, watching.SECONDS_TO_LEAVE, watching.SECONDS_BETWEEN = 0.02, 0.1, 0.02
there = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
gone = subprocess.Popen([sys.executable, "-c", "import sys; sys.exit(3)"])
with watching.watched([there, gone], abort=lambda: print("aborted", flush=True)):
    threading.Lock().acquire(timeout=60) and threading.Event().wait(60)
print("left", flush=True)
"""


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    for name in ("SECONDS_TO_NOTICE", "SECONDS_BETWEEN"):
        monkeypatch.setattr(watching, name, 0.02)


@pytest.fixture
def child():
    """Starts a process that ends with the given status."""
    started = []

    def start(code: int) -> subprocess.Popen:
        started.append(subprocess.Popen([sys.executable, "-c", f"raise SystemExit({code})"]))
        return started[-1]

    yield start
    for process in started:
        process.wait()


def test_what_waits_for_a_lost_rank_is_made_to_fail(child):
    failed = threading.Event()
    with watched([child(0), child(3)], abort=failed.set):
        assert failed.wait(60)


def test_ranks_that_end_well_are_not_missed(child):
    children, lost, failed = [child(0), child(0)], child(3), threading.Event()
    lost.wait()
    with watched(children, abort=failed.set):
        assert [each.wait() for each in children] == [0, 0]
        with watched([*children, lost], abort=failed.set):
            assert failed.wait(60)  # by which time the other watch would have asked, too
            failed.clear()
    assert not failed.is_set()


def test_a_rank_that_learns_of_it_itself_is_left_alone(monkeypatch, child):
    monkeypatch.setattr(watching, "SECONDS_TO_NOTICE", 60.0)
    asked = threading.Event()
    with pytest.raises(RuntimeError), watched([child(3)], abort=asked.set):
        raise RuntimeError("Connection closed by peer")
    assert not asked.is_set()


def test_a_rank_that_waits_on_after_that_ends_with_a_sentence():
    done = subprocess.run([sys.executable, "-c", WAITS_FOR_EVER], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and done.stdout == "aborted\n", done
    assert done.stderr.startswith("error: rank 0 waits for process 2 of the run, which has ended (status 3)")
