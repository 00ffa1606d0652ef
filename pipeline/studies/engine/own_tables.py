"""Tables and claims of a study of the user's own."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import nan
from typing import Any

import pandas as pd

from pipeline.studies.engine.claims import Claim, at_most
from pipeline.studies.engine.own_file import Spec
from pipeline.studies.engine.results import Result

TABLES = ("runs", "layers")
SEED = "seed"
LAST = ("dnc1", "dnc2", "dnc3", "test_dnc1", "test_dnc2", "test_dnc3")


@dataclass(frozen=True)
class Points:
    """Results with what each point chose: its name -> axis -> value."""

    results: Sequence[Result]
    chosen: Mapping[str, Mapping[str, str]]

    def at(self, result: Result) -> Mapping[str, str]:
        """What the point of a result chose."""
        return self.chosen[result.point.name]

    def groups(self) -> dict[str, list[Result]]:
        """The results of each setting, which differ in their seeds, by a name for it; of settings that share their runs
        the first."""
        found: dict[str, list[Result]] = {}
        for result in self.results:
            at = self.at(result)
            name = ", ".join(f"{axis.rpartition('.')[2]} {value}" for axis, value in at.items() if axis != SEED)
            found.setdefault(name or "all runs", []).append(result)
        runs = {name: tuple(result.folder for result in own) for name, own in found.items()}
        first = {folders: name for name, folders in reversed(runs.items())}
        return {name: found[name] for name in runs if first[runs[name]] == name}


def places(result: Result) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(stage, what was measured there at the end) of every layer, in the order of data flow; none of a failed run."""
    if result.completed:
        for stage, key in (("backbone", "backbone_layers"), ("head", "layers")):
            for row in result.summary.get(key) or []:
                yield stage, row


def last_values(result: Result, metric: str) -> list[float]:
    """The metric of the last layer that has it, per seed of the run; NaN where it is undefined or not measured."""
    found = [row[metric] for _, row in places(result) if row.get(metric) is not None]
    return [nan if value is None else value for value in found[-1]] if found else [nan] * len(result.seeds)


def tables(spec: Spec, points: Points) -> dict[str, pd.DataFrame]:
    """Those asked for, by file name."""
    made = {"runs": (spec.name, runs_table), "layers": (f"{spec.name}_layers", layers_table)}
    return {made[name][0]: made[name][1](points) for name in (TABLES if spec.tables is None else spec.tables)}


def runs_table(points: Points) -> pd.DataFrame:
    """One row per run and seed: what was chosen, how it ended, loss, accuracy, and the last layer."""
    rows = []
    for result in points.results:
        accuracy, gaps = result.summary.get("accuracy") or {}, (result.summary.get("loss") or {}).get("relative_gap")
        columns = {
            "loss": _losses(result),
            "relative_gap": gaps,
            **{f"{split}_accuracy": accuracy.get(split) for split in ("train", "test")},
            **{metric: last_values(result, metric) for metric in LAST},
        }
        for place, seed in enumerate(result.seeds):
            values = {name: _value(found, place) for name, found in columns.items()}
            made = {"run": result.folder.name, "failure": result.failure, "seed_of_run": seed}
            seconds = sum((result.summary.get("timings") or {}).values())
            rows.append({"point": result.point.name, **points.at(result), **made, **values, "seconds_of_run": seconds})
    return pd.DataFrame(rows)


def _losses(result: Result) -> Sequence[float | None] | None:
    return (result.summary.get("loss") or {}).get("total") if result.completed else None


def _value(found: Sequence[float | None] | None, place: int) -> float:
    """Of a list per seed, or of one value for all of them."""
    values = found or [None]
    value = values[place] if place < len(values) else values[0] if len(values) == 1 else None
    return nan if value is None else value


def layers_table(points: Points) -> pd.DataFrame:
    """One row per point, place and metric at the end: smallest, median and largest value over the run's seeds."""
    rows = []
    for result in points.results:
        for stage, row in places(result):
            where = {"stage": stage, "layer": row["layer"], "tap": row["tap"]}
            for metric, found in row.items():
                column = pd.Series(found if isinstance(found, list) else [], dtype=float).dropna()
                if len(column):
                    spread = {"min": column.min(), "median": column.median(), "max": column.max()}
                    point = {"point": result.point.name, **points.at(result)}
                    rows.append({**point, **where, "metric": metric, **spread})
    return pd.DataFrame(rows, columns=None if rows else ["point", "stage", "layer", "tap", "metric", "median"])


def claims(spec: Spec, points: Points) -> list[Claim]:
    """What the file expects of the last layer, setting by setting, every seed."""
    return [
        at_most(f"{name}: {metric} of the last layer", [v for r in own for v in last_values(r, metric)], bound)
        for name, own in points.groups().items()
        for metric, bound in spec.expect.items()
    ]
