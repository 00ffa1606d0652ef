"""The run folder: the one source of every number shown anywhere.

    record.csv             tidy: stage,step,seed,layer,tap,metric,value
    classes.csv            values of each class, where classes are many (see `pipeline.storage.classes`)
    summary.json           what the run used, what it came to (title, headline, every section's part), environment
    tensors.safetensors    what the sections keep of the final state, e.g. labels, features/1 and weights/1..L of a head
    figures/  checkpoints/
    stages/                results of finished stages, while the run is not complete (see `pipeline.storage.stages`)

A file appears whole or not at all (temporary file, fsync, rename). ``summary.json`` is written first with status
``running`` and last with ``completed``, ``failed`` or ``interrupted``: anything but ``completed`` is an aborted run.

PyTorch and pandas are imported where they are used: whoever only looks at summaries need not wait for them.
"""

from __future__ import annotations

import csv
import json
import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pipeline.metrics.registry.classes import CLASS, FEW_CLASSES
from pipeline.runtime.files import atomic
from pipeline.runtime.settings import LARGEST_INTEGER
from pipeline.storage.classes import LEFT_OUT, ClassTable
from pipeline.storage.reading import MOST_BYTES, Unreadable, check_file
from pipeline.storage.summary import COMPLETED as COMPLETED
from pipeline.storage.summary import UNREADABLE, read

if TYPE_CHECKING:
    import pandas as pd

SCHEMA_VERSION = 2


class Row(NamedTuple):
    """One measured number.

    ``step`` counts what the summary's ``step_units`` say for the stage, e.g. epochs; ``layer`` and ``tap`` are empty
    for numbers of a whole network (losses, accuracy).
    """

    stage: str
    step: int
    seed: int
    layer: str
    tap: str
    metric: str
    value: float

    @property
    def key(self) -> str:
        """Its name in trackers: ``head/layer_2/post/dnc1``; layers that have names are called by them."""
        layer = f"layer_{self.layer}" if self.layer.isdecimal() else self.layer
        return "/".join(part for part in (self.stage, layer, self.tap, self.metric) if part)


@dataclass
class Record:
    """Rows as they are measured, mirrored to listeners (trackers) and kept in ``folder``.

    numbered: the stages whose layers are numbers, as those of a head are; elsewhere they have names.
    classes: values of each class where there are more than `FEW_CLASSES`; fewer have rows, as ``cos_intra/class=NAME``.
    asides: by stage and step, numbers for listeners alone, noted before that step's rows: how it was trained, which is
    no measurement.
    """

    folder: Path
    rows: list[Row] = field(default_factory=list)
    listeners: list[Callable[[list[Row]], None]] = field(default_factory=list)
    undefined: dict[tuple[str, str, str, str], str] = field(default_factory=dict)
    numbered: frozenset[str] = frozenset({"head"})
    asides: dict[tuple[str, int], dict[str, float]] = field(default_factory=dict)
    classes: ClassTable = field(default_factory=ClassTable)

    def add(
        self,
        stage: str,
        step: int,
        seeds: list[int],
        metrics: Mapping[str, Any],
        *,
        layer: str = "",
        tap: str = "",
        reasons: Mapping[str, str] | None = None,
    ) -> None:
        """Append one row per metric and seed.

        Args:
            metrics: name -> tensor or sequence of shape ``(len(seeds),)``, or ``(len(seeds), K)`` of each class, whose
                name ends with `CLASS`.
            reasons: name -> why the latest value of that metric is undefined (NaN).
        """
        of_classes = {name: values for name, values in metrics.items() if name.endswith(CLASS)}
        if of_classes:
            whole = {name: values for name, values in metrics.items() if name not in of_classes}
            metrics, reasons = self._with_classes(whole, (stage, step, layer, tap), seeds, of_classes, reasons or {})
        new = [
            Row(stage, step, seed, layer, tap, name, float(value))
            for name, values in metrics.items()
            for seed, value in zip(seeds, values, strict=True)
        ]
        for name in metrics:
            self.undefined.pop((stage, layer, tap, name), None)
        self.undefined |= {(stage, layer, tap, name): reason for name, reason in (reasons or {}).items()}
        self.rows.extend(new)
        for listener in self.listeners:
            listener(new)

    def _with_classes(
        self,
        metrics: Mapping[str, Any],
        place: tuple[str, int, str, str],
        seeds: list[int],
        of_classes: Mapping[str, Any],
        reasons: Mapping[str, str],
    ) -> tuple[dict[str, Any], dict[str, str]]:
        """Values and reasons for rows, with those of each class where they are few; those of many go into the table."""
        import numpy as np

        arrays = {name: np.asarray(values, dtype=np.float64) for name, values in of_classes.items()}
        told = {name: why for name, why in reasons.items() if CLASS in name}
        reasons, rows = {name: why for name, why in reasons.items() if name not in told}, dict(metrics)
        if next(iter(arrays.values())).shape[1] > FEW_CLASSES:
            stage, step, layer, tap = place
            for number, seed in enumerate(seeds):
                own = {name.removesuffix(CLASS): values[number] for name, values in arrays.items()}
                self.classes.add((stage, seed, layer, tap), step, own, told)
            return rows, reasons
        for name, values in arrays.items():
            for number, of_class in enumerate(values.T):
                own = f"{name}{self.classes.name_of(number)}"
                rows[own] = of_class
                if not np.isfinite(of_class).all():
                    reasons[own] = told.get(f"{name}{number}", LEFT_OUT)
        return rows, reasons

    def note(self, stage: str, step: int, **values: float) -> None:
        """Add to `asides`."""
        self.asides.setdefault((stage, step), {}).update(values)

    @property
    def noted(self) -> list[list[Any]]:
        """`asides` as a plain list: stage, step, name, value."""
        return [[*at, name, value] for at, values in self.asides.items() for name, value in values.items()]

    def note_again(self, noted: Any) -> None:
        """Add what `noted` gave, from a file that may hold anything else."""
        for entry in noted if isinstance(noted, list) else ():
            match entry:
                case [str(stage), int(step), str(name), float(value)]:
                    self.note(stage, step, **{name: value})

    def restore(self, rows: list[Row], undefined: Mapping[tuple[str, str, str, str], str]) -> None:
        """Append rows that an earlier attempt at this run had measured, and its reasons for undefined values."""
        self.undefined |= undefined
        self.rows.extend(rows)
        for listener in self.listeners:
            listener(rows)

    def save(self) -> None:
        """Write ``record.csv``, and ``classes.csv`` if there is one, with full precision; NaN is spelled ``nan``."""
        # By hand: a run without figures has no other use for pandas, which takes a third of PyTorch's time to load.
        with atomic(self.folder / "record.csv") as path, open(path, "w", encoding="utf-8", newline="") as stream:
            table = csv.writer(stream, lineterminator="\n")
            table.writerow(Row._fields)
            table.writerows(self.rows)
        self.classes.save(self.folder)

    def final_layers(self, stage: str, seeds: list[int]) -> list[dict[str, Any]]:
        """The last measurement of every (layer, tap): ``{layer, tap, metric: [value per seed], ...}``.

        Undefined values are None, with their reasons in ``undefined``; ``dnc3`` is None where no weight matrix is
        entered (pre-activations of layers >= 2 and backbone blocks).
        """
        groups: dict[tuple[str, str], list[Row]] = {}
        for row in self.rows:
            if row.stage == stage and row.layer != "":
                groups.setdefault((row.layer, row.tap), []).append(row)
        entries = []
        for (layer, tap), rows in groups.items():
            entry: dict[str, Any] = {"layer": int(layer) if stage in self.numbered else layer, "tap": tap, "dnc3": None}
            last: dict[str, dict[int, float]] = {}
            end = max(row.step for row in rows)
            for row in rows:
                if row.step == end:
                    last.setdefault(row.metric, {})[row.seed] = row.value
            entry |= {name: [finite_or_none(values[seed]) for seed in seeds] for name, values in last.items()}
            here = (stage, layer, tap)
            reasons = {name: why for (*where, name), why in self.undefined.items() if tuple(where) == here}
            entries.append(entry | ({"undefined": reasons} if reasons else {}))
        return entries

    def last(self, stage: str, metric: str) -> list[float | None] | None:
        """The last values, one per seed, of a number of the whole network; None if it was never recorded."""
        rows = [row for row in self.rows if row.stage == stage and row.metric == metric and row.layer == ""]
        return [finite_or_none(row.value) for row in rows if row.step == rows[-1].step] or None


def read_record(folder: Path) -> pd.DataFrame:
    """``record.csv`` of a run folder, with text columns as text.

    Raises:
        FileNotFoundError: there is none.
        Unreadable: it is no record (see `pipeline.storage.reading`).
    """
    import pandas as pd

    path = folder / "record.csv"
    check_file(path, MOST_BYTES[".csv"])
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # of lines that are too long, and columns of several types
            frame = pd.read_csv(
                path,
                dtype={"stage": str, "layer": str, "tap": str, "metric": str},
                keep_default_na=False,
                na_values={"value": ["nan"]},
                index_col=False,
            )
    except Exception as error:  # of a file that may be anything
        raise Unreadable(path, str(error) or type(error).__name__) from error
    if why := _no_record(frame):
        raise Unreadable(path, why)
    return frame.astype({"step": int, "seed": int, "value": float}) if frame.empty else frame


def _no_record(frame: pd.DataFrame) -> str | None:
    """What is wrong with a table that should hold `Row`."""
    if list(frame.columns) != list(Row._fields):
        return f"its columns are not {', '.join(Row._fields)}"
    if frame.empty:
        return None
    for name in ("step", "seed"):
        if frame[name].dtype != "int64" or not frame[name].between(0, LARGEST_INTEGER).all():
            return f"a {name} is no integer from 0 to 2^53"
    if frame["value"].dtype not in ("float64", "int64"):
        return "a value is no number"
    return None


def finite_or_none(value: float) -> float | None:
    """JSON has no NaN or infinity."""
    return float(value) if math.isfinite(value) else None


def read_summary(folder: Path) -> dict[str, Any] | None:
    """``summary.json`` of a run folder; None where there is none or it is unreadable."""
    found = read(folder)
    return None if found.status == UNREADABLE or not found.written else dict(found.written)


def write_summary(folder: Path, summary: Mapping[str, Any]) -> None:
    """Write ``summary.json`` as strict JSON (no NaN).

    Raises:
        ValueError: a value is NaN or infinite.
    """
    with atomic(folder / "summary.json") as path:
        path.write_text(json.dumps(summary, indent=2, allow_nan=False) + "\n")
