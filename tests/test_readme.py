"""What the README and the pages of ``docs/`` show is what the code does."""

import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser

from pipeline.cli.arguments import flags_of
from pipeline.cli.invocation import hydra_arguments
from pipeline.config import conf_folder, settings
from pipeline.config.messages import register
from pipeline.studies.engine.command import main as reproduce
from pipeline.views.html import SUBCOMMANDS
from pipeline.views.html.command import main as look

REPO = Path(__file__).parent.parent
README = REPO / "README.md"
PAGES = [README, *sorted((REPO / "docs").rglob("*.md"))]
LONGEST_README, LONGEST_LINE = 160, 120
FILES = {
    "MNIST/raw": [f"{split}-{kind}-ubyte" for split in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")],
    "cifar-10-batches-py": [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch", "batches.meta"],
}
FILES["FashionMNIST/raw"] = FILES["MNIST/raw"]


def name_of(page: Path) -> str:
    return str(page.relative_to(REPO))


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a page in one language."""
    return re.findall(rf"^ *```{language}\n(.*?)^ *```", page.read_text(), re.M | re.S)


def prose(page: Path) -> str:
    """A page without its blocks of code and its code spans."""
    text = re.sub(r"^ *```.*?^ *```", "", page.read_text(), flags=re.M | re.S)
    return re.sub(r"`[^`\n]*`", "", re.sub(r"^ {4,}.*$", "", text, flags=re.M))


def command_lines(page: Path) -> Iterator[list[str]]:
    """The words of every shell line of a page. Lines with a ``<PLACEHOLDER>`` are no commands."""
    for block in blocks(page, "sh"):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words and not re.search(r"<\w+>", line):
                yield words


COMMANDS = {shlex.join(words): words for page in PAGES for words in command_lines(page)}


def arguments_of_a_run(words: list[str]) -> list[str] | None:
    """What a line tells the command, however it starts it; None if it starts something else."""
    if words[0] in ("scripts/run", "dnc"):
        return words[1:]
    for start in (["-m", "pipeline"], ["scripts/slurm.sbatch"]):
        for index in range(len(words)):
            if words[index : index + len(start)] == start:
                return words[index + len(start) :]
    return None


RUNS = {line: found for line, words in COMMANDS.items() if (found := arguments_of_a_run(words)) is not None}


@pytest.fixture(scope="module")
def somewhere(tmp_path_factory) -> Path:
    """A folder with all that the command lines speak of: data, networks, weights, a run."""
    folder = tmp_path_factory.mktemp("examples")
    for name, files in FILES.items():
        (folder / "data" / name).mkdir(parents=True)
        for file in files:
            (folder / "data" / name / file).touch()
    (folder / "DATA").symlink_to("data")
    for name in ("birds/sparrow", "birds/wren", "runs/first/.hydra"):
        (folder / name).mkdir(parents=True)
    (folder / "runs/first/.hydra/overrides.yaml").write_text("- protocol=dufm\n")
    (folder / "runs/first/.hydra/hydra.yaml").write_text("hydra:\n  runtime:\n    config_sources: []\n")
    (folder / "weights.pt").touch()
    (folder / "mynet.py").write_text("from torch import nn\n\n\nclass Net(nn.Module):\n    pass\n")
    register()
    return folder


def test_the_readme_can_be_read_in_one_go():
    assert len(README.read_text().splitlines()) <= LONGEST_README


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_lines_are_not_too_long_to_read(page):
    lines = page.read_text().splitlines()
    assert not [line for line in lines if len(line) > LONGEST_LINE and not line.lstrip().startswith("|")]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_leads_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"\w+:", target):
            continue
        path, _, section = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        assert not section or section in sections(file), target


def sections(page: Path) -> set[str]:
    """The anchors of a page's headings, as they are made on the sites that show it."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_file_that_is_named_is_there(page):
    """Wherever a code span is a path from the repository's root, which may hold ``*``; bold ones are examples."""
    spans = re.findall(r"(?<!\*\*)`((?:pipeline|conf|tests|scripts|docs)/[\w./*]+)`", page.read_text())
    assert [span for span in spans if not any(REPO.glob(span))] == []


def test_the_index_names_every_page_that_is_written_by_hand():
    index = REPO / "docs/README.md"
    named = {(index.parent / target).resolve() for target in re.findall(r"\]\(([^)#\s]+)", index.read_text())}
    tables = {page for page in (REPO / "docs/reproduction").glob("*_*.md")}
    assert set(PAGES) - tables - {index} <= named


@pytest.mark.parametrize("line", RUNS)
def test_the_command_accepts_every_line_that_is_shown(line, somewhere, monkeypatch, capsys):
    """Each composes a configuration that passes the checks; of a multirun the first and the last one do."""
    monkeypatch.chdir(somewhere)
    monkeypatch.setenv("HOME", str(somewhere))
    given = [os.path.expandvars(word) for word in RUNS[line]]
    if given[:1] and given[0] in SUBCOMMANDS:
        with pytest.raises(SystemExit, match="0"):
            look([given[0], "--help"])
        return
    if {"--help", "--version"} & set(given):
        return
    with hydra_arguments(given) as arguments:
        flags = flags_of(arguments)
    jobs = [flags.overrides]
    if flags.multirun:
        (jobs,) = BasicSweeper.split_arguments(OverridesParser.create().parse_overrides(flags.overrides), None)
    for overrides in {tuple(jobs[0]), tuple(jobs[-1])}:
        with initialize_config_dir(version_base="1.3", config_dir=str(conf_folder())):
            settings(compose("main", list(overrides)))


def test_reproduce_knows_every_study_that_is_shown(capsys):
    reproduce(["--list"])
    known = set(capsys.readouterr().out.split())
    shown = [words[1:] for words in COMMANDS.values() if words[0] == "scripts/reproduce"]
    assert shown
    for arguments in shown:
        reproduce([*arguments, "--list"])  # which refuses flags that it does not know
        names = re.findall(r"^\w+(?=\n)", "\n".join(arguments) + "\n", re.M)
        assert {name for name in names if not name.isdecimal() and name not in {"slurm"}} <= known


def test_every_script_that_is_shown_can_be_started():
    shown = {words[0] for words in COMMANDS.values() if words[0].startswith("scripts/")}
    assert [script for script in shown if not os.access(REPO / script, os.X_OK)] == []


def python_blocks() -> list[str]:
    """Those that state values, as ``expression  # value``."""
    return [code for page in PAGES for code in blocks(page, "python") if re.search(r"^\S.*  # (\d|\")", code, re.M)]


@pytest.mark.parametrize("code", python_blocks())
def test_examples_give_the_values_they_state(code):
    names: dict = {}
    compared = 0
    for statement in code.strip().splitlines():
        shown = re.match(r"(\S.*?)  # ([\d\"].*)$", statement)
        if shown is None:
            exec(statement, names)
            continue
        value, stated = eval(shown[1], names), shown[2].split(":")[0].rstrip(".")
        assert str(value).startswith(stated) or repr(value) == stated.replace('"', "'")
        compared += 1
    assert compared
