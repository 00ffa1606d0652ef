"""Whatever stands in the files of a run folder, it is looked at and gone on with without a traceback.

Nothing is written or deleted but our own files, no secret and no command to the terminal is in anything that is said,
and other runs are shown as usual. FUZZ_KEPT asks for another number of folders, drawn anew from FUZZ_SEED; each is four
tries: ``list``, ``compare``, ``report`` and what comes before ``resume=``.
"""

import io
import os
import random
import shutil
from contextlib import redirect_stderr, redirect_stdout, suppress
from pathlib import Path

import pytest
from hostile import CANARY, FILES, check_said, mutated
from omegaconf import OmegaConf

from pipeline.cli.invocation import hydra_arguments
from pipeline.runs.door import admit, refuse_others
from pipeline.runs.given_weights import run_weights, trained_as
from pipeline.runtime.errors import ConfigError
from pipeline.studies.engine.jobs import kept_config
from pipeline.views.html.command import main

FOLDERS = int(os.environ.get("FUZZ_KEPT", 40))
SMALL = ("protocol=dufm", "protocol.num_features=3", "protocol.samples_per_class=2", "head.width=3", "head.depth=2")
SMALL += ("descent.steps=5", "descent.seeds=2", "logger=none", "record.figures=false", "descent.records_per_decade=2")


@pytest.fixture(scope="module")
def sound(composed, tmp_path_factory) -> Path:
    """The folder of a completed run, with all that the command leaves."""
    folder = tmp_path_factory.mktemp("runs") / "sound"
    config = composed(*SMALL)
    with redirect_stdout(io.StringIO()):
        admit(config, folder).perform()
    sources = [{"path": "hydra.conf", "schema": "pkg", "provider": "hydra"}]
    sources.append({"path": str(folder.parent / "conf"), "schema": "file", "provider": "command-line"})
    runtime = {"cwd": "/here", "choices": {"experiment": None}, "config_sources": sources}
    kept = {"config": config, "overrides": list(SMALL)}
    kept["hydra"] = {"hydra": {"runtime": runtime, "overrides": {"task": list(SMALL)}}}
    for name, content in kept.items():
        (folder / ".hydra").mkdir(exist_ok=True)
        OmegaConf.save(OmegaConf.create(content), folder / ".hydra" / f"{name}.yaml")
    (folder / "wandb").mkdir()
    (folder / "wandb" / "run.json").write_text('{"id": "abcd1234"}')
    return folder


@pytest.fixture(autouse=True)
def canary(monkeypatch):
    """A key in the environment, and a page without the library that draws it: megabytes in each."""
    monkeypatch.setenv("WANDB_API_KEY", CANARY)
    monkeypatch.setattr("pipeline.views.html.assets.plotly", lambda: "")


def said_by(command, *arguments: str) -> str:
    """What a command says; only an exit ends it."""
    stream = io.StringIO()
    with redirect_stdout(stream), redirect_stderr(stream), suppress(SystemExit):
        command(list(arguments))
    return stream.getvalue()


def content(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def look(here: Path, told: Path, *, alone: bool) -> str:
    """Everything that only looks at the runs in a folder; the report, of the strange one alone, goes to ``told``."""
    before = content(here)
    listed = said_by(main, "list", str(here))
    rows = [line for line in listed.splitlines() if line.split()[:1] == ["sound"]]
    assert len(rows) == 1 and "completed" in rows[0] and "free features, K=2, n=2" in listed, listed
    assert sum(line.split()[:1] == ["strange"] for line in listed.splitlines()) == 1, listed
    said = listed + said_by(main, "compare", str(here / "sound"), str(here / "strange"))
    said += said_by(main, "report", str(here / "strange" if alone else here), "-o", str(told / "page.html"))
    assert content(here) == before
    return said


def go_on(run: Path) -> str:
    """What a command does with a folder before it goes on with the run that it holds."""
    said, before = "", content(run)
    for work in (lambda: refuse_others(run), lambda: run_weights(run)):
        try:
            work()
        except (ConfigError, ValueError) as error:
            said += f"{error}\n"
    trained_as(run), kept_config(run)
    try:
        with hydra_arguments([f"resume={run}"]):
            pass
    except ConfigError as error:
        said += said_by(lambda _, error=error: exit_as_the_command(error))
    assert content(run) == before
    return said


def exit_as_the_command(error: ConfigError) -> None:
    from pipeline.runtime.command_line import exit_with

    exit_with(f"error: {error}", 2)


def tries(sound: Path, place: Path, count: int, draw: random.Random):
    """Folders with the sound run and a strange one, one after another, each with a description of what was changed."""
    here, original = place / "runs", content(sound)
    shutil.copytree(sound, here / "sound")
    shutil.copytree(sound, here / "strange")
    for number in range(count):
        changed = draw.sample(FILES, draw.choice([1, 1, 1, 2]))
        for file in changed:
            (here / "strange" / file).write_bytes(mutated(original[sound / file], file, draw))
        yield f"{number}: {changed}", here
        for file in changed:
            (here / "strange" / file).write_bytes(original[sound / file])


def test_no_content_of_a_kept_file_is_a_traceback_a_leak_or_a_loss(sound, tmp_path):
    draw, told = random.Random(int(os.environ.get("FUZZ_SEED", 0))), tmp_path / "told"
    told.mkdir()
    for what, here in tries(sound, tmp_path, FOLDERS, draw):
        try:
            said = look(here, told, alone=draw.random() < 0.8)
            check_said(said)
            check_said(go_on(here / "strange").replace("\n", " "))
            if draw.random() < 0.1:
                check_said(said_by(main, "sweep", str(here)))
            for path in [*told.iterdir(), *here.glob("sweep.*")]:
                assert CANARY.encode() not in path.read_bytes()
                path.unlink()
        except Exception as error:
            raise AssertionError(f"{what}: {content_of_changes(here)}") from error


def content_of_changes(here: Path) -> dict[str, bytes]:
    return {
        file: (here / "strange" / file).read_bytes()[:3000]
        for file in FILES
        if (here / "strange" / file).read_bytes() != (here / "sound" / file).read_bytes()
    }
