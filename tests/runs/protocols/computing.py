"""Runs of protocols that train nothing, on a small mixture."""

from pathlib import Path

import pandas as pd
from configurations import PLAIN, perform

from pipeline.storage.record import read_record

MIXTURE = PLAIN | {"data.name": "mixture", "data.num_classes": 2, "data.samples_per_class": 6, "data.test": 40}


def on_mixture(protocol: str, changed: dict) -> dict:
    """The small mixture under a protocol, with settings changed."""
    return MIXTURE | {"protocol.name": protocol} | changed


def computed(protocol: str, folder: Path, changed: dict) -> pd.DataFrame:
    """The record of such a run."""
    perform(folder, on_mixture(protocol, changed))
    return read_record(folder)
