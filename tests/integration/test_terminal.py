"""What the command shows on a terminal, in a pipe, quietly and verbosely: real processes."""

import os
import pty
import re
import shlex
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from commands import dnc

from pipeline.storage.record import read_summary

REPO = Path(__file__).parent.parent.parent
SMALL = ["backbone.epochs=2", "backbone.hidden=[16]", "descent.steps=60", "descent.records_per_decade=2"]
NOISE = (
    "litlogger",
    "Tip:",
    "GPU available",
    "`Trainer.fit` stopped",
    "weights_only",
    "LeafSpec",
    "srun",
    "overrides:",
)
CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPO), "FORCE_COLOR": "1"}
"""Colours are asked for, to see that a pipe gets none all the same."""


def in_pipe(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "pipeline", *arguments]
    return subprocess.run(command, capture_output=True, timeout=300, env=ENVIRONMENT | environment)


def on_terminal(*arguments: str) -> tuple[int, str]:
    """Exit code and all that a terminal of 80 columns is sent."""
    terminal, end = pty.openpty()
    environment = {**ENVIRONMENT, "TERM": "xterm", "COLUMNS": "80"}
    command = [sys.executable, "-m", "pipeline", *arguments]
    with subprocess.Popen(command, stdin=end, stdout=end, stderr=end, env=environment) as process:
        os.close(end)
        shown = b""
        with suppress(OSError):  # what a closed terminal answers
            while chunk := os.read(terminal, 65536):
                shown += chunk
    os.close(terminal)
    return process.returncode, shown.decode()


@pytest.fixture(scope="module")
def piped(tmp_path_factory):
    """A run in a pipe whose encoding has neither lines nor boxes, tracked by wandb offline."""
    folder = tmp_path_factory.mktemp("piped") / "run"
    return folder, in_pipe(*SMALL, f"hydra.run.dir={folder}", PYTHONIOENCODING="ascii", LC_ALL="C")


@pytest.fixture(scope="module")
def quiet(tmp_path_factory):
    """Three jobs of a quiet multirun, the first and the last of which diverge."""
    folder = tmp_path_factory.mktemp("quiet")
    lr = "optimizer.lr=1e20,0.05,1e21"
    small = [*SMALL, lr, "logger=none", "record.figures=false", f"hydra.sweep.dir={folder}"]
    return folder, dnc("-q", "--multirun", *small, cwd=folder, check=False, environment=ENVIRONMENT)


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """A run of two processes on one terminal."""
    folder = tmp_path_factory.mktemp("shown") / "run"
    return on_terminal(
        *SMALL, "trainer=ddp", "trainer.devices=2", "logger=none", "record.figures=false", f"hydra.run.dir={folder}"
    )


def test_a_pipe_gets_plain_lines_in_its_own_encoding_and_no_noise(piped):
    _, done = piped
    assert done.returncode == 0 and done.stderr == b""
    text = done.stdout.decode("ascii")
    assert "\x1b" not in text and "\r" not in text and "+---" in text
    assert not [word for word in NOISE if word in text]
    assert re.search(r"^head  step 60/60  [\d,.]+ steps/s  \d+ s  loss 0\.\d+", text, re.M)


def test_a_run_ends_with_the_paths_of_what_it_left(piped, tmp_path):
    folder, done = piped
    text = done.stdout.decode()
    printed = dict(re.findall(r"^ *([a-z]+) +(/\S*)$", text, re.M))
    commands = {name: re.search(rf"^ *{name} +(.+)$", text, re.M)[1] for name in ("report", "upload")}
    # As this one was called, a program below the working directory from there; wandb is in the same place, which is on
    # no PATH.
    here = Path(sys.executable)
    here = here.relative_to(Path.cwd()) if here.is_relative_to(Path.cwd()) else here
    assert commands["report"] == f"{here} -m pipeline report {folder}"
    assert Path(shlex.split(commands["upload"])[0]).absolute() == Path(sys.executable).with_name("wandb")
    assert commands["upload"].endswith(f" sync {folder}/wandb/offline-run-*")
    assert list(folder.glob("wandb/offline-run-*"))
    subprocess.run([*shlex.split(commands["report"]), "-o", tmp_path / "page.html"], capture_output=True, check=True)
    left = {Path(text) for text in printed.values()}
    assert all(path.exists() for path in left)
    named = {path.relative_to(folder).parts[0] for path in left}
    assert named == {path.name for path in folder.iterdir() if not path.name.startswith(".")}


def test_quiet_runs_show_their_verdict_and_every_failure_and_nothing_else(quiet):
    folder, done = quiet
    assert done.returncode == 1
    first, second, third = done.stdout.splitlines()
    assert first.startswith(f"{folder}/0: backbone training diverged") and third.startswith(f"{folder}/2: ")
    assert second == f"{read_summary(folder / '1')['verdict']['text']}: {folder}/1"


def test_the_log_of_a_quiet_run_has_everything_and_its_results_are_the_same(quiet, piped):
    folder, _ = quiet
    log = (folder / "1" / "dnc.log").read_text()
    assert "epoch 2/2" in log and "step 60/60" in log and f"{folder}/1/record.csv" in log
    assert (folder / "1" / "record.csv").read_bytes() == (piped[0] / "record.csv").read_bytes()


def test_a_terminal_has_one_bar_for_all_processes_in_which_nothing_but_the_headline_is_cut(shown):
    code, text = shown
    assert code == 0
    assert text.count("\x1b[?25l") == 2  # the cursor is hidden twice: for the bar of the backbone and that of the head
    bars = [line for line in re.split(r"[\r\n]+", CONTROL.sub("", text)) if "━━ " in line and "│" not in line]
    assert bars and all(re.match(r"(backbone [━╺╸]+ +\d/6|head [━╺╸]+ +\d+/60) ", bar) for bar in bars)
    assert all(len(bar) <= 80 for bar in bars)
    assert any("steps/s" in bar and "loss" in bar for bar in bars)
    assert not [word for word in NOISE if word in text]


def test_a_verbose_failure_shows_where_it_came_from_and_ends_with_one_sentence(tmp_path):
    arguments = ["--verbose", *SMALL, "optimizer.lr=1e20", "logger=none", f"hydra.run.dir={tmp_path / 'run'}"]
    done = dnc(*arguments, cwd=tmp_path, check=False, environment=ENVIRONMENT)
    shown, said = done.stdout, done.stderr
    assert done.returncode == 1
    assert said.splitlines()[-1].startswith("error: backbone training diverged")
    assert "Error executing job" not in said and "Traceback" not in said
    assert "Traceback" in shown and "GPU available" in shown
    assert "Traceback" not in (tmp_path / "run" / "dnc.log").read_text()


def test_a_shell_completes_choices(tmp_path):
    """As the documentation says, in a bash that a terminal belongs to."""
    program = tmp_path / "dnc"
    program.write_text(f"#!/bin/sh\nexec {shlex.quote(sys.executable)} -c \"\nimport sys\nsys.argv[0] = 'dnc'\n")
    with program.open("a") as file:
        file.write('from pipeline.__main__ import main\nmain()" "$@"\n')
    program.chmod(0o755)
    terminal, end = pty.openpty()
    environment = {**ENVIRONMENT, "PATH": f"{tmp_path}:{os.environ['PATH']}", "TERM": "dumb", "PS1": ""}
    shell = ["bash", "--norc", "--noprofile", "-i"]
    with subprocess.Popen(shell, stdin=end, stdout=end, stderr=end, env=environment, start_new_session=True):
        os.close(end)
        os.write(terminal, b'eval "$(dnc -sc install=bash)"; echo ready\n')
        shown = _read_until(terminal, b"\nready")
        os.write(terminal, b"echo dnc; dnc protocol=du\t")
        shown = _read_until(terminal, b"protocol=dufm")
        os.write(terminal, b"\x15exit\n")
    os.close(terminal)
    assert b"protocol=dufm" in shown


def _read_until(terminal: int, wanted: bytes) -> bytes:
    shown = b""
    while wanted not in shown.replace(b"\r", b""):
        shown += os.read(terminal, 4096)
    return shown
