"""Command lines of ours say what is wrong in one sentence."""

import pytest

from pipeline.runtime.command_line import EXIT_BAD_ARGUMENTS, Parser, exit_with


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
