"""Signals are noted where something can be saved half done, and acted on at once elsewhere."""

import os
import re
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.runtime import interruption as module
from pipeline.runtime.interruption import SIGNALS, Interrupted, Interruption, requeue


@pytest.fixture
def interruption():
    before = {number: signal.getsignal(number) for number in SIGNALS}
    listening = Interruption()
    listening.listen()
    yield listening
    for number, handler in before.items():
        signal.signal(number, handler)


def raise_here(number: int) -> None:
    """Send this thread a signal, which is handled when this returns."""
    signal.raise_signal(number)


@pytest.mark.parametrize("number", SIGNALS)
def test_outside_of_anything_a_signal_ends_the_run_at_once(interruption, number):
    with pytest.raises(Interrupted) as caught:
        raise_here(number)
    assert caught.value.exit_code == 128 + number and str(caught.value) == signal.Signals(number).name


def test_an_interruption_is_no_failure():
    assert not issubclass(Interrupted, Exception)
    assert [Interrupted(number).exit_code for number in (signal.SIGINT, signal.SIGTERM)] == [130, 143]


@pytest.mark.parametrize("number", SIGNALS)
def test_within_a_loop_that_keeps_its_state_a_signal_is_only_noted(interruption, number, capfd):
    with interruption.deferred():
        raise_here(number)
        raise_here(signal.SIGTERM)  # what a launcher passes on is the same request
        assert interruption.received == number
    assert f"{signal.Signals(number).name}: ending at the next checkpoint" in capfd.readouterr().err
    with pytest.raises(Interrupted):
        raise_here(signal.SIGINT)


def test_a_second_ctrl_c_is_acted_on_at_once(interruption, monkeypatch):
    monkeypatch.setattr(module, "SECONDS_OF_IMPATIENCE", 0.0)
    with interruption.deferred():
        raise_here(signal.SIGINT)
        with pytest.raises(Interrupted):
            raise_here(signal.SIGINT)


def test_a_new_run_does_not_inherit_the_signal_of_the_one_before(interruption):
    with interruption.deferred():
        raise_here(signal.SIGTERM)
    with pytest.raises(Interrupted):
        interruption.exit_if_signalled()
    interruption.reset()
    interruption.exit_if_signalled()
    assert interruption.received == 0


def test_a_signal_while_modules_load_ends_the_command_in_a_sentence(tmp_path):
    command = [sys.executable, "-m", "pipeline"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        while not caught(process.pid) >> (signal.SIGUSR2 - 1) & 1:
            assert process.poll() is None
        process.send_signal(signal.SIGUSR2)
        said = process.stderr.read()
    assert process.returncode == 128 + signal.SIGUSR2 and list(tmp_path.iterdir()) == []
    assert "ended by SIGUSR2" in said and "Traceback" not in said


@pytest.mark.parametrize(("done", "code"), [("ignore_signals", 0), ("reset", -signal.SIGTERM)])
def test_a_signal_while_python_ends_does_not_make_a_completed_run_a_failed_one(done, code):
    """The signal comes from an object that dies with its module, when Python has taken all handlers away."""
    late = "type('Late', (), {'__del__': lambda self, kill=os.kill, me=os.getpid(): kill(me, 15)})()"
    lines = ["import os", "from pipeline.runtime.interruption import interruption", "interruption.listen()"]
    ended = subprocess.run([sys.executable, "-c", "; ".join([*lines, f"interruption.{done}()", f"late = {late}"])])
    assert ended.returncode == code


def caught(pid: int) -> int:
    """The set of signals that a process handles, as bits."""
    (mask,) = re.findall(r"^SigCgt:\s*(\w+)", Path(f"/proc/{pid}/status").read_text(), re.M)
    return int(mask, 16)


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """Stand-ins for Slurm's commands that write down how they were called; returns what they were asked."""

    def make(state: str, code: int = 0, busy: int = 0, batch: int = 1, again: int = 1) -> list[str]:
        """The answers of ``squeue``, which fails so often first, and of ``scontrol`` about the job."""
        tried = tmp_path / "tried"
        answer = f"echo >> {tried}; [ $(wc -l < {tried}) -gt {busy} ] || exit 1; echo {state}"
        job = f"JobId=17 JobName=zsh\n   JobState={state} Reason=None\n   Requeue={again} Restarts=0 BatchFlag={batch}"
        control = f'[ "$*" = "show job 17" ] && echo "{job}" && exit; echo "$@" >> {tmp_path}/asked; exit {code}'
        for name, body in (("squeue", answer), ("scontrol", control)):
            command = tmp_path / name
            command.write_text(f"#!/bin/sh\n{body}\n")
            command.chmod(command.stat().st_mode | stat.S_IEXEC)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        monkeypatch.setenv("SLURM_JOB_ID", "17")
        monkeypatch.delenv("SLURM_JOB_NAME", raising=False)
        monkeypatch.setattr(module, "_has_terminal", lambda: False)  # pytest may have one
        monkeypatch.setattr(module, "SECONDS_UNTIL_REQUEUED", 0.0)
        monkeypatch.setattr(module, "SECONDS_TO_ASK", 30.0)
        monkeypatch.setattr(module, "SECONDS_BETWEEN_ATTEMPTS", 0.0)

    def asked() -> list[str]:
        return (tmp_path / "asked").read_text().splitlines() if (tmp_path / "asked").exists() else []

    make.asked = asked
    return make


@pytest.mark.parametrize("state", ["RUNNING", "SIGNALING"])
@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM])
def test_a_running_slurm_job_is_requeued(slurm, number, state, capsys):
    slurm(state)
    requeue(Interrupted(number), first=True)
    assert slurm.asked() == ["requeue 17"] and "job 17 was requeued" in capsys.readouterr().err


def test_of_an_array_only_the_element_is_requeued(slurm, monkeypatch):
    slurm("RUNNING")
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "12")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    requeue(Interrupted(signal.SIGUSR2), first=True)
    assert slurm.asked() == ["requeue 12_3"]


def test_a_cancelled_job_stays_cancelled(slurm):
    slurm("COMPLETING")
    requeue(Interrupted(signal.SIGTERM), first=True)
    assert slurm.asked() == []


def test_neither_ctrl_c_nor_another_rank_asks_slurm(slurm, monkeypatch):
    slurm("RUNNING")
    monkeypatch.setattr(module, "SECONDS_TO_ASK", 1.0)
    monkeypatch.setattr(module.time, "sleep", lambda seconds: None)
    requeue(Interrupted(signal.SIGINT), first=True)
    requeue(Interrupted(signal.SIGTERM), first=False)
    assert slurm.asked() == []


@pytest.mark.parametrize("name", ["bash", "zsh", "interactive", "jupyterhub", "sys/dashboard/sys/jupyter", "dnc"])
def test_slurm_says_whether_a_job_is_a_session_and_its_name_does_not(slurm, monkeypatch, name):
    monkeypatch.setenv("SLURM_JOB_NAME", name)
    slurm("RUNNING", batch=0)
    for first in (True, False):
        requeue(Interrupted(signal.SIGTERM), first=first)
    assert slurm.asked() == []
    slurm("RUNNING")
    monkeypatch.setenv("SLURM_JOB_NAME", name)
    requeue(Interrupted(signal.SIGTERM), first=True)
    assert slurm.asked() == ["requeue 17"]


def test_a_batch_job_in_which_somebody_works_on_a_terminal_is_not_requeued(slurm, monkeypatch, capsys):
    slurm("RUNNING")
    monkeypatch.setattr(module, "_has_terminal", lambda: True)
    requeue(Interrupted(signal.SIGTERM), first=True)
    assert slurm.asked() == [] and "job 17 was not requeued, because this is a terminal" in capsys.readouterr().err


def test_a_job_that_is_not_to_be_requeued_is_not_and_says_how_to_go_on(slurm, capsys):
    slurm("RUNNING", again=0)
    requeue(Interrupted(signal.SIGTERM), first=True)
    assert slurm.asked() == [] and "--no-requeue; run the same command again" in capsys.readouterr().err


def test_a_slurm_that_is_too_busy_to_answer_is_asked_again(slurm, capsys):
    slurm("RUNNING", busy=2)
    requeue(Interrupted(signal.SIGTERM), first=True)
    assert slurm.asked() == ["requeue 17"]
    slurm("RUNNING", busy=1000)
    requeue(Interrupted(signal.SIGTERM), first=True)
    assert slurm.asked() == ["requeue 17"]
    assert "did not answer for job 17; run the same command again" in capsys.readouterr().err


def test_a_slurm_that_hangs_is_not_waited_for(slurm, tmp_path, monkeypatch, capsys):
    slurm("RUNNING")
    monkeypatch.setattr(module, "SECONDS_TO_ASK", 0.5)
    (tmp_path / "squeue").write_text("#!/bin/sh\nexec sleep 60\n")
    requeue(Interrupted(signal.SIGTERM), first=True)
    assert slurm.asked() == [] and "did not answer for job 17" in capsys.readouterr().err


def test_a_refused_requeue_says_how_to_go_on(slurm, capsys):
    slurm("RUNNING", code=1)
    requeue(Interrupted(signal.SIGTERM), first=True)
    assert "refused to requeue job 17; run the same command again" in capsys.readouterr().err


def test_outside_slurm_nothing_happens(monkeypatch):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    requeue(Interrupted(signal.SIGTERM), first=True)
