"""Fixtures shared by all tests."""

import os
import sys
from pathlib import Path

import pytest
import torch

from pipeline.app import main


@pytest.hookimpl(tryfirst=True)  # before xdist reads the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that share a fixture of their module, or one cluster, run in one worker (``--dist loadgroup``)."""
    for item in items:
        folder = item.path.parent
        item.add_marker(pytest.mark.xdist_group("cluster" if folder.name == "cluster" else str(item.path)))


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
