"""The timer: due after its seconds, at a signal, and whenever another rank says so."""

import signal
import time

import pytest

from pipeline.runtime import checkpoint_timer as module
from pipeline.runtime.checkpoint_timer import CheckpointTimer
from pipeline.runtime.interruption import Interrupted, interruption


def test_the_timer_is_due_after_its_seconds_and_restarts_when_a_checkpoint_is_saved(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    timer = CheckpointTimer(30.0)
    assert not timer.due()
    now[0] += 29.9
    assert not timer.due()
    now[0] += 0.2
    assert timer.due() and timer.due()  # until it is saved
    timer.restart_or_exit()
    assert not timer.due()


def test_with_zero_seconds_every_look_is_due():
    timer = CheckpointTimer(0.0)
    for _ in range(3):
        assert timer.due()
        timer.restart_or_exit()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_is_due_at_once_and_ends_the_run_when_the_checkpoint_is_saved(number, monkeypatch):
    timer = CheckpointTimer(1e9)
    assert not timer.due()
    monkeypatch.setattr(interruption, "received", number)
    assert timer.due()
    with pytest.raises(Interrupted) as caught:
        timer.restart_or_exit()
    assert caught.value.number == number


def test_what_another_rank_has_seen_counts(monkeypatch):
    monkeypatch.setattr(module.ranks, "largest", lambda number: max(number, signal.SIGTERM))
    timer = CheckpointTimer(1e9)
    assert timer.due()
    with pytest.raises(Interrupted):
        timer.restart_or_exit()
