"""Names and values of strangers are shown, and command nothing."""

import logging

import pytest
from rich.console import Console

from pipeline.runtime.command_line import exit_with
from pipeline.runtime.console import PlainFormatter, console
from pipeline.runtime.text import printable, printable_lines

HOSTILE = "a\x1b]0;owned\x07\x1b[2J\x9b1m\u202eb\udcff"
PLAIN = r"a\x1b]0;owned\x07\x1b[2J\x9b1m\u202eb\udcff"


def test_what_commands_a_terminal_is_spelled_out_and_text_stays():
    assert printable(HOSTILE) == PLAIN and printable("a\nb\t") == r"a\nb\t"
    assert printable("Größe 日本語 ≤") == "Größe 日本語 ≤"
    assert printable_lines(f"{HOSTILE}\n\nx") == f"{PLAIN}\n\nx"


def test_every_way_to_the_terminal_is_plain(capsys):
    console().print(HOSTILE, "[bold]", 1)
    with pytest.raises(SystemExit):
        exit_with(f"error: {HOSTILE}", 2)
    said = capsys.readouterr()
    assert said.out.rstrip().replace("\n", "") == f"{PLAIN} [bold] 1" and said.err == f"error: {PLAIN}\n"
    record = logging.LogRecord("x", logging.WARNING, "x.py", 1, "%s is damaged", (HOSTILE,), None)
    assert PlainFormatter("%(message)s").format(record) == f"{PLAIN} is damaged"
    assert isinstance(console(), Console)
