"""What the studies of real networks (E3, E4) share: the variants of training, numbers of a run, and tables."""

from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

import pandas as pd

from pipeline.dufm.verdict import METRICS
from pipeline.runs.solutions import unseen_share
from pipeline.studies.engine.results import Result

GROUP = "real"
EXPECTATION = "what the paper says, as recalled (not read)"
LAST = ("dnc1", "dnc2", "dnc3", "test_dnc1", "test_dnc2", "test_dnc3", "ncm_accuracy", "test_ncm_accuracy")
"""Metrics of the last layer that the table of networks shows."""
QUICK_SHRUNK = ("backbone.batch_size=32", "descent.records_per_decade=3", "descent.steps=500")
"""What the quick versions change in every run."""
# Two networks of the same settings differ in what is drawn by their seed; the DUFM of a fixed head is solved from three
# starts, so that one stuck start does not decide over it.
VARIANTS = {
    "end_to_end_dufm": ("protocol=end_to_end", "protocol.regularization=dufm", "descent.seeds=1"),
    "end_to_end_standard": (
        "protocol=end_to_end",
        "protocol.regularization=standard",
        "optimizer.weight_decay=5e-3",
        "descent.seeds=1",
    ),
    "frozen_features": ("protocol=frozen_features", "descent.seeds=1"),
    "fixed_head": ("protocol=fixed_head", "descent.seeds=3"),
    "untrained_backbone": ("protocol=frozen_features", "backbone.epochs=0", "descent.seeds=1"),
}
"""How backbone and head are trained, by the name that begins the points of E3."""
UNTRAINED = "untrained_backbone"
"""The control: what collapse there is without a trained backbone is no work of the network's."""


def tables(study: str) -> Callable[[Sequence[Result]], dict[str, pd.DataFrame]]:
    """What makes the tables of a study, by file name."""
    return lambda results: {study: networks_table(results), f"{study}_layers": layers_table(results)}


def variant(result: Result) -> str:
    """How the network was trained: by the point's name, which a variant begins, or else by protocol and decay."""
    named = result.point.name.partition("-")[0]
    protocol = result.config.protocol
    return named if named in VARIANTS else f"{protocol.name}_{protocol.regularization}"


def images(result: Result) -> str:
    """The data set and its classes, e.g. ``mnist 4/9``."""
    return f"{result.config.data.name} {'/'.join(map(str, result.config.data.classes))}"


def setting(result: Result) -> dict[str, Any]:
    """What the runs of E3 and E4 differ in, but for the seed."""
    config = result.config
    return {
        "images": images(result),
        "backbone": config.backbone.name,
        "variant": variant(result),
        "depth": config.head.depth,
        "width": config.head.width,
        "activation": config.head.activation,
        "head_decay": config.head.weight_decay,
        "optimizer_decay": config.optimizer.weight_decay,
        "lr": config.optimizer.lr,
    }


def groups(results: Sequence[Result]) -> dict[tuple[Any, ...], list[Result]]:
    """The runs of each setting, one per seed, in the order of the study."""
    grouped: dict[tuple[Any, ...], list[Result]] = {}
    for result in results:
        grouped.setdefault(tuple(setting(result).values()), []).append(result)
    return grouped


def places(result: Result) -> dict[tuple[str, str, str], Mapping[str, Any]]:
    """(stage, layer, tap) -> what was measured there at the end, in the order of data flow; {} if the run failed."""
    if not result.completed:
        return {}
    stages = (("backbone", result.summary["backbone_layers"]), ("head", result.summary["layers"]))
    return {(stage, str(row["layer"]), row["tap"]): row for stage, rows in stages for row in rows}


def entered(depth: int) -> list[tuple[str, str, str]]:
    """The places whose values enter W_1, .., W_L: the features, then the post-activations."""
    return [("head", str(layer), "pre" if layer == 1 else "post") for layer in range(1, depth + 1)]


def chain(results: Sequence[Result], metric: str) -> list[float]:
    """Median over seeds of a metric of what enters W_1, .., W_L."""
    return [median_at(results, place, metric) for place in entered(results[0].config.head.depth)]


def chain_of(result: Result, metric: str) -> list[float]:
    """The same of one network."""
    return [value_at(result, place, metric) for place in entered(result.config.head.depth)]


def median_at(results: Sequence[Result], place: tuple[str, str, str], metric: str) -> float:
    """Median over seeds of a metric at a place; NaN if no seed has it."""
    values = [value for result in results if (value := value_at(result, place, metric)) == value]
    return median(values) if values else float("nan")


def value_at(result: Result, place: tuple[str, str, str], metric: str) -> float:
    """A metric of one network at a place; NaN if it is undefined or was not measured."""
    values = places(result).get(place, {}).get(metric)
    return float("nan") if not values or values[0] is None else values[0]


def accuracy(result: Result, split: str) -> float:
    """Share of rightly decided images; NaN if the run failed."""
    values = (result.summary.get("accuracy", {}).get(split) or [None]) if result.completed else [None]
    return float("nan") if values[0] is None else values[0]


def gap(result: Result) -> float:
    """Relative distance of the loss to the DUFM's optimum; NaN where there is none."""
    if not result.completed:
        return float("nan")
    found = result.summary.get("fixed_head", {}).get("relative_gap")
    gaps = result.summary["loss"]["relative_gap"] if found is None else [found]
    return float("nan") if not gaps or gaps[0] is None else gaps[0]


def unseen(result: Result) -> float:
    """Of a network under a fixed head, the share of its squared feature norm that the head cannot see; else NaN."""
    if not result.completed or "fixed_head" not in result.summary:
        return float("nan")
    return unseen_share(result.tensors["features/1"], result.tensors["weights/1"][0])


def seen_gap(result: Result) -> float:
    """Of a network under a fixed head, the relative gap without the penalty on what the head cannot see; else NaN."""
    share = unseen(result)
    if share != share:
        return share
    norm = result.tensors["features/1"].double().square().sum().item()
    fixed = result.summary["fixed_head"]
    return (fixed["loss"] - share * result.config.head.feature_decay / 2 * norm) / fixed["dufm_optimum"] - 1


def networks_table(results: Sequence[Result]) -> pd.DataFrame:
    """One row per network: what it is, how well it fits, how near the optimum, and its last layer."""
    rows = []
    for result in results:
        last = entered(result.config.head.depth)[-1]
        fixed = result.summary.get("fixed_head", {})
        rows.append(
            {
                "point": result.point.name,
                **setting(result),
                "seed": result.config.seed,
                "samples_per_class": result.config.data.samples_per_class,
                "epochs": result.config.backbone.epochs,
                "train_accuracy": accuracy(result, "train"),
                "test_accuracy": accuracy(result, "test"),
                "relative_gap": gap(result),
                "unseen_share": unseen(result),
                "relative_gap_without_unseen": seen_gap(result),
                "alignment": fixed.get("alignment"),
                "alignment_rotated": fixed.get("alignment_rotated"),
                **{metric: value_at(result, last, metric) for metric in LAST},
                "seconds": sum(result.summary.get("timings", {}).values()),
            }
        )
    return pd.DataFrame(rows)


def layers_table(results: Sequence[Result]) -> pd.DataFrame:
    """One row per setting, place and metric: smallest, median and largest value over the seeds.

    What is the same in all settings is left out; the experiment file has it.
    """
    rows, settings = [], pd.DataFrame([setting(result) for result in results])
    told = [column for column in settings if settings[column].nunique() > 1]
    for group in groups(results).values():
        names = [f"{split}{metric}" for split in ("", "test_") for metric in (*METRICS, "ncm_accuracy")]
        for place in places(next((result for result in group if result.completed), group[0])):
            for metric in names:
                column = pd.Series([value_at(result, place, metric) for result in group]).dropna()
                if len(column):
                    spread = {"min": column.min(), "median": column.median(), "max": column.max()}
                    where = dict(zip(("stage", "layer", "tap"), place, strict=True))
                    own = {key: value for key, value in setting(group[0]).items() if key in told}
                    rows.append({**own, **where, "metric": metric, **spread})
    return pd.DataFrame(rows)
