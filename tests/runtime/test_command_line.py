"""Command lines of ours say what is wrong in one sentence."""

import sys
from pathlib import Path

import pytest

from pipeline.runtime import command_line
from pipeline.runtime.command_line import EXIT_BAD_ARGUMENTS, Parser, exit_with, installed_command, own_command


@pytest.mark.parametrize("arguments", [["--frobnicate"], ["--count", "x"], ["more"]])
def test_a_wrong_argument_is_one_sentence_that_names_it(arguments, capsys):
    parser = Parser(prog="a program")
    parser.add_argument("--count", type=int)
    with pytest.raises(SystemExit) as exit_:
        parser.parse_args(arguments)
    out, said = capsys.readouterr()
    assert exit_.value.code == EXIT_BAD_ARGUMENTS and out == ""
    assert said.startswith("error: ") and said.endswith("; see a program --help.\n") and said.count("\n") == 1
    assert arguments[-1] in said


def test_an_exit_is_one_line_on_standard_error(capsys):
    with pytest.raises(SystemExit) as exit_:
        exit_with("error: no.", 7)
    assert exit_.value.code == 7 and capsys.readouterr() == ("", "error: no.\n")


@pytest.mark.parametrize(
    ("argv", "python", "told", "spelled"),
    [
        ("/a/bin/dnc", "/a/bin/python", None, "dnc"),
        ("/b/bin/dnc", "/b/bin/python", None, "/b/bin/dnc"),
        ("env/bin/dnc", "env/bin/python", None, "env/bin/dnc"),
        ("/b/pipeline/__main__.py", "python", None, "python -m pipeline"),
        ("/b/pipeline/studies/__main__.py", "/b c/bin/python", None, "'/b c/bin/python' -m pipeline"),
        ("/b/pipeline/__main__.py", "/b/.venv/bin/python", "scripts/run", "scripts/run"),
        ("/b/submitit/core/_submit.py", "/b/bin/python", None, "dnc"),
    ],
)
def test_the_command_is_spelled_as_it_was_called(argv, python, told, spelled, monkeypatch):
    monkeypatch.setattr(command_line.shutil, "which", {"dnc": "/a/bin/dnc", "python": "/a/bin/python"}.get)
    monkeypatch.setattr(sys, "argv", [argv])
    monkeypatch.setattr(sys, "orig_argv", [python])
    monkeypatch.delenv(command_line.CALLED_AS, raising=False)
    if told:
        monkeypatch.setenv(command_line.CALLED_AS, told)
    assert own_command() == spelled


def test_what_is_installed_beside_python_is_found_without_a_path(tmp_path, monkeypatch):
    (tmp_path / "env").mkdir()
    (tmp_path / "env" / "wandb").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "env" / "python"))
    monkeypatch.setenv("PATH", "")
    assert installed_command("wandb") == str(Path("env", "wandb")) and installed_command("nothing") == "nothing"
