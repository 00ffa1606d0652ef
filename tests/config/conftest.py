"""Compositions with configuration files of the user's own."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from pipeline.config import Config, conf_folder, settings
from pipeline.config.messages import register


@pytest.fixture
def compose_own(monkeypatch) -> Callable[..., Config]:
    """The checked configuration that arguments make with the files in ``my/`` of a folder, seen from that folder."""

    def make(folder: Path, *overrides: str) -> Config:
        monkeypatch.chdir(folder)
        (folder / "my").mkdir(exist_ok=True)
        register()
        with initialize_config_dir(version_base="1.3", config_dir=str(conf_folder())):
            return settings(compose("main", [f"hydra.searchpath=[file://{folder}/my]", *overrides]))

    return make
