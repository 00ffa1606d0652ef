"""Families of metrics: the files they stand in, and which of them are measured unless others are asked for."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.runtime.sources import called, decorated
from pipeline.runtime.suggestions import did_you_mean

if TYPE_CHECKING:
    from pipeline.metrics.registry.entries import Metric

CORE, ALL = "core", "all"
"""The families that are measured by default, and every one whose inputs are given."""

_optional: set[str] = set()


@dataclass(frozen=True)
class Family:
    """The metrics of one file.

    Attributes:
        name: of the file, without its ending.
        summary: the first line of its docstring.
        optional: whether it is measured only if it is asked for; otherwise it belongs to "core".
        metrics: their names.
    """

    name: str
    summary: str
    optional: bool
    metrics: tuple[str, ...]


def optional(module: str) -> None:
    """Say of a file of metrics, as `optional(__name__)` in it, that it is measured only if it is asked for."""
    _optional.add(module.rpartition(".")[2])


def is_optional(family: str) -> bool:
    """Whether a family has to be asked for."""
    return family in _optional


def families_of(metrics: Iterable[Metric]) -> dict[str, Family]:
    """The families of these metrics by name: first "core", whose files are not optional, then the optional ones."""
    members: dict[str, list[Metric]] = {CORE: []}
    for metric in metrics:
        members.setdefault(metric.family if metric.family in _optional else CORE, []).append(metric)
    return {
        name: Family(name, _summary(name, own), name != CORE, tuple(metric.name for metric in own))
        for name, own in members.items()
    }


def metric_names() -> dict[str, tuple[str, ...]]:
    """The names of all metrics, family by family as in `families_of`, read from the files: none of them is imported."""
    optional_ones = called("pipeline.metrics", optional.__name__)
    found: dict[str, tuple[str, ...]] = {CORE: ()}
    for file, names in decorated("pipeline.metrics", "metric").items():
        family = file if file in optional_ones else CORE
        found[family] = found.get(family, ()) + names
    return {family: names for family, names in found.items() if names or family == CORE}


def known_families() -> tuple[str, ...]:
    """The names that a choice of families may hold."""
    return (*metric_names(), ALL)


def _summary(name: str, own: list[Metric]) -> str:
    modules = [sys.modules.get(metric.formula.__module__) for metric in own if metric.family == name]
    text = getattr(next(iter(modules), None), "__doc__", None) or ""
    return text.strip().partition("\n")[0].rstrip(".")


def check_families(names: Iterable[str], known: Iterable[str]) -> tuple[str, ...]:
    """The names as a tuple.

    Raises:
        ValueError: for none, a string in place of a list, or an unknown one; names the nearest.
    """
    allowed = [*known, ALL]
    if isinstance(names, str):
        raise ValueError(f"families must be a list of {', '.join(allowed)}, got the text {names!r}.")
    names = tuple(names)
    if not names:
        raise ValueError(f"families must name at least one of {', '.join(allowed)}, got none.")
    for name in names:
        if name not in allowed:
            raise ValueError(f"families must be among {', '.join(allowed)}, got {name!r}{did_you_mean(name, allowed)}.")
    return names
