"""The subcommands as a user calls them: what they print, write and exit with."""

import shlex
import subprocess
import sys

import pytest

from pipeline.cli.app import main as run_command
from pipeline.views.html.command import main
from pipeline.views.html.facts import command_line
from pipeline.views.html.runs import LocalRun


def call(capsys, *arguments) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a subcommand, in this process."""
    code = 0
    try:
        main([str(argument) for argument in arguments])
    except SystemExit as exit_:
        code = exit_.code or 0
    return (code, *capsys.readouterr())


def test_report_is_written_into_the_folder_it_is_about(copied, sweep, capsys, monkeypatch):
    run = copied(sweep / "0", "run")
    code, out, err = call(capsys, "report", run)
    assert (code, out.strip(), err) == (0, str(run / "report.html"), "")
    assert (run / "report.html").read_text().startswith("<!DOCTYPE html>")
    monkeypatch.chdir(run.parent)
    assert call(capsys, "report", run, sweep)[1].strip() == "report.html"
    assert sorted(path.name for path in run.parent.iterdir()) == ["report.html", "run"]


def test_report_goes_where_it_is_told_and_replaces_what_was_there(sweep, tmp_path, capsys):
    target = tmp_path / "new" / "page.html"
    target.parent.mkdir()
    target.write_text("old")
    assert call(capsys, "report", sweep, "-o", target)[0] == 0
    assert "old" not in target.read_text()[:100] and [path.name for path in target.parent.iterdir()] == ["page.html"]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["report", "nowhere"], "nowhere is not there"),
        (["report", "."], ". is no run's folder and none lies below it"),
        (["report"], "FOLDER"),
        (["compare", ".", "nowhere"], ". is no run's folder"),
        (["compare", "."], "required: B"),
        (["list", "nowhere"], "nowhere is not there"),
        (["list", "--frobnicate"], "--frobnicate"),
    ],
)
def test_bad_input_gets_one_sentence_and_exit_2_and_leaves_nothing(arguments, named, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = call(capsys, *arguments)
    assert code == 2 and out == "" and err.startswith("error: ") and len(err.strip().splitlines()) == 1
    assert named in err and not list(tmp_path.iterdir())


def test_a_report_cannot_take_the_place_of_a_folder(sweep, tmp_path, capsys):
    code, _, err = call(capsys, "report", sweep / "0", "-o", tmp_path)
    assert code == 2 and f"--output={tmp_path} is a folder" in err


def test_a_place_that_cannot_be_written_gets_a_sentence_and_exit_1(sweep, capsys):
    code, _, err = call(capsys, "report", sweep / "0", "-o", "/dev/null/report.html")
    assert code == 1 and err.startswith("error: /dev/null") and len(err.splitlines()) == 1


def test_without_plotly_the_sentence_names_it(sweep):
    lines = ("import sys", "sys.modules['plotly'] = None", "from pipeline.views.html.command import main")
    code = "\n".join([*lines, f"main(['report', {str(sweep)!r}])"])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
    assert "pip install 'plotly>=6,<7'" in done.stderr


def test_list_looks_in_outputs_and_multirun_by_default(sweep, copied, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    code, out, _ = call(capsys, "list")
    assert code == 0 and out.startswith("No runs in outputs/ or multirun/")
    for name in ("outputs/2020/a", "multirun/2020/0", "elsewhere"):
        copied(sweep / "0", name)
    code, out, _ = call(capsys, "list")
    assert code == 0 and "outputs/2020/a" in out and "multirun/2020/0" in out and "elsewhere" not in out
    assert "elsewhere" in call(capsys, "list", "elsewhere")[1]


def test_compare_prints_the_differences_and_exits_0(sweep, capsys):
    code, out, _ = call(capsys, "compare", sweep / "0", sweep / "1")
    assert code == 0 and "descent.lr" in out and "head.width" not in out
    assert call(capsys, "compare", sweep / "0", sweep / "0")[:2] == (0, "No differences.\n")


def test_list_and_compare_load_neither_pytorch_nor_hydra_nor_plotly(sweep):
    code = (
        "import sys\nfrom pipeline.__main__ import main\n"
        f"for words in (['list', {str(sweep)!r}], ['compare', {str(sweep / '0')!r}, {str(sweep / '1')!r}]):\n"
        "    sys.argv = ['dnc', *words]; main()\n"
        "print(sorted({'torch', 'hydra', 'plotly', 'pandas', 'lightning'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr


@pytest.mark.parametrize("command", ["report", "compare", "list"])
def test_each_subcommand_explains_itself(command, capsys):
    code, out, _ = call(capsys, command, "--help")
    assert code == 0 and out.startswith(f"usage: dnc {command}") and len(out.splitlines()) > 8


@pytest.fixture
def composed(monkeypatch, capsys):
    """What configuration the run command makes of a command line, without running it."""

    def compose(line: str) -> str:
        words = subprocess.run(
            ["sh", "-c", f"printf '%s\\n' {line}"], check=True, capture_output=True, text=True
        ).stdout
        monkeypatch.setattr(sys, "argv", [*words.splitlines(), "--cfg", "job"])
        run_command()
        return capsys.readouterr().out.strip()

    return compose


def kept_configuration(run) -> str:
    return (run / ".hydra" / "config.yaml").read_text().strip()


@pytest.mark.parametrize("name", ["sweep", "digits"])
def test_the_command_of_the_report_gives_the_run_its_configuration_again(name, sweep, digits_run, composed):
    """Through a real shell."""
    folder = sweep / "0" if name == "sweep" else digits_run
    assert composed(command_line(LocalRun(folder, ""))) == kept_configuration(folder)


def test_overrides_are_quoted_for_the_shell(copied, sweep):
    folder = copied(sweep / "0", "run")
    overrides = ["data.classes=[3,8]", "data.root=/a b/$HOME"]
    (folder / ".hydra" / "overrides.yaml").write_text("".join(f"- {override!r}\n" for override in overrides))
    assert shlex.split(command_line(LocalRun(folder, ""))) == ["dnc", *overrides]


def test_a_run_without_overrides_is_repeated_from_its_configuration(copied, sweep, composed):
    folder = copied(sweep / "0", "a run")
    (folder / ".hydra" / "overrides.yaml").unlink()
    (folder / ".hydra" / "hydra.yaml").unlink()
    line = command_line(LocalRun(folder, ""))
    assert line == f"dnc '--config-path={folder}/.hydra' --config-name=config"
    assert composed(line) == kept_configuration(folder)


def test_folders_of_the_users_own_configurations_are_named_again(copied, sweep):
    folder = copied(sweep / "0", "run")
    hydra = folder / ".hydra" / "hydra.yaml"
    own = "config_sources:\n    - path: /my/conf\n      schema: file\n      provider: command-line\n"
    hydra.write_text(hydra.read_text().replace("config_sources:\n", own, 1))
    assert command_line(LocalRun(folder, "")).startswith("dnc --config-dir=/my/conf protocol=dufm")
