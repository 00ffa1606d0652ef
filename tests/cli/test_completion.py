"""What a shell is told of how its line may go on: our subcommands first, then what Hydra knows."""

import sys

import pytest

from pipeline.cli import app, completion
from pipeline.views.html import SUBCOMMANDS


@pytest.mark.parametrize(
    ("line", "offered", "hydra"),
    [
        ("dnc ", set(SUBCOMMANDS), True),
        ("dnc re", {"report"}, True),
        ("dnc s", {"sweep"}, True),
        ("scripts/run head.", set(), True),
        ("dnc list ", set(), False),
        ("dnc sweep mul", set(), False),
        ("dnc head.depth=3 ", set(), True),
        ("dnc", set(), True),
    ],
)
def test_subcommands_are_offered_as_first_words(line, offered, hydra, monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(app, "main", lambda: asked.append(line))
    monkeypatch.setenv("COMP_LINE", line)
    completion.main()
    assert set(capsys.readouterr().out.split()) == offered and bool(asked) == hydra


def test_the_command_asks_it(monkeypatch):
    from pipeline import __main__ as command

    monkeypatch.setattr(sys, "argv", ["dnc", "-sc", "query=bash"])
    assert command._command() is completion.main
    monkeypatch.setattr(sys, "argv", ["dnc", "-sc", "install=bash"])
    assert command._command() is app.main
