"""A point of a sweep as an ordinary run folder: composed from ``conf/``, run when it must be, and read back.

A folder counts as finished when it holds a closed run of exactly the wanted configuration, which is kept where Hydra
keeps it (``.hydra/config.yaml``): a run made by hand with ``python -m pipeline experiment=... hydra.run.dir=...`` is
as good as one made here.
"""

import logging
import shutil
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
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
from pipeline.errors import ConfigError, RunError
from pipeline.messages import register
from pipeline.record import COMPLETED, atomic, read_record, read_summary
from pipeline.theory import Diagnosis, DufmProblem, diagnose

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Point:
    """One run of a study: the name of its folder, and what it changes in the study's experiment (Hydra overrides)."""

    name: str
    overrides: tuple[str, ...]


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

        Raises:
            ConfigError, HydraException, OmegaConfBaseException: the configuration is not valid.
        """
        register()
        with initialize_config_dir(version_base="1.3", config_dir=str(conf_folder())):
            composed = compose("main", [f"experiment={experiment}", *point.overrides, *overrides])
        return cls(point, composed, settings(composed), folder)

    @property
    def is_finished(self) -> bool:
        """Whether the folder holds a closed run of this configuration.

        A run that failed for a reason of its own (all seeds diverged) is a result too: it would fail again.
        """
        summary = read_summary(self.folder) or {}
        diverged = summary.get("status") == "failed" and summary.get("error", "").startswith(RunError.__name__)
        try:
            kept = settings(OmegaConf.load(self.folder / ".hydra" / "config.yaml"))
        except (OSError, ConfigError, OmegaConfBaseException):
            return False  # never begun, or written by a version with other settings
        return (summary.get("status") == COMPLETED or diverged) and kept == self.config

    def perform(self) -> None:
        """Run from the beginning, in this process; the verdict goes to ``dnc.log`` in the run's folder."""
        # Imported late: Lightning takes seconds to load, and a second call may have nothing to run.
        from pipeline.execution import execute
        from pipeline.inputs import prepare

        inputs = prepare(self.config)
        if self.folder.exists():
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
        """``record.csv``: see `pipeline.record.Row`."""
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
