"""Compose many configurations that differ in values more than in choices, as Hydra does in ten times the time.

Nearly all of the tenth of a second that Hydra takes goes into the files that were chosen (``experiment``, ``head``),
which most points of a study share: they are composed once for all that choose alike, and values are set in a copy.
"""

import copy
import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from pipeline.config import conf_folder
from pipeline.config.folder import groups_of_choices
from pipeline.config.messages import register

RUNTIME = ("version", "cwd", "config_sources", "choices")
"""What Hydra keeps of how it composed a configuration."""


def composed(task: Sequence[str]) -> tuple[DictConfig, dict[str, Any]]:
    """The configuration that these arguments make of ``conf/main.yaml``, and what Hydra keeps of it (`RUNTIME`).

    Raises:
        HydraException, OmegaConfBaseException: as Hydra raises them.
    """
    try:
        values = [override for override in map(_parsed, task) if not _chooses(override)]
        if all(map(_sets_a_value, values)):
            files, runtime = _of_choices(conf_folder(), tuple(one for one in task if _chooses(_parsed(one))))
            config = copy.deepcopy(files)
            for override in values:
                OmegaConf.update(config, override.key_or_group, override.value(), merge=True)
            return config, copy.deepcopy(runtime) | {"cwd": os.getcwd()}
    except (HydraException, OmegaConfBaseException):
        pass  # Hydra itself says what is wrong
    return _by_hydra(conf_folder(), task)


@cache
def _parsed(override: str) -> Override:
    return OverridesParser.create().parse_override(override)


def _chooses(override: Override) -> bool:
    return override.key_or_group in _groups() and override.type == OverrideType.CHANGE


@cache
def _groups() -> frozenset[str]:
    return frozenset(groups_of_choices())


def _sets_a_value(override: Override) -> bool:
    """Whether it changes a setting of the run, and does nothing else: adds, deletes, sweeps, or is Hydra's own."""
    special = override.package is not None or override.is_sweep_override() or override.is_hydra_override()
    return override.type == OverrideType.CHANGE and not special and "/" not in override.key_or_group


@cache
def _of_choices(folder: Path, choices: tuple[str, ...]) -> tuple[DictConfig, dict[str, Any]]:
    return _by_hydra(folder, choices)


def _by_hydra(folder: Path, task: Sequence[str]) -> tuple[DictConfig, dict[str, Any]]:
    register()
    with initialize_config_dir(version_base="1.3", config_dir=str(folder)):
        config = compose("main", list(task), return_hydra_config=True)
    runtime = OmegaConf.to_container(OmegaConf.masked_copy(config.hydra.runtime, RUNTIME))
    with open_dict(config):
        del config["hydra"]
    return config, runtime
