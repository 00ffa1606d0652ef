"""Whatever happens to one of our programs, it ends with one sentence; a traceback is shown for -v only."""

import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from commands import commands

from pipeline.runtime.console import VARIABLE, VERBOSE
from pipeline.runtime.errors import ConfigError, RunError
from pipeline.runtime.interruption import Interrupted
from pipeline.runtime.program import ended_in_a_sentence

ERRORS = {
    "settings": (ConfigError("a=1 is not known; allowed: 2."), 2, "error: a=1 is not known; allowed: 2."),
    "run": (RunError("it cannot go on."), 1, "error: it cannot go on."),
    "file": (FileNotFoundError(2, "No such file or directory", "x"), 1, "error: x: No such file or directory."),
    "nameless": (OSError(28, "No space left on device"), 1, "error: a file: No space left on device."),
    "memory": (MemoryError(), 1, "error: out of memory."),
    "bug": (KeyError("a\nb\x1b[2J"), 1, "error: KeyError: 'a"),
    "recursion": (RecursionError("too deep"), 1, "error: RecursionError: too deep (a bug of this package"),
    "Ctrl-C": (KeyboardInterrupt(), 130, "interrupted"),
    "signal": (Interrupted(signal.SIGTERM), 143, "ended by SIGTERM"),
}
PROGRAMS = {
    "metrics": ["pipeline.metrics"],
    "studies": ["pipeline.studies", "--list"],
    "sweep": ["pipeline.views.sweep", "nowhere"],
    "dashboard": ["pipeline.views.wandb.dashboard", "--print"],
    "follower": ["pipeline.cli.follower"],
    "worker": ["pipeline.studies.engine.worker", "1"],
    "list": ["pipeline", "list"],
    "report": ["pipeline", "report", "nowhere"],
}
ENVIRONMENT = {"TERM": "nonsense", "COLUMNS": "wide", "LINES": "-3", "FORCE_COLOR": "x", "LANG": "nonsense"}
ENVIRONMENT |= {"RANK": "first", "WORLD_SIZE": "", "LOCAL_RANK": "1.5", "DNC_VERBOSITY": "shout"}
ENVIRONMENT |= {
    "HOME": "/proc/nowhere",
    "MPLCONFIGDIR": "/proc/nowhere",
    "XDG_CACHE_HOME": "",
    "NETRC": "/proc/nowhere",
}
ENVIRONMENT |= {"OMP_NUM_THREADS": "many", "OMP_WAIT_POLICY": "maybe", "CUDA_VISIBLE_DEVICES": "x"}
INPUTS = ["", "[", "null\n", '{"config": {"a": 1}, "folder": 3}\n', "[" * 100_000]


def program(
    name: str, folder: Path, *, variables: dict[str, str] | None = None, **options
) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", *PROGRAMS[name]]
    own = {"PYTHONPATH": str(Path(__file__).parents[2])}
    environment = {name: value for name, value in os.environ.items() if name not in ("RANK", VARIABLE)}
    options = {"capture_output": True, "errors": "replace", **options}
    return subprocess.run(command, cwd=folder, env=environment | own | variables, text=True, **options)


@pytest.mark.parametrize("case", ERRORS)
def test_an_error_is_one_line_without_a_traceback(case, capsys, monkeypatch):
    error, code, sentence = ERRORS[case]
    monkeypatch.delenv(VARIABLE, raising=False)
    handlers = {
        number: signal.getsignal(number) for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}
    }
    with pytest.raises(SystemExit) as exit_, ended_in_a_sentence():
        raise error
    for number, handler in handlers.items():
        signal.signal(number, handler)
    err = capsys.readouterr().err
    assert exit_.value.code == code and err.startswith(sentence) and err.count("\n") == 1 and "\x1b" not in err


def test_v_shows_where_an_error_came_from(capsys, monkeypatch):
    monkeypatch.setenv(VARIABLE, VERBOSE)
    with pytest.raises(SystemExit), ended_in_a_sentence():
        raise KeyError("x")
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize("name", PROGRAMS)
def test_no_environment_makes_a_program_end_in_a_traceback(name, tmp_path):
    done = program(name, tmp_path, variables=ENVIRONMENT, stdin=subprocess.DEVNULL)
    assert done.returncode in (0, 1, 2), done.stderr
    assert "Traceback" not in done.stdout + done.stderr, done.stderr
    assert done.returncode == 0 or done.stderr.strip().splitlines()[-1].startswith("error: "), done.stderr


@pytest.mark.parametrize(
    ("name", "closed"), [("metrics", "<&- >&-"), ("studies", "> /dev/full"), ("report", ">&-"), ("report", "2>&-")]
)
def test_closed_streams_change_no_exit_code_and_are_no_traceback(name, closed, tmp_path):
    """A full disk does not come back, so that it is told."""
    command = [sys.executable, "-m", *PROGRAMS[name]]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    line = f"{shlex.join(command)} {closed}"
    done = subprocess.run(["bash", "-c", line], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == (2 if name == "report" else 0), done.stderr
    said = ["error"] * (name == "report" and "2>" not in closed)
    said += ["stdout cannot be written (No space left on device); going on."] * (name != "report" and "full" in closed)
    assert [line.partition(": ")[0] for line in done.stderr.splitlines()] == said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["follower", "worker"])
def test_what_is_no_order_is_told_in_a_sentence(name, tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != VARIABLE} | {"RANK": "1"}
    for sent in INPUTS:
        done = commands().run("-m", *PROGRAMS[name], folder=tmp_path, environment=environment, given=sent)
        # 1 and 143: the end of its input means that whoever started it is gone.
        assert done.code in (0, 1, 2, 143) and "Traceback" not in done.err, (sent[:20], done.err)
        assert done.code != 2 or done.err.startswith("error: "), (sent[:20], done.err)


@pytest.mark.parametrize("name", ["metrics", "studies", "list", "report", "sweep", "dashboard"])
def test_ctrl_c_at_any_time_is_no_traceback(name, tmp_path):
    """While Python starts and imports, while the program runs, and when it ends."""
    (tmp_path / "sitecustomize.py").write_text(SENDER)
    for event in (1, 150, 800) if name == "studies" else (150,):  # which imports most
        variables = {"PYTHONPATH": f"{tmp_path}{os.pathsep}{Path(__file__).parents[2]}", "AT_IMPORT": str(event)}
        done = program(name, tmp_path, variables=variables, stdin=subprocess.DEVNULL)
        assert "Traceback" not in done.stderr, (event, done.stderr)
        assert done.returncode in (0, 2, 130, -signal.SIGINT), (event, done.returncode, done.stderr)


SENDER = """
# Sends this process a Ctrl-C at a given import after that of our package.
import os, signal, sys
seen = []
class Sender:
    def find_spec(self, name, path=None, target=None):
        if seen or name == "pipeline.runtime":
            seen.append(name)
        if len(seen) == int(os.environ["AT_IMPORT"]):
            seen.append("")
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Sender())
"""
