"""Runs of protocols that train nothing, on a small mixture."""

from pathlib import Path

import pandas as pd
from omegaconf import OmegaConf

from pipeline.config import Config
from pipeline.runs.checking import checked
from pipeline.runs.execution import execute
from pipeline.runs.inputs import prepare
from pipeline.storage.record import read_record

MIXTURE = {
    "data.name": "mixture",
    "data.num_classes": 2,
    "data.samples_per_class": 6,
    "data.test": 40,
    "backbone.name": "mlp",
    "optimizer.name": "sgd",
    "logger.name": "none",
    "record.figures": False,
    "trainer.accelerator": "cpu",
    "trainer.threads": 1,
}


def configured(protocol: str, changed: dict) -> Config:
    """The small mixture under a protocol, with settings changed."""
    cfg = OmegaConf.structured(Config)
    for key, value in {**MIXTURE, "protocol.name": protocol, **changed}.items():
        OmegaConf.update(cfg, key, value)
    return checked(cfg)


def computed(protocol: str, folder: Path, changed: dict) -> pd.DataFrame:
    """The record of such a run."""
    config = configured(protocol, changed)
    execute(config, prepare(config), folder)
    return read_record(folder)
