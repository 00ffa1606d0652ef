"""What a study is: named runs in several sizes, and what draws, tabulates and judges them."""

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import product
from typing import TYPE_CHECKING, Any

import pandas as pd

from pipeline.runtime.discovery import modules_in
from pipeline.studies.engine.claims import Claim, Measurement
from pipeline.studies.engine.results import Point, Result

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LONGEST = 150
"""Characters of a point's name; file systems take 255 bytes."""
FULL, CPU, QUICK = "full", "cpu", "quick"
VERSIONS = (FULL, CPU, QUICK)


def points_along(key: str, *values: Any, also: tuple[str, ...] = ()) -> tuple[Point, ...]:
    """One point per value of a setting, named after it (``depth_3``); ``also`` are overrides common to all of them."""
    return tuple(Point(f"{key.rpartition('.')[2]}_{value}", (f"{key}={value}", *also)) for value in values)


def shrunk(points: Sequence[Point], names: Sequence[str], overrides: tuple[str, ...]) -> tuple[Point, ...]:
    """The points of these names, made smaller by the overrides."""
    return tuple(replace(point, shrunk=overrides) for point in points if point.name in names)


def safe_name(text: str) -> str:
    """What a folder may be called: no brackets and quotes, and ``_`` for what is no letter, digit or ``._=+-``."""
    safe = re.sub(r"[^A-Za-z0-9._=+-]+", "_", re.sub(r"[][(){}'\"]", "", text)).strip("_.") or "run"
    return safe if len(safe) <= LONGEST else f"{safe[:LONGEST]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


@dataclass(frozen=True)
class Grid:
    """All combinations of some settings: what one Hydra multirun sweeps over.

    Attributes:
        name: begins the names of its points.
        axes: setting -> its values.
        fixed: overrides common to all points.
    """

    name: str
    axes: Mapping[str, Sequence[object]]
    fixed: tuple[str, ...] = ()

    def points(self, shrunk: Callable[[Mapping[str, object]], tuple[str, ...]] = lambda values: ()) -> list[Point]:
        """One point per combination, named after it; ``shrunk`` tells what a smaller version changes in it."""
        made = []
        for name, values in self._named():
            overrides = (*self.fixed, *(f"{key}={value}" for key, value in values.items()))
            made.append(Point(name, overrides, shrunk(values)))
        return made

    def _named(self) -> Iterator[tuple[str, dict[str, object]]]:
        for values in product(*self.axes.values()):
            chosen = dict(zip(self.axes, values, strict=True))
            parts = [self.name, *(f"{key.rpartition('.')[2]}_{value}" for key, value in chosen.items())]
            yield safe_name("-".join(filter(None, parts)).replace("experiment_", "")), chosen

    def without(self, done: Callable[[str], bool]) -> "Grid | None":
        """The smallest grid that holds all points whose names are not done; None if all are."""
        open_points = [values for name, values in self._named() if not done(name)]
        if not open_points:
            return None
        axes = {
            key: tuple(v for v in values if any(p[key] == v for p in open_points)) for key, values in self.axes.items()
        }
        return Grid(self.name, axes, self.fixed)

    def parts(self, wanted: Callable[[str], bool]) -> "list[Grid]":
        """Grids that together hold the points whose names are wanted, and no others."""
        rest = self.without(lambda name: not wanted(name))
        if rest is None:
            return []
        if all(wanted(name) for name, _ in rest._named()):
            return [rest]
        key = next(key for key, values in rest.axes.items() if len(values) > 1)
        each = (replace(rest, axes={**rest.axes, key: (value,)}) for value in rest.axes[key])
        return [part for grid in each for part in grid.parts(wanted)]

    @property
    def multirun(self) -> list[str]:
        """The arguments of the command that sweep over this grid."""
        return ["--multirun", *self.fixed, *(f"{key}={','.join(map(str, v))}" for key, v in self.axes.items())]


Draw = Callable[[Sequence[Result]], "dict[str, Figure]"]
Tables = Callable[[Sequence[Result]], dict[str, pd.DataFrame]]


@dataclass(frozen=True)
class Study:
    """A figure of a paper, or what we ask beyond it.

    Attributes:
        name: of its module and of its experiment file in ``conf/experiment/``.
        group: the command line's name for all studies of a kind.
        title: one line for ``--list``.
        versions: size -> its runs; a size that is not there is the full one.
        draw: results -> figures by file name.
        claims: results -> claims.
        measurements: results -> what is reported and neither promised nor ruled out.
        reasons: part of a claim's text -> why it does not hold, where it does not; what has none is open. They were
            found in the study's own runs, and are not told of variations.
        tables: results -> tables by file name.
        expectation: what the table of claims calls the column of what was to be expected.
        based: points that name no experiment begin with that of the study's name.
        kept_aside: a finished run of another configuration stays where it is, and the point's gets a folder beside it.
        grids: the full version as multiruns, for a Hydra launcher; none if it is not made of them.
    """

    name: str
    group: str
    title: str
    versions: Mapping[str, tuple[Point, ...]]
    draw: Draw = lambda results: {}
    claims: Callable[[Sequence[Result]], list[Claim]] = lambda results: []
    measurements: Callable[[Sequence[Result]], list[Measurement]] = lambda results: []
    reasons: Mapping[str, str] = field(default_factory=dict)
    tables: Tables = lambda results: {}
    expectation: str = "expected"
    based: bool = True
    kept_aside: bool = False
    grids: tuple[Grid, ...] = field(default=())

    @property
    def points(self) -> tuple[Point, ...]:
        """The runs of the full version."""
        return self.versions[FULL]

    def placed(self, error: Exception) -> Exception:
        """An error in the settings of a run of this study, as it is told."""
        return error

    def chosen(self, version: str) -> tuple[Point, ...]:
        """The runs of a version."""
        return self.versions.get(version, self.points)


@cache
def studies() -> dict[str, Study]:
    """All studies by name: the ``STUDY`` of every module of `pipeline.studies`; e2 before e10."""
    found = {}
    for module in modules_in("pipeline.studies"):
        name, study = module.__name__.rpartition(".")[2], getattr(module, "STUDY", None)
        if not isinstance(study, Study) or study.name != name:
            raise TypeError(
                f"{module.__name__} has no STUDY by its own name; allowed: STUDY = Study(name={name!r}, ...)"
            )
        found[name] = study
    return {name: found[name] for name in sorted(found, key=_natural)}


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"([0-9]+)", name)]
