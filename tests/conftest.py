"""Fixtures shared by all tests."""

import os
import sys
from pathlib import Path

import pytest
import torch
from xdist.scheduler import LoadScopeScheduling

from pipeline.cli.app import main

sys.path.insert(0, str(Path(__file__).parent / "running"))

TOGETHER = {"cluster", "html", "wandb"}
"""Folders whose tests share what is made once for all of them: runs, a cluster, a server."""


class Together(LoadScopeScheduling):
    """Tests of one file share fixtures, those of some folders too: they run in one worker."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        folder = Path(file).parent.name
        return folder if folder in TOGETHER else file


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # The longest parts first, so that no worker is left alone with one.
    items.sort(key=lambda item: item.path.parent.name not in TOGETHER)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> LoadScopeScheduling:
    # xdist's own groups (3.8) have no effect under pytest 9.2.
    return Together(config, log)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    # Before any fixture: what a test draws without a generator must not depend on the tests before it.
    torch.manual_seed(0)


@pytest.fixture(scope="session", autouse=True)
def deterministic():
    """An operation without a deterministic algorithm is an error in all tests of this process."""
    torch.use_deterministic_algorithms(True)


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder with the real MNIST and CIFAR-10 files, given by the environment variable DATA_ROOT."""
    root = os.environ.get("DATA_ROOT")
    if not root:
        pytest.skip("DATA_ROOT is not set: no real MNIST and CIFAR-10 files")
    return Path(root)


@pytest.fixture
def run_here(tmp_path, monkeypatch, capsys):
    """Run the command in-process in an empty folder; returns (exit code, stderr, what lies in the folder)."""

    def run(*arguments: str) -> tuple[int, str, list[str]]:
        monkeypatch.setattr(sys, "argv", ["dnc", *arguments])
        monkeypatch.chdir(tmp_path)
        with pytest.raises(SystemExit) as exit_:
            main()
        return exit_.value.code, capsys.readouterr().err, sorted(path.name for path in tmp_path.iterdir())

    return run
