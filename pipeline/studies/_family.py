"""What the studies of the DUFM family share: references of a run by name, where seeds end, a table of seeds."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import pandas as pd
from torch import Tensor

from pipeline.studies.engine.claims import Claim
from pipeline.studies.engine.results import Result
from pipeline.views import marks

if TYPE_CHECKING:
    from matplotlib.axes import Axes

GROUP = "dufm_family"
FEW_RECORDS = ("descent.records_per_decade=5", "record.figures=false")
BELOW = "below all references"
UNNAMED = "none of them"


def every(claim: str, passed: Sequence[bool], measured: str) -> Claim:
    """A claim about each of several things; there must be one."""
    count = len(passed)
    return Claim(claim, f"{count} of {count}", f"{sum(passed)} of {count}; {measured}", count > 0 and all(passed))


def undecidable(claim: Claim, decidable: bool) -> Claim:
    """The claim, or that runs of this size say nothing about it."""
    return claim if decidable else replace(claim, holds=None)


def known(result: Result) -> dict[str, float]:
    """Name -> value of the references of a run's problem; {} where every seed diverged."""
    return {reference["name"]: reference["value"] for reference in result.summary.get("references") or []}


def reference(result: Result, name: str) -> float:
    """The value of one of them; NaN where the run has none of this name."""
    return known(result).get(name, math.nan)


def ends(result: Result) -> list[str]:
    """Where every seed sits."""
    said = result.summary.get("sits_at") or [None] * len(result.seeds)
    return [UNNAMED if place is None or place["name"] is None else place["name"] for place in said]


def share_at(result: Result, place: str) -> float:
    """Of the seeds, those that sit there."""
    return ends(result).count(place) / len(result.seeds)


def plot_shares(axes: "Axes", results: Sequence[Result], place: str) -> None:
    """A bar for the share of each run's seeds that sit at a place, by the width of the head."""
    marks.bars(axes, [str(width(result)) for result in results], [share_at(result, place) for result in results])
    where = place.replace(" solution", "")
    axes.set(xlabel="width", ylabel=f"share of seeds, {where}")


def gaps(result: Result, value: float) -> list[float]:
    """Of every seed's loss to a value, relative."""
    return [loss / value - 1 for loss in result.losses]


def sizes(result: Result) -> tuple[int, ...]:
    """n_k of the run's classes."""
    said = result.summary["problem"]
    each = said["samples_per_class"]
    return tuple(each) if isinstance(each, list) else (each,) * said["num_classes"]


def width(result: Result) -> int:
    """Dimensions of the features, which is the width of every hidden layer in most studies."""
    return result.summary["problem"]["widths"][0]


def weights(result: Result) -> list[Tensor]:
    """W_1..W_L, (S, out, in) each."""
    return [result.tensors[f"weights/{layer}"] for layer in range(1, result.summary["problem"]["depth"] + 1)]


def tables(study: str) -> Callable[[Sequence[Result]], dict[str, pd.DataFrame]]:
    """What makes the table of a study, by file name: one row per point and seed."""
    return lambda results: {study: seeds_table(results)}


def seeds_table(results: Sequence[Result]) -> pd.DataFrame:
    """Final loss of every seed, where it sits, and the least value that theory knows for its problem."""
    rows = []
    for result in results:
        lowest = min(known(result).values(), default=math.nan)
        for seed, loss, end in zip(result.seeds, result.losses, ends(result), strict=True):
            row = {"point": result.point.name, "seed": seed, "loss": loss, "sits_at": end}
            rows.append(row | {"lowest_reference": lowest, "gap_to_lowest": loss / lowest - 1})
    return pd.DataFrame(rows)
