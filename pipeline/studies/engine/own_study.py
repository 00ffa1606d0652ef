"""A study of the user's own (`own_file`) as a `Study`: it is planned, run, drawn and judged like any other."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import yaml

from pipeline.config.messages import explain
from pipeline.metrics.registry import metrics
from pipeline.runtime.errors import ConfigError
from pipeline.studies.engine.own_figures import FIGURES, Points, draw
from pipeline.studies.engine.own_file import Spec, experiments, read_spec
from pipeline.studies.engine.own_tables import TABLES, claims, tables
from pipeline.studies.engine.results import Point
from pipeline.studies.engine.study import FULL, VERSIONS, Grid, Study, safe_name, studies

GROUP = "own"


@dataclass(frozen=True)
class OwnStudy(Study):
    """A study with the file that it was read from, and the values of its points."""

    spec: Spec | None = None

    def placed(self, error: Exception) -> Exception:
        """The error with the file and the line that says the setting it is about."""
        sentence, spec = explain(error), self.spec
        key = max((key for key in spec.lines if _begins(sentence, key)), key=len, default=None)
        node = spec.lines.get(key)
        for item in node.value if isinstance(node, yaml.SequenceNode) else ():
            if isinstance(item, yaml.ScalarNode) and _begins(sentence, f"{key}={item.value}"):
                node = item
        return ConfigError(f"{spec.file.place(node)}: {sentence}")


def _begins(sentence: str, start: str) -> bool:
    return re.match(rf"'?{re.escape(start)}(?![\w.])", sentence) is not None


def own_study(path: Path) -> OwnStudy:
    """The study that a file describes, with its configurations checked.

    Raises:
        ConfigError: naming the file, the line and what is allowed there.
    """
    registered = studies()
    allowed = {"figures": FIGURES, "tables": TABLES, "version": VERSIONS, "study": list(registered)}
    spec = read_spec(path, allowed | {"experiment": experiments(), "expect": sorted(metrics())})
    taken = [*registered, *(study.group for study in registered.values()), GROUP]
    if spec.name in taken:
        spec.refuse(None, f"{spec.name} is the name of a study or group; allowed: another name of the file.")
    study = _variation(spec, registered[spec.study]) if spec.study else _of_axes(spec)
    for point in study.points:
        if sum(point.name == other.name for other in study.points) > 1:
            spec.refuse(
                None, f"several runs are called {point.name}; allowed: values that differ in letters or digits."
            )
    return study


def _of_axes(spec: Spec) -> OwnStudy:
    """All combinations of the axes; those of plain settings are a Hydra multirun for each of the cases."""
    plain = {axis: values for axis, values in spec.axes.items() if _is_plain(axis, values)}
    named = {axis: values for axis, values in spec.axes.items() if axis not in plain}
    begin = [] if spec.experiment is None else [f"experiment={spec.experiment}"]
    begin += [f"{key}={text}" for key, text in spec.settings.items()]
    grids, points, chosen = [], [], {}
    for labels in product(*named.values()):
        cases = dict(zip(named, labels, strict=True))
        own = [override for axis, label in cases.items() for override in named[axis][label]]
        grid = Grid("-".join(labels), {axis: tuple(values) for axis, values in plain.items()}, (*begin, *own))
        grids.append(grid)
        for point, values in zip(grid.points(), product(*plain.values()), strict=True):
            points.append(point)
            at = cases | dict(zip(plain, values, strict=True))
            chosen[point.name] = {axis: at[axis] for axis in spec.axes}
    return OwnStudy(
        name=spec.name,
        group=GROUP,
        title=spec.title or f"{len(points)} runs of {spec.file.path.name}",
        versions={FULL: tuple(points)},
        draw=lambda results: draw(spec, Points(results, chosen)),
        claims=lambda results: claims(spec, Points(results, chosen)),
        tables=lambda results: tables(spec, Points(results, chosen)),
        based=False,
        kept_aside=True,
        grids=tuple(grids),
        spec=spec,
    )


def _is_plain(axis: str, values: Mapping[str, tuple[str, ...]]) -> bool:
    return all(overrides == (f"{axis}={label}",) for label, overrides in values.items())


def _variation(spec: Spec, base: Study) -> OwnStudy:
    """A registered study with other settings: its figures, tables and claims, of its points without duplicates."""
    for key, asked in (("figures", spec.figures), ("tables", spec.tables), ("expect", spec.expect)):
        if asked:
            spec.refuse(spec.lines.get(key), f"{key} of a variation are those of {base.name}; allowed: without {key}.")
    points = []
    for labels in product(*spec.axes.values()):
        own = dict(spec.settings)
        for axis, label in zip(spec.axes, labels, strict=True):
            own |= dict(override.partition("=")[::2] for override in spec.axes[axis][label])
        chosen = zip(spec.axes, labels, strict=True)
        name = "-".join(safe_name(f"{axis.rpartition('.')[2]}_{label}") for axis, label in chosen)
        points += [_varied(point, base, own, name) for point in base.chosen(spec.version)]
    unique = tuple(dict.fromkeys(points))

    def renamed(made: Mapping[str, object]) -> dict:
        return {f"{spec.name}{name.removeprefix(base.name)}": each for name, each in made.items()}

    return OwnStudy(
        name=spec.name,
        group=GROUP,
        title=spec.title or f"a variation of {base.name}",
        versions={FULL: unique},
        draw=lambda results: {} if spec.figures == () else renamed(base.draw(results)),
        claims=base.claims,
        measurements=base.measurements,
        tables=lambda results: {} if spec.tables == () else renamed(base.tables(results)),
        expectation=base.expectation,
        based=False,
        kept_aside=True,
        spec=spec,
    )


def _varied(point: Point, base: Study, settings: Mapping[str, str], name: str) -> Point:
    """The point with the settings, but for those that make it what it is: which not all points of the study choose."""
    everywhere = set.intersection(*({_key(each) for each in other.overrides} for other in base.points))
    own = {key: text for key, text in settings.items() if key in everywhere or key not in map(_key, point.overrides)}
    kept = tuple(each for each in point.overrides if _key(each) not in own)
    begin = () if any(_key(each) == "experiment" for each in point.overrides) else (f"experiment={base.name}",)
    gone = {f"{_key(each).rpartition('.')[2]}_{each.partition('=')[2]}" for each in point.overrides if each not in kept}
    parts = [part for part in point.name.split("-") if part not in gone]
    added = tuple(f"{key}={text}" for key, text in own.items())
    return Point("-".join(filter(None, [*parts, name])) or "run", (*begin, *kept), (*point.shrunk, *added))


def _key(override: str) -> str:
    return override.partition("=")[0]
