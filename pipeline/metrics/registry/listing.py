"""The entries of the registry, all families loaded."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

from pipeline.metrics.registry.classes import CLASS
from pipeline.metrics.registry.entries import (
    FOREIGN,
    INPUTS,
    METRICS,
    ROW_SUMS,
    ROW_VALUES,
    STATISTICS,
    TEST,
    Metric,
    Named,
    RowSum,
    RowValue,
    Statistic,
)
from pipeline.metrics.registry.family import ALL, CORE, Family, check_families, families_of, is_optional
from pipeline.metrics.registry.of_classes import CLASS_VALUES, ClassValue
from pipeline.runtime.discovery import modules_in
from pipeline.runtime.suggestions import did_you_mean


def metrics() -> dict[str, Metric]:
    """All registered metrics by name, in the order in which they are recorded: family by family, as defined there.

    Raises:
        ValueError: if a formula takes something that is neither an input nor declared.
    """
    return dict(_listed().metrics)


def families() -> dict[str, Family]:
    """All families by name, "core" first."""
    return dict(_listed().families)


def of_families(names: Iterable[str] = (CORE,)) -> tuple[Metric, ...]:
    """The metrics of these families ("all": of every one), in the order in which they are recorded.

    Raises:
        ValueError: for an unknown family, or none at all.
    """
    known = families()
    names = check_families(names, known)
    members = {metric for name in (known if ALL in names else names) for metric in known[name].metrics}
    return tuple(metric for name, metric in metrics().items() if name in members)


def statistics() -> dict[str, Statistic]:
    """All declared statistics, by name."""
    _load()
    return dict(STATISTICS)


def row_sums() -> dict[str, RowSum]:
    """All declared sums over rows, by name."""
    _load()
    return dict(ROW_SUMS)


def row_values() -> dict[str, RowValue]:
    """All declared numbers of each row, by name."""
    _load()
    return dict(ROW_VALUES)


def class_values() -> dict[str, ClassValue]:
    """All registered values of each class, by name."""
    _load()
    return dict(CLASS_VALUES)


def class_values_of(names: Iterable[str]) -> tuple[ClassValue, ...]:
    """Those of these families ("all": of every one), in the order of the families."""
    known, names = families(), set(names)
    wanted = [name for name in known if ALL in names or name in names]
    own = [value for family in wanted for value in CLASS_VALUES.values() if value.family == family]
    return tuple(own)


def chosen(names: Iterable[str]) -> tuple[Metric, ...]:
    """The metrics of these names, in the order in which they are recorded.

    Raises:
        ValueError: for an unknown name, or none at all.
    """
    names, known = list(names), metrics()
    if not names:
        raise ValueError(f"metrics must name at least one of {', '.join(known)}, got none.")
    for name in names:
        if name not in known:
            raise ValueError(f"metrics must be among {', '.join(known)}, got {name!r}{did_you_mean(name, known)}.")
    return tuple(metric for name, metric in known.items() if name in names)


def entry(name: str) -> Metric | None:
    """The metric of this name, with or without the prefix of the test split and a suffix, or the value of a class; None
    if there is none."""
    of_class = class_values() if CLASS in name else {}
    return of_class.get(base_name(name)) or metrics().get(base_name(name))


def base_name(name: str) -> str:
    """The metric's name without the prefix of the test split, and without what it is of ("/group=...")."""
    return name.removeprefix(TEST).partition("/")[0]


def signature(names: Iterable[str] = (CORE,)) -> str:
    """Digest of the names and versions of all metrics of these families: what is kept under another one has to be
    measured anew."""
    names = tuple(names)
    facts = sorted(f"{metric.name} {metric.version}" for metric in of_families(names))
    facts += sorted(f"{value.name}{CLASS} {value.version}" for value in class_values_of(names))
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()


def table() -> str:
    """All metrics as a table in Markdown."""
    header = ("metric", "what it is", "at collapse", "takes", "family")
    rows = [header, tuple("---" for _ in header)]
    for metric in metrics().values():
        target = "" if metric.target is None else f"{metric.target:g}"
        rows.append(
            (f"`{metric.name}`", metric.summary or metric.title, target, ", ".join(metric.takes), metric.family)
        )
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows)


@cache
def _load() -> None:
    modules_in("pipeline.metrics")


@dataclass(frozen=True)
class _Listing:
    """All metrics in order, and their families, as they are while these are the entries."""

    entries: list[Named]
    metrics: dict[str, Metric]
    families: dict[str, Family]


_last: list[_Listing] = []


def _listed() -> _Listing:
    _load()
    entries = [entry for kind in (METRICS, STATISTICS, ROW_SUMS, ROW_VALUES, CLASS_VALUES) for entry in kind.values()]
    if not _last or _last[0].entries != entries:  # quick, as the same ones are the same objects
        _check()
        # Stable, so that a family keeps its own order, however its metrics came to be imported.
        # Those that are measured by default come first.
        in_order = dict(sorted(METRICS.items(), key=lambda item: (is_optional(item[1].family), item[1].family)))
        _last[:] = [_Listing(entries, in_order, families_of(in_order.values()))]
    return _last[0]


def _check() -> None:
    of_foreign = {f"{FOREIGN}{name}" for name in ROW_VALUES}
    known = {**INPUTS, **STATISTICS, **ROW_SUMS, **ROW_VALUES, **dict.fromkeys(of_foreign)}
    takes = [(metric.name, name) for metric in METRICS.values() for name in metric.takes]
    takes += [(value.name, name) for value in CLASS_VALUES.values() for name in value.takes]
    takes += [(sums.name, name) for sums in ROW_SUMS.values() for name in (*sums.instead_takes, *sums.prepare_takes)]
    takes += [(values.name, name) for values in ROW_VALUES.values() for name in values.prepare_takes]
    for owner, name in takes:
        if name not in known:
            hint = did_you_mean(name, known)
            raise ValueError(f"what {owner} takes must be among {', '.join(known)}, got {name!r}{hint}.")
