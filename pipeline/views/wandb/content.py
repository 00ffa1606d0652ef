"""What wandb is sent: rows, tables and headline numbers, as plain values made from the record and the summary.

Keys are the record's: ``head/layer_2/post/dnc1``, ``backbone/train_loss``, and their x axis ``head/step`` (gradient
steps, or epochs where the head is trained with the backbone), ``backbone/step`` (epochs), ``dufm/step``.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from pipeline.dufm.verdict import METRICS
from pipeline.storage.record import Row

STAGES = ("head", "backbone", "dufm")
SMALLEST = ("loss", "relative_gap", "train_loss", "test_loss")
"""Metrics of a whole network whose smallest value over the steps is worth keeping beside the last one."""
CURVES = ("loss", "fit", "relative_gap", "train_loss", "test_loss", "train_accuracy", "test_accuracy", *METRICS)
"""Metrics in the table of per-seed curves."""

Table = tuple[list[str], list[list[Any]]]
"""Columns, and rows of text, numbers, booleans and None."""


def key_of(row: Row) -> str:
    """The wandb key of a row of the record."""
    where = f"layer_{row.layer}/{row.tap}/" if row.layer else ""
    return f"{row.stage}/{where}{row.metric}"


def history_row(rows: Iterable[Row], seed: int | None) -> dict[str, float]:
    """Rows of one stage and step as one row of a wandb history: means over seeds, or the values of one seed.

    A mean over seeds one of which is NaN is NaN, as in the record. Empty where ``seed`` has no value here.
    """
    values: dict[str, list[float]] = defaultdict(list)
    step_of: dict[str, float] = {}
    for row in rows:
        if seed in (None, row.seed):
            values[key_of(row)].append(row.value)
            step_of[f"{row.stage}/step"] = row.step
    return step_of | {key: math.fsum(numbers) / len(numbers) for key, numbers in values.items()}


def smallest(best: Mapping[str, float], row: Mapping[str, float]) -> dict[str, float]:
    """``best`` brought up to date with a row of history: ``min/head/loss`` and the like.

    wandb's own ``define_metric(summary="min")`` replaces the last value and is lost for good at the first NaN.
    """
    new = {f"min/{key}": value for key, value in row.items() if key.split("/", 1)[1] in SMALLEST and value == value}
    return {**best, **{key: min(value, best.get(key, math.inf)) for key, value in new.items()}}


def run_config(config: Mapping[str, Any], protocol: str) -> dict[str, Any]:
    """The run's settings as wandb's nested config, without those of the tracker and those the protocol ignores."""
    unused = {"logger"} | ({"data", "backbone", "optimizer"} if protocol == "dufm" else set())
    return {section: value for section, value in config.items() if section not in unused}


def chosen(folder: Path) -> tuple[str | None, list[str]]:
    """The experiment that was chosen and the overrides given, as Hydra noted them in the run folder."""
    try:
        noted = yaml.safe_load((folder / ".hydra" / "hydra.yaml").read_text())["hydra"]
        return noted["runtime"]["choices"].get("experiment"), noted["overrides"]["task"]
    except (OSError, KeyError, TypeError, yaml.YAMLError):
        return None, []


def display_name(protocol: str, overrides: Sequence[str]) -> str:
    """What the run is called: its protocol and what was asked for, e.g. ``dufm head.depth=6``."""
    aside = ("protocol=", "logger", "trainer", "hydra.", "experiment=")
    words = [override for override in overrides if not override.startswith(aside)]
    return " ".join([protocol, *words])[:128]


def headline(summary: Mapping[str, Any], seed: int | None) -> dict[str, Any]:
    """The numbers a run is compared by; over seeds, the gap to the optimum is the worst and all else the mean."""
    pick = _over_seeds(summary, seed)
    loss, verdict = summary["loss"], summary["verdict"]
    gaps = [gap for gap in _of_seed(summary, loss["relative_gap"], seed) if gap is not None]
    numbers = {
        "status": summary["status"],
        "verdict": verdict["text"],
        "collapsed": verdict["collapsed"],
        "collapsed_from_layer": verdict["collapsed_from_layer"],
        "loss": pick(loss["total"]),
        "optimum": loss["optimum"],
        "gap_to_optimum": max(gaps, default=None),
        "train_accuracy": pick(summary["accuracy"]["train"]),
        "test_accuracy": pick(summary["accuracy"]["test"]),
        "fixed_head": summary.get("fixed_head"),
    }
    return {name: value for name, value in numbers.items() if value is not None}


def layer_table(summary: Mapping[str, Any], seed: int | None) -> Table:
    """Every place of the network at the end: its name, stage, layer, tap, all its metrics, and DNC1's logarithm.

    ``log10_dnc1`` is for charts, whose presets have no logarithmic axis.
    """
    pick = _over_seeds(summary, seed)
    rows = [{"stage": "backbone", **entry} for entry in summary["backbone_layers"]]
    rows += [{"stage": "head", **entry} for entry in summary["layers"]]
    known = {"stage", "layer", "tap", "undefined", *METRICS}
    metrics = [*METRICS, *sorted({name for row in rows for name in row} - known)]
    data = []
    for row in rows:
        stage, layer, tap = row["stage"], str(row["layer"]), row["tap"]
        values = {name: pick(row.get(name)) for name in metrics}
        log10 = math.log10(values["dnc1"]) if values["dnc1"] else None
        data.append([f"{stage} {layer} {tap}", stage, layer, tap, log10, *values.values()])
    return ["place", "stage", "layer", "tap", "log10_dnc1", *metrics], data


def verdict_table(summary: Mapping[str, Any]) -> Table:
    """The verdict: per place and property the median over seeds, whether it holds, and whether it was promised."""
    columns = ["stage", "layer", "tap"]
    for metric in METRICS:
        columns += [metric, f"{metric}_holds", f"{metric}_promised"]
    rows = []
    for place in summary["verdict"]["layers"]:
        judged = [place[metric] or {} for metric in METRICS]
        cells = [entry.get(name) for entry in judged for name in ("value", "collapsed", "theorem")]
        rows.append([place["stage"], str(place["layer"]), place["tap"], *cells])
    return columns, rows


def seed_table(record: pd.DataFrame, limit: int) -> Table:
    """Curves of every seed, one line per stage, step, seed and place; steps are thinned to stay within ``limit``."""
    places = ["stage", "step", "seed", "layer", "tap"]
    rows = record[record.metric.isin(CURVES)]
    table = rows.pivot_table("value", places, "metric", sort=False, dropna=True).reset_index()
    steps, sizes = np.unique(table.step, return_counts=True)
    if len(table) > limit:
        every = -(-len(steps) // max(limit // sizes.max(), 1))
        table = table[table.step.isin(steps[::-1][::every])]  # the last step always stays
    columns = [*places, *(name for name in CURVES if name in table)]
    values = table[columns].astype(object)
    return columns, values.where(values.notna(), None).to_numpy().tolist()


def _over_seeds(summary: Mapping[str, Any], seed: int | None) -> Any:
    def pick(values: Sequence[float | None] | None) -> float | None:
        known = [value for value in _of_seed(summary, values, seed) if value is not None]
        return math.fsum(known) / len(known) if known else None

    return pick


def _of_seed(summary: Mapping[str, Any], values: Sequence[float | None] | None, seed: int | None) -> Iterator[Any]:
    """Values per seed, all or those of one; what has a single value (a backbone's) is the same for every seed."""
    seeds = summary["seeds"] if values is not None and len(values) == len(summary["seeds"]) else [None]
    for owner, value in zip(seeds, values or [], strict=False):
        if owner is None or seed in (None, owner):
            yield value
