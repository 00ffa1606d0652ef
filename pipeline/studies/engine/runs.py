"""A point of a sweep as an ordinary run folder: composed from ``conf/``, run when it must be, and read back.

A folder counts as finished when it holds a closed run of exactly the wanted configuration, which is kept where Hydra
keeps it (``.hydra/config.yaml``): a run made by hand with ``python -m pipeline experiment=... hydra.run.dir=...`` is
as good as one made here.
"""

import logging
import shutil
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from functools import cached_property
from math import nan
from pathlib import Path
from typing import Any

import pandas as pd
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import Tensor

from pipeline.config import Config, conf_folder, settings
from pipeline.config.messages import register
from pipeline.runs.protocols import protocol_named
from pipeline.runtime.errors import ConfigError, RunError
from pipeline.runtime.files import atomic
from pipeline.storage.record import COMPLETED, read_record, read_summary
from pipeline.theory import Diagnosis, DufmProblem, diagnose

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Point:
    """One run of a study.

    name: of its folder. overrides: what the study varies, on top of its experiment file (Hydra overrides; they may name
    another ``experiment``). shrunk: what a smaller version of the study changes besides.
    """

    name: str
    overrides: tuple[str, ...]
    shrunk: tuple[str, ...] = ()


@dataclass(frozen=True)
class Job:
    """A point with its validated configuration and its folder."""

    point: Point
    composed: DictConfig
    config: Config
    folder: Path

    @classmethod
    def plan(cls, experiment: str, point: Point, overrides: Sequence[str], folder: Path) -> "Job":
        """Compose ``experiment`` with the point's overrides and then ``overrides``, which win.

        Args:
            experiment: the file in ``conf/experiment/``, unless the point names another.

        Raises:
            ConfigError, HydraException, OmegaConfBaseException: the configuration is not valid.
        """
        register()
        own = any(override.startswith("experiment=") for override in point.overrides)
        chosen = [] if own else [f"experiment={experiment}"]
        with initialize_config_dir(version_base="1.3", config_dir=str(conf_folder())):
            composed = compose("main", [*chosen, *point.overrides, *point.shrunk, *overrides])
        return cls(point, composed, settings(composed), folder)

    @property
    def is_finished(self) -> bool:
        """Whether the folder holds a closed run of this configuration.

        A run that failed for a reason of its own (all seeds diverged) is a result too: it would fail again.
        """
        return is_closed(self.folder) and self._is_ours

    @property
    def _is_ours(self) -> bool:
        """Whether the folder holds a run of this configuration, finished or not."""
        return kept_config(self.folder) == self.config

    def found_in(self, folders: Mapping[Path, Config]) -> "Job":
        """This job, in the folder among those of closed runs that holds its configuration; else in its own."""
        if not self.is_finished:
            for folder, config in folders.items():
                if config == self.config:
                    return replace(self, folder=folder)
        return self

    def perform(self) -> None:
        """Run, in this process, going on where an earlier attempt left off; the verdict goes to ``dnc.log`` there."""
        # Imported late: Lightning takes seconds to load, and a second call may have nothing to run.
        from pipeline.runs.execution import execute
        from pipeline.runs.inputs import prepare

        inputs = prepare(self.config)
        if self.folder.exists() and (is_closed(self.folder) or not self._is_ours):
            shutil.rmtree(self.folder)
        with atomic(self.folder / ".hydra" / "config.yaml") as path:
            OmegaConf.save(self.composed, path)
        with open(self.folder / "dnc.log", "w") as verdict, redirect_stdout(verdict):
            try:
                execute(self.config, inputs, self.folder)
            except RunError as error:
                log.warning("%s: %s", self.point.name, error)

    def result(self) -> "Result":
        """What a finished job left behind."""
        return Result(self.point, self.config, self.folder)


def is_closed(folder: Path) -> bool:
    """Whether a run came to an end in this folder: completed, or all its seeds diverged."""
    summary = read_summary(folder) or {}
    diverged = summary.get("status") == "failed" and summary.get("error", "").startswith(RunError.__name__)
    return summary.get("status") == COMPLETED or diverged


def kept_config(folder: Path) -> Config | None:
    """The configuration of the run in this folder; None if it was never begun, or by a version with other settings."""
    try:
        return settings(OmegaConf.load(folder / ".hydra" / "config.yaml"))
    except (OSError, ConfigError, OmegaConfBaseException):
        return None


@dataclass(frozen=True)
class Result:
    """A finished run, read from its folder; per-seed lists hold NaN where a seed diverged."""

    point: Point
    config: Config
    folder: Path

    @cached_property
    def summary(self) -> dict[str, Any]:
        """``summary.json``."""
        summary = read_summary(self.folder)
        if summary is None:
            raise FileNotFoundError(f"no summary.json in {self.folder}")
        return summary

    @cached_property
    def record(self) -> pd.DataFrame:
        """``record.csv``: see `pipeline.storage.record.Row`."""
        return read_record(self.folder)

    @cached_property
    def tensors(self) -> dict[str, Tensor]:
        """``tensors.safetensors``: ``labels`` (N,), ``features/1`` (S, N, d_1), ``weights/l`` (S, d_{l+1}, d_l)."""
        from safetensors.torch import load_file

        return load_file(self.folder / "tensors.safetensors")

    @property
    def completed(self) -> bool:
        """False where every seed diverged: there are no tensors and no closing numbers then."""
        return self.summary["status"] == COMPLETED

    @property
    def seeds(self) -> list[int]:
        """Seeds of the run, in the order of every per-seed list."""
        if protocol_named(self.config.protocol.name).head == "joint":
            return [self.config.seed]
        return [self.config.seed + index for index in range(self.config.descent.seeds)]

    @property
    def problem(self) -> DufmProblem:
        """The problem the run descended on."""
        head, protocol = self.config.head, self.config.protocol
        return DufmProblem(
            protocol.num_classes, protocol.samples_per_class, head.depth, self.config.weight_decays, head.feature_decay
        )

    @property
    def losses(self) -> list[float]:
        """Final loss of every seed."""
        if not self.completed:
            return [nan] * len(self.seeds)
        return [nan if loss is None else loss for loss in self.summary["loss"]["total"]]

    @property
    def diagnoses(self) -> list[Diagnosis]:
        """Which value every seed sits at."""
        return [diagnose(self.problem, loss) for loss in self.losses]

    def final(self, metric: str) -> dict[tuple[int, str], list[float]]:
        """The metric at the end, per seed, of every place (layer, tap) that has it."""
        layers = self.summary["layers"] if self.completed else []
        return {
            (place["layer"], place["tap"]): [nan if value is None else value for value in place[metric]]
            for place in layers
            if place.get(metric) is not None
        }
