"""The clock: due after its seconds, at a signal, and whenever another rank says so."""

import signal
import time

import pytest

from pipeline.runtime import clock as module
from pipeline.runtime.clock import Clock
from pipeline.runtime.interruption import Interrupted, interruption


def test_the_clock_is_due_after_its_seconds_and_starts_anew_when_a_checkpoint_is_kept(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    clock = Clock(30.0)
    assert not clock.due()
    now[0] += 29.9
    assert not clock.due()
    now[0] += 0.2
    assert clock.due() and clock.due()  # until it has been kept
    clock.leave()
    assert not clock.due()


def test_with_zero_seconds_every_look_is_due():
    clock = Clock(0.0)
    for _ in range(3):
        assert clock.due()
        clock.leave()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_is_due_at_once_and_ends_the_run_when_the_checkpoint_is_kept(number, monkeypatch):
    clock = Clock(1e9)
    assert not clock.due()
    monkeypatch.setattr(interruption, "received", number)
    assert clock.due()
    with pytest.raises(Interrupted) as caught:
        clock.leave()
    assert caught.value.number == number


def test_what_another_rank_has_seen_counts(monkeypatch):
    monkeypatch.setattr(module.ranks, "largest", lambda number: max(number, signal.SIGTERM))
    clock = Clock(1e9)
    assert clock.due()
    with pytest.raises(Interrupted):
        clock.leave()
