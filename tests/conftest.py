"""Fixtures shared by all tests, and which tests are slow."""

import gc
import logging
import os
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from hydra import compose, initialize_config_dir
from hydra._internal.hydra import Hydra
from xdist.scheduler import LoadScopeScheduling

from pipeline.cli.app import main
from pipeline.config import Config, conf_folder, settings
from pipeline.config.messages import register

sys.path.insert(0, str(Path(__file__).parent / "running"))

from slowness import is_slow

TOGETHER = {"cluster", "html", "wandb"}
"""Folders whose tests share what is made once for all of them: runs, a cluster, a server."""
LEFT_OUT = pytest.StashKey[int]()
"""How many slow tests were not asked for."""


class Together(LoadScopeScheduling):
    """Tests of one file share fixtures, those of some folders too: they run in one worker."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        folder = Path(file).parent.name
        return folder if folder in TOGETHER else file


@pytest.hookimpl(tryfirst=True)  # before pytest selects by markers
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in filter(is_slow, items):
        item.add_marker("slow")
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="no GPU (tests/gpu runs it on an emulated one)"))
    # The longest parts first, so that no worker is left alone with one: what is kept together, then files with slow
    # tests, those with most of them first; the many short ones fill up what is left.
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: (item.path.parent.name not in TOGETHER, -slow[item.path]))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> LoadScopeScheduling:
    # xdist's own groups (3.8) have no effect under pytest 9.2.
    return Together(config, log)


def pytest_collection_finish() -> None:
    # Thousands of tests, and all that they import, stay to the end: no collection of cycles is to walk through them.
    gc.freeze()


def pytest_deselected(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("slow"):
            item.config.stash[LEFT_OUT] = item.config.stash.get(LEFT_OUT, 0) + 1


def pytest_sessionfinish(session: pytest.Session) -> None:
    if hasattr(session.config, "workeroutput"):  # of a worker of xdist, each of which collects everything
        session.config.workeroutput["left out"] = session.config.stash.get(LEFT_OUT, 0)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: object) -> None:
    node.config.stash[LEFT_OUT] = getattr(node, "workeroutput", {}).get("left out", 0)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if count := terminalreporter.config.stash.get(LEFT_OUT, 0):
        terminalreporter.write_line(
            f"{count} slow tests left out (processes, Slurm, a browser, servers, trainings); scripts/test runs all."
        )


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    # Before any fixture: what a test draws without a generator must not depend on the tests before it.
    torch.manual_seed(0)


@pytest.fixture(scope="session", autouse=True)
def deterministic():
    """An operation without a deterministic algorithm is an error in all tests of this process."""
    torch.set_deterministic_debug_mode("error")  # as `use_deterministic_algorithms`, which imports the compiler, too


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder with the real MNIST and CIFAR-10 files, given by the environment variable DATA_ROOT."""
    root = os.environ.get("DATA_ROOT")
    if not root:
        pytest.skip("DATA_ROOT is not set: no real MNIST and CIFAR-10 files")
    return Path(root)


@pytest.fixture(scope="session")
def composed() -> Callable[..., Config]:
    """The checked configuration that overrides make of ``conf/main.yaml``: ``composed("head.width=8", ...)``."""
    register()

    def make(*overrides: str) -> Config:
        with initialize_config_dir(version_base="1.3", config_dir=str(conf_folder())):
            return settings(compose("main", list(overrides)))

    return make


@pytest.fixture
def run_here(tmp_path, monkeypatch, capsys):
    """Run the command in-process in an empty folder; returns (exit code, stderr, what lies in the folder)."""

    def run(*arguments: str) -> tuple[int, str, list[str]]:
        monkeypatch.setattr(sys, "argv", ["dnc", *arguments])
        monkeypatch.chdir(tmp_path)
        with pytest.raises(SystemExit) as exit_:
            main()
        return exit_.value.code, capsys.readouterr().err, sorted(path.name for path in tmp_path.iterdir())

    # Hydra would compose the configuration twice, the first time only to look at `hydra.mode`.
    monkeypatch.setattr(Hydra, "get_mode", lambda *_, **__: None)
    monkeypatch.setattr(yaml, "SafeLoader", yaml.CSafeLoader)  # the same parser in C
    # What a run sets up for its own log writes to streams that end with the test.
    handlers, level = logging.root.handlers[:], logging.root.level
    yield run
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)
