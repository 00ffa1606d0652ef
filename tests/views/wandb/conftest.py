"""One tracked run that many tests look at."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from tracked import IMAGES, run
from wandb_server import WandbServer, serving

from pipeline.storage.record import read_record, read_summary


@dataclass(frozen=True)
class Tracked:
    """A completed run: where, what it said, what the server had got when it ended."""

    folder: Path
    said: str
    server: WandbServer

    @property
    def record(self) -> pd.DataFrame:
        return read_record(self.folder)

    @property
    def summary(self) -> dict[str, Any]:
        return read_summary(self.folder)


@pytest.fixture(scope="session")
def online(tmp_path_factory) -> Tracked:
    """A run with a backbone, a head and an optimum, online, of an experiment of the user's own."""
    folder = tmp_path_factory.mktemp("online")
    (folder / "conf" / "experiment").mkdir(parents=True)
    (folder / "conf" / "experiment" / "mine.yaml").write_text("# @package _global_\ndescent:\n  steps: 300\n")
    tracking = ["logger.mode=online", "logger.artifact=true", "logger.tags=[a,b]", "logger.notes=a note"]
    tracking += ["logger.entity=loopback", "logger.alert=true", "logger.histograms=true"]
    with serving() as server:
        more = server.environment | {"WANDB_X_STATS_SAMPLING_INTERVAL": "0.3"}
        said = run(folder, ["--config-dir", "conf", "experiment=mine", *IMAGES, *tracking], more)
    return Tracked(folder / "run", said, server)
