"""Real run folders, made once by the command, and one real browser."""

import json
import shutil
from pathlib import Path

import handmade
import pytest
from commands import dnc

from pipeline.views.html.runs import LocalRun

SMALL = ("protocol.num_features=8", "protocol.samples_per_class=5", "head.width=8", "head.depth=3", "descent.steps=100")
"""Overrides of protocol=dufm that a second is enough for."""


QUIET = ("logger=none", "record.figures=false", "trainer.threads=1", "descent.records_per_decade=4")


@pytest.fixture(scope="session")
def sweep(tmp_path_factory) -> Path:
    """A multirun of the DUFM on three classes: job 0 completed, job 1 failed because it diverged."""
    folder = tmp_path_factory.mktemp("sweeps")
    arguments = ["protocol=dufm", *SMALL, "protocol.num_classes=3", "descent.lr=0.5,1e6", *QUIET]
    done = dnc("--multirun", *arguments, "hydra.sweep.dir=sweep", cwd=folder, check=False)
    assert done.returncode == 1 and "diverged" in done.stderr
    return folder / "sweep"


@pytest.fixture(scope="session")
def digits_run(tmp_path_factory) -> Path:
    """A run on real images with a backbone, a head of three seeds, and a test split."""
    folder = tmp_path_factory.mktemp("runs")
    arguments = ["backbone.epochs=2", "descent.steps=200", "head.depth=3", *QUIET]
    dnc(*arguments, "data.classes=[3,8]", "hydra.run.dir=digits", cwd=folder)
    return folder / "digits"


@pytest.fixture
def copied(tmp_path):
    """Copies a run folder under another name, with its summary changed by a function of it."""

    def copy(source: Path, name: str, change=lambda summary: None) -> Path:
        target = tmp_path / name
        shutil.copytree(source, target)
        summary = json.loads((target / "summary.json").read_text())
        change(summary)
        (target / "summary.json").write_text(json.dumps(summary))
        return target

    return copy


@pytest.fixture
def killed(copied, digits_run) -> Path:
    """A run that was killed: the opening summary, the settings, and no record."""

    def opening(summary: dict) -> None:
        kept = {
            name: summary[name] for name in ("schema_version", "protocol", "uses", "environment") if name in summary
        }
        summary.clear()
        summary.update(kept | {"status": "running"})

    folder = copied(digits_run, "killed", opening)
    for file in ("record.csv", "tensors.safetensors"):
        (folder / file).unlink()
    return folder


@pytest.fixture
def handmade_runs(tmp_path) -> dict[str, LocalRun]:
    """One run of every kind that no protocol of ours makes, by the name of the kind."""
    return {kind: LocalRun(make(tmp_path / kind), kind) for kind, make in handmade.KINDS.items()}


@pytest.fixture(scope="session")
def browser():
    """Headless Chromium, as the system installs it."""
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("chromium is not installed: no browser to look at the report with")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(
            executable_path=path, args=["--no-sandbox", "--disable-gpu"]
        )  # as root it has no sandbox
        yield started
        started.close()
