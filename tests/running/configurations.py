"""Configurations of small runs, and runs of them in this process: without the command, its groups and its files."""

import copy
from collections.abc import Mapping
from pathlib import Path

from omegaconf import OmegaConf

from pipeline.config import Config
from pipeline.config.check import schema_node
from pipeline.runs.checking import checked
from pipeline.runs.execution import execute
from pipeline.runs.inputs import prepare

PLAIN = {
    "data.name": "digits",
    "backbone.name": "mlp",
    "optimizer.name": "sgd",
    "logger.name": "none",
    "record.figures": False,
    "trainer.accelerator": "cpu",
    "trainer.threads": 1,
}
"""What there is to choose, and nothing that takes long."""
DUFM = PLAIN | {
    "protocol.name": "dufm",
    "protocol.samples_per_class": 3,
    "protocol.num_features": 6,
    "head.inputs": "free",
    "head.width": 6,
}
"""A small DUFM whose features are free."""


def configured(settings: Mapping[str, object]) -> Config:
    """The checked configuration of these settings, by their keys."""
    cfg = copy.deepcopy(schema_node())
    for key, value in settings.items():
        OmegaConf.update(cfg, key, value, force_add=True)
    return checked(cfg)


def perform(folder: Path, settings: Mapping[str, object]) -> Config:
    """Make the run in a folder; returns its configuration."""
    config = configured(settings)
    execute(config, prepare(config), folder)
    return config
