"""A finished run of a study, read from its folder."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from math import nan
from pathlib import Path
from typing import Any

import pandas as pd
from torch import Tensor

from pipeline.config import Config
from pipeline.runtime.errors import RunError
from pipeline.storage.record import read_record, read_summary
from pipeline.storage.summary import COMPLETED
from pipeline.theory import Diagnosis, DufmProblem, diagnose


@dataclass(frozen=True)
class Point:
    """One run of a study.

    name: of its folder. overrides: what the study varies, on top of its experiment file (Hydra overrides; they may name
    another ``experiment``). shrunk: what a smaller version of the study changes besides.
    """

    name: str
    overrides: tuple[str, ...]
    shrunk: tuple[str, ...] = ()


def failure_in(summary: Mapping[str, Any]) -> str:
    """Why a run failed, by its summary; "" where it did not."""
    if summary.get("status") == COMPLETED:
        return ""
    return str(summary.get("error") or summary.get("status")).removeprefix(f"{RunError.__name__}: ")


def ended(summary: Mapping[str, Any]) -> str:
    """What is to be said of the end of a run: `` failed: why``, or how many of its seeds diverged; "" of others."""
    if failure := failure_in(summary):
        return f" failed: {failure}"
    losses = (summary.get("loss") or {}).get("total") or []
    lost = sum(loss is None for loss in losses)
    return f" ({lost} of {len(losses)} seeds diverged)" if lost else ""


@dataclass(frozen=True)
class Result:
    """A finished run; per-seed lists hold NaN where a seed diverged."""

    point: Point
    config: Config
    folder: Path

    @cached_property
    def summary(self) -> Mapping[str, Any]:
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
    def rows_of(self) -> Mapping[tuple[str, str, str], Any]:
        """Where in `record` a metric of a place stands: (layer, tap, metric) -> positions of its rows."""
        if "layer" not in self.record:
            return {}
        keys = [self.record.layer.fillna(""), self.record.tap.fillna(""), self.record.metric]
        return self.record.groupby(keys, sort=False).indices

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
    def failure(self) -> str:
        """Why a run failed, in a sentence; "" where it did not."""
        return failure_in(self.summary)

    @cached_property
    def seeds(self) -> list[int]:
        """Seeds of the run, in the order of every per-seed list."""
        if self.completed:
            return list(self.summary["seeds"])
        # A run that failed did not get to say so; its record may have.
        recorded = self.record[self.record.stage == "head"].seed if (self.folder / "record.csv").exists() else ()
        asked = range(self.config.seed, self.config.seed + self.config.descent.seeds)
        return sorted({int(seed) for seed in recorded}) or list(asked)

    @cached_property
    def problem(self) -> DufmProblem:
        """The problem the run descended on; of a run that failed, the one its configuration asks for.

        Raises:
            ValueError: the theory does not speak of it: classes differ in size, or features do not descend.
        """
        if not self.completed:
            head, protocol = self.config.head, self.config.protocol
            sizes = (protocol.num_classes, protocol.samples_per_class, head.depth)
            return DufmProblem(*sizes, self.config.weight_decays, head.feature_decay)
        said = self.summary["problem"]
        sizes = (said["num_classes"], said["samples_per_class"], said["depth"])
        return DufmProblem(*sizes, tuple(said["weight_decay"]), said["feature_decay"])

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
