"""What wandb is sent: rows, tables and headline numbers, as plain values made from the record and the summary.

Keys are the record's: ``head/layer_2/post/dnc1``, ``backbone/network.hidden1/post/dnc1``, ``backbone/train_loss``, and
their x axis ``head/step``, ``backbone/step``, ... : whatever the steps of the stage count. With ``logger.keys=metric``
the metric comes first (`ordered`).
"""

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.storage.reading import Unreadable
from pipeline.storage.record import Row
from pipeline.storage.settings_files import kept_hydra
from pipeline.storage.summary import HEAD, RunSummary, Uses, judged

SMALLEST = ("loss", "relative_gap")
"""How the names of numbers end whose smallest value over the steps is worth keeping beside the last one."""

REACHED = "verdict reached"
"""Title of an alert."""
Asides = Mapping[tuple[str, int], Mapping[str, float]]
"""By stage and step, numbers by name: `Record.asides`."""
Table = tuple[list[str], list[list[Any]]]
"""Columns, and rows of text, numbers, booleans and None."""


LARGEST_GROUP = 128
"""Characters of a group's name, as wandb takes them."""
_DATE = re.compile(r"\d{4}-\d\d-\d\d")


def ordered(key: str, order: str) -> str:
    """A key (`Row.key`) in the order that is asked for; with ``metric`` ``dnc1/head/layer_2/post``, ``loss/head``.

    Steps, which are axes, stay what they are; of ``min/head/loss`` what follows is turned.
    """
    before, _, name = key.rpartition("/")
    if order == "place" or not before or name == "step":
        return key
    return f"min/{ordered(key.removeprefix('min/'), order)}" if before.startswith("min/") else f"{name}/{before}"


def in_order(row: Mapping[str, Any], order: str) -> dict[str, Any]:
    """A row with its keys so."""
    return {ordered(key, order): value for key, value in row.items()}


def axis_globs(row: Iterable[str], stage: str, order: str) -> list[str]:
    """Patterns of the keys of a row (`history_row`) of one stage, whose x axis is that stage's step."""
    if order == "place":
        return [f"{stage}/*"]
    keys = [ordered(key, order) for key in row if key != f"{stage}/step"]
    return list(dict.fromkeys(f"{key.partition('/')[0]}/{stage}/*" if key.count("/") > 1 else key for key in keys))


def history_row(rows: Iterable[Row], seed: int | None, asides: Asides | None = None) -> dict[str, float]:
    """Rows of one stage and step as one row of a history: means over seeds, or the values of one seed; with what is
    noted beside them (`Record.asides`).

    A mean over seeds one of which is NaN is NaN, as in the record. Empty where ``seed`` has no value here.
    """
    values: dict[str, list[float]] = defaultdict(list)
    step_of: dict[str, float] = {}
    for row in rows:
        if seed in (None, row.seed):
            values[row.key].append(row.value)
            step_of[f"{row.stage}/step"] = row.step
            noted = (asides or {}).get((row.stage, row.step), {})
            step_of |= {f"{row.stage}/{name}": value for name, value in noted.items()}
    return step_of | {key: math.fsum(numbers) / len(numbers) for key, numbers in values.items()}


def smallest(best: Mapping[str, float], row: Mapping[str, float]) -> dict[str, float]:
    """``best`` brought up to date with a row of history: ``min/head/loss`` and the like.

    wandb's own ``define_metric(summary="min")`` replaces the last value and is lost for good at the first NaN.
    """
    # Numbers of a whole stage have keys of two parts, those of a layer of four.
    kept = {key: value for key, value in row.items() if key.count("/") == 1 and key.endswith(SMALLEST)}
    new = {f"min/{key}": value for key, value in kept.items() if value == value}
    return {**best, **{key: min(value, best.get(key, math.inf)) for key, value in new.items()}}


def run_config(config: Mapping[str, Any], uses: Uses) -> dict[str, Any]:
    """The run's settings as wandb's nested config, without those of the tracker and those the run has no use for."""
    unused = {"logger"} | ({"data"} if not uses.images else set())
    unused |= {"backbone", "optimizer"} if not uses.network else set()
    return {section: value for section, value in config.items() if section not in unused}


def chosen(folder: Path) -> tuple[str | None, list[str]]:
    """The experiment that was chosen and the overrides given, as Hydra noted them in the run folder."""
    try:
        noted = kept_hydra(folder) or {}
    except Unreadable:
        return None, []
    choices = (noted.get("runtime") or {}).get("choices") or {}
    return choices.get("experiment"), (noted.get("overrides") or {}).get("task") or []


def multirun(folder: Path) -> str | None:
    """The name of the multirun that the run in a folder is a job of: its folder's, with the date above a mere time."""
    try:
        noted = kept_hydra(folder) or {}
    except Unreadable:
        return None
    if noted.get("mode") != "MULTIRUN":
        return None
    place = Path((noted.get("sweep") or {}).get("dir") or "")
    named = f"{place.parent.name}_{place.name}" if _DATE.fullmatch(place.parent.name) else place.name
    return named[:LARGEST_GROUP] or None


def display_name(protocol: str, overrides: Sequence[str]) -> str:
    """What the run is called: its protocol and what was asked for, e.g. ``dufm head.depth=6``."""
    aside = ("protocol=", "logger", "trainer", "hydra.", "experiment=")
    words = [override for override in overrides if not override.startswith(aside)]
    return " ".join([protocol, *words])[:128]


def headline(summary: RunSummary, seed: int | None) -> dict[str, Any]:
    """The numbers a run is compared by; of a head, over seeds, the gap to the optimum is the worst and all else the
    mean."""
    numbers: dict[str, Any] = {"status": summary.status}
    if summary.has_head:
        numbers |= _numbers_of_head(summary.written, seed)
    else:
        numbers |= {"title": summary.title} | {entry.name: entry.value for entry in summary.headline}
    numbers |= {name: value for name, value in summary.further.items() if isinstance(value, Mapping)}
    counts = summary.written.get("parameters") or {}
    numbers |= {f"parameters/{name}": count for name, count in counts.items()}
    return {name: value for name, value in numbers.items() if value is not None}


def alerts(summary: Mapping[str, Any], name: str) -> Iterator[tuple[str, str, str]]:
    """What wandb is to tell of an ended run called so: title (shorter than 64 characters), text, level."""
    status, error = summary["status"], str(summary.get("error") or "")
    gone = summary.get("diverged") or {}
    if status == "failed":
        yield ("diverged" if "diverged" in error else "failed"), f"{name}: {error.partition(': ')[2] or error}", "ERROR"
    elif status == "completed":
        if gone:
            seeds = ", ".join(f"seed {seed} after step {step}" for seed, step in gone.items())
            yield "diverged", f"{name}: {seeds}", "WARN"
        verdict = summary.get("verdict") or {}
        if verdict.get("collapsed_from_layer") is not None:
            yield REACHED, f"{name}: {verdict['text']}", "INFO"
        yield "finished", f"{name}: {summary.get('title', '')}", "INFO"


def _numbers_of_head(written: Mapping[str, Any], seed: int | None) -> dict[str, Any]:
    pick, loss, verdict = _over_seeds(written, seed), written["loss"], written["verdict"]
    gaps = [gap for gap in _of_seed(written, loss.get("relative_gap"), seed) if gap is not None]
    accuracy = written.get("accuracy") or {}
    return {
        "verdict": verdict["text"],
        "collapsed": verdict.get("collapsed"),
        "collapsed_from_layer": verdict["collapsed_from_layer"],
        "loss": pick(loss["total"]),
        "optimum": loss.get("optimum"),
        "gap_to_optimum": max(gaps, default=None),
        "train_accuracy": pick(accuracy.get("train")),
        "test_accuracy": pick(accuracy.get("test")),
    }


def layer_table(summary: RunSummary, seed: int | None) -> Table:
    """Every place of the network at the end: its name, stage, layer, tap, all its metrics, and logarithms.

    ``log10_dnc1`` and the like are for charts, whose presets have no logarithmic axis: of the metrics that are drawn by
    default and come down to zero.
    """
    written, pick = summary.written, _over_seeds(summary.written, seed)
    networks = [stage.name for stage in summary.stages if not stage.numbered and not stage.intermediate]
    network = networks[-1] if networks else "network"
    rows = [{"stage": network, **entry} for entry in written.get("backbone_layers") or ()]
    rows += [{"stage": HEAD, **entry} for entry in written.get("layers") or ()]
    names = {name for row in rows for name in row} - {"stage", "layer", "tap", "undefined"}
    drawn = drawn_by_default(summary, names)
    metrics = [*drawn, *sorted(names - set(drawn))]
    logarithms = [name for name in drawn if summary.metric(name).falls_to_zero]
    data = []
    for row in rows:
        stage, layer, tap = row["stage"], str(row["layer"]), row["tap"]
        values = {name: pick(row.get(name)) for name in metrics}
        log10 = [math.log10(values[name]) if (values[name] or 0) > 0 else None for name in logarithms]
        data.append([f"{stage} {layer} {tap}", stage, layer, tap, *log10, *values.values()])
    return ["place", "stage", "layer", "tap", *(f"log10_{name}" for name in logarithms), *metrics], data


def drawn_by_default(summary: RunSummary, names: Iterable[str]) -> list[str]:
    """Those of the metrics that have a panel of their own, in the order of the registry."""
    known = set(names)
    return [name for name, metric in summary.metrics.items() if metric.panel and name in known]


def verdict_table(summary: RunSummary) -> Table | None:
    """The verdict: per place and property the median over seeds, whether it holds, and whether it was promised; None
    where nothing is judged."""
    if not summary.has_head:
        return None
    verdict, columns, rows = summary.written["verdict"], ["stage", "layer", "tap"], []
    for metric in verdict["thresholds"]:
        columns += [metric, f"{metric}_holds", f"{metric}_promised"]
    for place in verdict["layers"]:
        found = [judged(place, metric) or {} for metric in verdict["thresholds"]]
        cells = [entry.get(name) for entry in found for name in ("value", "collapsed", "theorem")]
        rows.append([place["stage"], str(place["layer"]), place["tap"], *cells])
    return columns, rows


def seed_table(record: pd.DataFrame, summary: RunSummary, limit: int) -> Table:
    """Curves of every seed, one line per stage, step, seed and place; steps are thinned to stay within ``limit``.

    Numbers of a whole stage, and the metrics of layers that are drawn by default.
    """
    places = ["stage", "step", "seed", "layer", "tap"]
    of_stages = list(dict.fromkeys(record[record.layer == ""].metric))
    curves = [*of_stages, *drawn_by_default(summary, record.metric.unique())]
    table = record[record.metric.isin(curves)]
    table = table.pivot_table("value", places, "metric", sort=False, dropna=True).reset_index()
    steps, sizes = np.unique(table.step, return_counts=True)
    if len(table) > limit:
        every = -(-len(steps) // max(limit // sizes.max(), 1))
        table = table[table.step.isin(steps[::-1][::every])]  # the last step always stays
    columns = [*places, *(name for name in curves if name in table)]
    values = table[columns].astype(object)
    return columns, values.where(values.notna(), None).to_numpy().tolist()


def _over_seeds(written: Mapping[str, Any], seed: int | None) -> Any:
    def pick(values: Sequence[float | None] | None) -> float | None:
        known = [value for value in _of_seed(written, values, seed) if value is not None]
        return math.fsum(known) / len(known) if known else None

    return pick


def _of_seed(written: Mapping[str, Any], values: Sequence[float | None] | None, seed: int | None) -> Iterator[Any]:
    """Values per seed, all or those of one; what has a single value (a backbone's) is the same for every seed."""
    seeds = written.get("seeds") or ()
    owners = seeds if values is not None and len(values) == len(seeds) else [None] * len(values or ())
    for owner, value in zip(owners, values or (), strict=False):
        if owner is None or seed in (None, owner):
            yield value
