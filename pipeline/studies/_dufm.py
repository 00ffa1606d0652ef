"""What the studies of the DUFM by itself (E1, E2) share: their settings, numbers of a run, and tables."""

import math
from collections.abc import Callable, Sequence

import pandas as pd
import torch

from pipeline import dufm
from pipeline.dufm.verdict import METRICS, theorem_speaks_of
from pipeline.studies.engine.claims import largest
from pipeline.studies.engine.results import Result
from pipeline.theory import collapsed_optimum

GROUP = "dufm"
FEW_RECORDS = ("descent.records_per_decade=5",)
MOMENTUM = ("descent.momentum=0.9", *FEW_RECORDS)
"""Ten times faster, to the same minima; not where the descent itself is what the figure is about."""
GAP = 0.01
"""Largest relative gap at which a run counts as having reached a value (the default of `theory.diagnose`)."""
AT_OPTIMUM = ("global optimum", "collapsed solution")
"""Diagnoses of a seed that has arrived."""


def outputs(result: Result) -> list[float]:
    """Mean output for the correct class at the end, per seed: q* at the optimum; NaN where a seed diverged."""
    if not result.completed:
        return [math.nan] * len(result.seeds)
    labels = result.tensors["labels"]
    return _final_outputs(result)[:, torch.arange(len(labels)), labels].mean(dim=1).tolist()


def dead_samples(result: Result) -> list[int]:
    """Samples whose output has died (all units of a layer inactive, so no gradient reaches it), per seed.

    Each costs 1/(2N) more than a fitted one: how descent misses the optimum without sitting at a value with a name.
    """
    if not result.completed:
        return [0] * len(result.seeds)
    return (_final_outputs(result).abs().amax(dim=2) < 1e-3).sum(dim=1).tolist()


def _final_outputs(result: Result) -> torch.Tensor:
    """(S, N, K)."""
    weights = [result.tensors[f"weights/{layer}"] for layer in range(1, result.config.head.depth + 1)]
    return dufm.forward(result.tensors["features/1"], weights, result.config.head.activation)[-1]


def gaps(result: Result) -> list[float]:
    """Relative gap of the final loss to the closed form, per seed."""
    optimum = collapsed_optimum(result.problem).loss
    return [loss / optimum - 1 for loss in result.losses]


def worst(result: Result, metric: str, promised: bool = True) -> list[float]:
    """Per seed, the largest value among the places where the theorem promises the metric (or all others)."""
    places = [
        values
        for (layer, tap), values in result.final(metric).items()
        if theorem_speaks_of(layer, tap, metric) == promised
    ]
    return [largest(values) for values in zip(*places, strict=True)] if places else [math.nan] * len(result.seeds)


def tables(study: str) -> Callable[[Sequence[Result]], dict[str, pd.DataFrame]]:
    """What makes the tables of a study, by file name."""
    return lambda results: {study: seeds_table(results), f"{study}_layers": layers_table(results)}


def seeds_table(results: Sequence[Result]) -> pd.DataFrame:
    """One row per point and seed: the settings that studies vary, the final loss, what it is and where it should be."""
    rows = []
    for result in results:
        head, optimum = result.config.head, collapsed_optimum(result.problem)
        columns = (result.seeds, result.losses, result.diagnoses, outputs(result), dead_samples(result))
        for seed, loss, found, output, dead in zip(*columns, strict=True):
            rows.append(
                {
                    "point": result.point.name,
                    "depth": head.depth,
                    "width": head.width,
                    "decay": head.feature_decay,
                    "init_scale": head.init_scale,
                    "lr": result.config.descent.lr,
                    "steps": result.config.descent.steps,
                    "seed": seed,
                    "loss": loss,
                    "optimum": optimum.loss,
                    "relative_gap": loss / optimum.loss - 1,
                    "output": output,
                    "optimal_output": optimum.output,
                    "diagnosis": found.name,
                    "dead_samples": dead,
                    "seconds_of_run": result.summary.get("timings", {}).get("solve_head"),
                }
            )
    return pd.DataFrame(rows)


def layers_table(results: Sequence[Result]) -> pd.DataFrame:
    """One row per point, place and metric: smallest, median and largest value over seeds, and whether promised."""
    rows = []
    for result in results:
        for metric in METRICS:
            for (layer, tap), values in result.final(metric).items():
                column = pd.Series(values)
                rows.append(
                    {
                        "point": result.point.name,
                        "layer": layer,
                        "tap": tap,
                        "metric": metric,
                        "min": column.min(),
                        "median": column.median(),
                        "max": column.max(),
                        "promised": theorem_speaks_of(layer, tap, metric),
                    }
                )
    return pd.DataFrame(rows)
