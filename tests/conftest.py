"""Fixtures shared by all tests."""

import os
import sys
from pathlib import Path

import pytest
import torch
from xdist.scheduler import LoadScopeScheduling

from pipeline.app import main


class TogetherByFile(LoadScopeScheduling):
    """Tests of one file share fixtures, those of the cluster a cluster: they run in one worker."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return "cluster" if Path(file).parent.name == "cluster" else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> LoadScopeScheduling:
    # xdist's own groups (3.8) have no effect under pytest 9.2.
    return TogetherByFile(config, log)


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
