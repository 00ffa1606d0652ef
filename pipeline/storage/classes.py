"""``classes.csv`` of a run: values of each class where classes are too many for the record.

A line for each class at each place, `stage,step,seed,layer,tap,class,name`, then a column for each value (`samples`,
`cos_intra`, `test_cos_intra`, ...), then `undefined`: why some of them are NaN. What was not measured at a place is
empty there. Of each place there is the last measurement alone: a table, no curves.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pipeline.metrics.registry.classes import CLASS
from pipeline.runtime.files import atomic
from pipeline.storage.reading import MOST_BYTES, Unreadable, check_file

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from torch import Tensor

FILE = "classes.csv"
SAMPLES = "samples"
LEFT_OUT = "the class is left out of the metrics"
"""Why a class has no values of which nothing else is said."""
PREFIX = "classes/"
"""Begins the names of tensors that a table is kept as."""
_PLACE = ("stage", "step", "seed", "layer", "tap", "class", "name")
_KINDS = {"stage": str, "layer": str, "tap": str, "name": str, "undefined": str}

Place = tuple[str, int, str, str]
"""(stage, seed, layer, tap)."""


class Part(NamedTuple):
    """What was measured of the classes of a place at a step: values `(K,)` by name, and reasons by `NAME/class=3`."""

    step: int
    values: dict[str, np.ndarray]
    reasons: dict[str, str]

    def why(self, number: int) -> str:
        """Which values of a class are not finite, and why."""
        told: dict[str, list[str]] = {}
        for name, values in self.values.items():
            if not math.isfinite(values[number]):
                told.setdefault(self.reasons.get(f"{name}{CLASS}{number}", LEFT_OUT), []).append(name)
        return "; ".join(f"{', '.join(names)}: {reason}" for reason, names in told.items())


@dataclass
class ClassTable:
    """The last values of each class, place by place; ``names`` of the classes, where they have any."""

    parts: dict[Place, Part] = field(default_factory=dict)
    names: Sequence[str] = ()

    def add(self, place: Place, step: int, values: Mapping[str, np.ndarray], reasons: Mapping[str, str]) -> None:
        """Take the place of what was measured there before."""
        self.parts[place] = Part(step, dict(values), dict(reasons))

    def kept(self) -> tuple[dict[str, Tensor], list[list[Any]]]:
        """The table as tensors ``(values, K)`` by name, and a plain description of each."""
        import numpy as np
        import torch

        tensors = {
            f"{PREFIX}{at}": torch.from_numpy(np.stack(list(part.values.values())))
            for at, part in enumerate(self.parts.values())
        }
        told = [[*place, part.step, list(part.values), part.reasons] for place, part in self.parts.items()]
        return tensors, told

    def save(self, folder: Path) -> None:
        """Write `FILE`; without values there is none, and an earlier one goes."""
        if not self.parts:
            (folder / FILE).unlink(missing_ok=True)
            return
        found = dict.fromkeys(name for part in self.parts.values() for name in part.values)
        columns = sorted(found, key=lambda name: name.startswith("test_"))
        with atomic(folder / FILE) as path, open(path, "w", encoding="utf-8", newline="") as stream:
            table = csv.writer(stream, lineterminator="\n")
            table.writerow([*_PLACE, *columns, "undefined"])
            for (stage, seed, layer, tap), part in self.parts.items():
                values = [_plain(name, part.values.get(name)) for name in columns]
                for number in range(len(next(iter(part.values.values())))):
                    cells = ["" if of_all is None else of_all[number] for of_all in values]
                    place = [stage, part.step, seed, layer, tap, number, self.name_of(number)]
                    table.writerow([*place, *cells, part.why(number)])

    def name_of(self, number: int) -> str:
        """The name of a class, or its number."""
        return self.names[number] if number < len(self.names) else str(number)


def _plain(name: str, values: np.ndarray | None) -> list[float] | list[int] | None:
    """Values as they are written; numbers of samples are whole."""
    if values is None:
        return None
    return values.astype("int64").tolist() if name.removeprefix("test_") == SAMPLES else values.tolist()


def parsed(tensors: Mapping[str, Tensor], told: Any) -> dict[Place, Part]:
    """What `ClassTable.kept` gave, from files that may hold anything else.

    Raises:
        KeyError, TypeError, ValueError: it is not that.
    """
    found: dict[Place, Part] = {}
    for at, (stage, seed, layer, tap, step, names, reasons) in enumerate(told):
        values = tensors[f"{PREFIX}{at}"].numpy()
        texts = [stage, layer, tap, *names, *reasons, *reasons.values()]
        if not all(isinstance(text, str) for text in texts) or not isinstance(seed, int) or not isinstance(step, int):
            raise TypeError("its values of classes are none")
        if values.ndim != 2 or values.dtype != "float64" or not names:
            raise ValueError("its values of classes are none")
        found[stage, seed, layer, tap] = Part(step, dict(zip(names, values, strict=True)), dict(reasons))
    return found


def read_classes(folder: Path) -> pd.DataFrame:
    """``classes.csv`` of a run folder, with text columns as text.

    Raises:
        FileNotFoundError: there is none: the run has few classes, or measured nothing of each.
        Unreadable: it is no such table.
    """
    import pandas as pd

    path = folder / FILE
    check_file(path, MOST_BYTES[".csv"])
    try:
        numbers = [name for name in pd.read_csv(path, nrows=0).columns if name not in (*_PLACE, "undefined")]
        missing = {name: ["nan", ""] for name in numbers}
        frame = pd.read_csv(path, dtype=_KINDS, keep_default_na=False, na_values=missing, index_col=False)
    except Exception as error:  # of a file that may be anything
        raise Unreadable(path, str(error) or type(error).__name__) from error
    if tuple(frame.columns[: len(_PLACE)]) != _PLACE:
        raise Unreadable(path, f"its columns do not begin with {', '.join(_PLACE)}")
    return frame
