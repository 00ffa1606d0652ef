"""The networks of the study of depth, and what is read of them at the end."""

from collections.abc import Sequence
from math import nan

import numpy as np
import pandas as pd
import torch

from pipeline.metrics import nc2_simplex
from pipeline.studies._measured import CLASSIFIER, COMMON, end
from pipeline.studies.engine.results import Point, Result
from pipeline.studies.engine.study import shrunk

TRANSFORMER = "transformer"
TWO, OVER_DEPTH = "backbone.block_layers=2", "protocol.penalty_weights=depth"
KINDS = {
    "one": ("one layer", ("backbone.block_layers=1",)),
    "two": ("two layers", (TWO,)),
    "two_over_depth": (r"two layers, $\lambda/L$", (TWO, OVER_DEPTH)),
    "two_twice": (r"two layers, $2\lambda/L$", (TWO, OVER_DEPTH, "optimizer.weight_decay=1e-2")),
    TRANSFORMER: ("transformer, one layer", ("backbone=patch_transformer",)),
}
"""What a block is and how it is decayed, by the name that begins its points: as figures call it, and its settings.

lambda = 5e-3; lambda/L is the paper's, 2 lambda/L what the specification has seen: that of L = 2 is lambda.
"""
MLPS = tuple(kind for kind in KINDS if kind != TRANSFORMER)
DEPTHS, PAPER_DEPTHS = (2, 5, 13, 21), (2, 3, 5, 8, 13, 21, 34)
LONG = ("data.samples_per_class=null", "backbone.epochs=5000", "backbone.batch_size=128", "optimizer=sgd")
MEASURES = {"nc1": "NC1, within over between", "nc2": "NC2, $W$ from a simplex", "nc3": "NC3, 1 - cosine with $W$"}
COLUMNS = ["data", "kind", "depth", "seed", *MEASURES, "objective", "gap", "fit", "blocks", "classifier"]
COLUMNS += ["gradient_norm", "train_accuracy", "test_accuracy"]


def _points(depths: Sequence[int], seeds: int, *more: str, name: str = "") -> tuple[Point, ...]:
    return tuple(
        Point(
            f"{name}{kind}-depth_{depth}-seed_{seed}",
            (f"backbone.depth={depth}", f"seed={seed}", *settings, *more),
        )
        for kind, (_, settings) in KINDS.items()
        for depth in depths
        for seed in range(seeds)
    )


POINTS = tuple(
    point
    for data in ("mnist", "cifar10")
    for point in _points(
        PAPER_DEPTHS, 5, f"data={data}", "data.classes=null", *LONG, "optimizer.lr=5e-3", name=f"{data}-"
    )
)
DIGITS = _points(DEPTHS, 2)
DEEP_TRANSFORMERS = (f"{TRANSFORMER}-depth_13-seed_1", f"{TRANSFORMER}-depth_21")
CPU_POINTS = tuple(point for point in DIGITS if not point.name.startswith(DEEP_TRANSFORMERS))
"""Without those that take longest: one transformer of L = 13, none of L = 21."""
LONGEST = ("_21-", f"{TRANSFORMER}-depth_13")
QUICK_POINTS = shrunk(
    DIGITS,
    [point.name for point in DIGITS if point.name.endswith("seed_0") and not any(it in point.name for it in LONGEST)],
    ("backbone.epochs=200", *COMMON),
)


def kind_of(result: Result) -> str:
    """The key of `KINDS`, by the settings of a run."""
    config = result.config
    if config.backbone.name == "patch_transformer":
        return TRANSFORMER
    if config.backbone.block_layers == 1:
        return "one"
    if config.protocol.penalty_weights == "equal":
        return "two"
    return "two_over_depth" if config.optimizer.weight_decay < 1e-2 else "two_twice"


def decay_of(result: Result) -> float:
    """lambda as it stands before every matrix."""
    config = result.config
    shared = config.protocol.penalty_weights == "depth"
    return config.optimizer.weight_decay / (config.backbone.depth if shared else 1)


def optimum_of(result: Result) -> float:
    """The GUFM's optimum for a run, as the run says; NaN where it has none (no decay, fewer features than classes)."""
    value = result.summary["loss"]["optimum"]
    return nan if value is None else value


def table(results: Sequence[Result]) -> pd.DataFrame:
    """One row per network that ended: NC1-3 at the end, the objective, its parts over the GUFM's optimum, accuracies.

    ``gap``: objective/GUFM - 1 = fit + blocks + classifier - 1, those of embedding and positions among the blocks'.
    """
    return pd.DataFrame([_row(result) for result in results if result.completed], columns=COLUMNS)


def _row(result: Result) -> list:
    config, weight, optimum = result.config, result.tensors["weights/1"].double(), optimum_of(result)
    classes = len(weight)
    objective, penalty = (end(result, None, name) for name in ("objective", "penalty"))
    of_classifier = decay_of(result) / 2 * float(weight.square().sum())
    collapse = [
        end(result, CLASSIFIER, "dnc1"),
        float(nc2_simplex(weight, torch.arange(classes), classes)),
        1 - end(result, CLASSIFIER, "nc3_cosine"),
    ]
    parts = (objective - penalty, penalty - of_classifier, of_classifier)
    rest = [end(result, None, name) for name in ("gradient_norm", "train_accuracy", "test_accuracy")]
    where = [config.data.name, kind_of(result), config.backbone.depth, config.seed]
    return [*where, *collapse, objective, objective / optimum - 1, *(part / optimum for part in parts), *rest]


def means(found: pd.DataFrame) -> pd.DataFrame:
    """Mean over seeds: a row per data set, kind and depth."""
    return found.groupby(["data", "kind", "depth"]).mean(numeric_only=True).drop(columns="seed")


def rising(found: pd.DataFrame, data: str, kind: str) -> pd.DataFrame:
    """Means of a kind by depth; empty where it was not run."""
    averaged = means(found)
    return averaged.loc[data, kind] if (data, kind) in {pair[:2] for pair in averaged.index} else averaged[:0]


def slope(rows: pd.DataFrame, name: str) -> float:
    """Of the logarithm of a mean in log L, by least squares; NaN of one depth."""
    return float(np.polyfit(np.log(rows.index), np.log(rows[name]), 1)[0]) if len(rows) > 1 else nan
