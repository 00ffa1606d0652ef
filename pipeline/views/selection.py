"""Which runs are listed, and in which order."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from pipeline.runtime.errors import ConfigError
from pipeline.runtime.suggestions import did_you_mean
from pipeline.views.html.formatting import setting
from pipeline.views.html.runs import FATES, LocalRun
from pipeline.views.varying import full_key, known_settings, varied

LIKE = 0.75
"""Likeness from which on a setting is suggested: there are some hundred, and a short name is a little like many."""
SHOWN = 10
"""Names of columns, and of settings (first those in which the runs differ), that are told where none is meant."""
STATUSES = ("completed", *FATES, "unreadable", "not begun")


def chosen(
    runs: Sequence[LocalRun],
    *,
    status: Sequence[str] = (),
    where: Sequence[str] = (),
    limit: int | None = None,
    sort: str | None = None,
    reverse: bool = False,
) -> list[LocalRun]:
    """The runs that are asked for, in the order asked for: the latest first unless ``sort`` names a column.

    Args:
        status: what may have become of them; all if none is named.
        where: ``key=value`` pairs of settings that all have to hold.
        limit: at most so many.
        sort: a setting, a number of the headline, ``run``, ``status``, ``protocol`` or ``age``; ascending, runs that do
            not have it last.
        reverse: the other way round.

    Raises:
        ConfigError: names a status, a setting or a column that no run has.
    """
    _check_statuses(status)
    kept = [run for run in runs if not status or run.status in status]
    for pair in where:
        key, equals, value = pair.partition("=")
        if not equals:
            raise ConfigError(f"--where {pair} is not key=value; allowed: a setting and its value.")
        setting_of = _setting("--where", key, runs)
        kept = [run for run in kept if _same(setting_of(run), value)]
    if sort is not None:
        kept = _sorted(kept, runs, sort, reverse)
    else:
        kept = sorted(kept, key=lambda run: run.changed, reverse=not reverse)
    return kept[:limit]


def _sorted(kept: list[LocalRun], runs: Sequence[LocalRun], sort: str, reverse: bool) -> list[LocalRun]:
    facts: dict[str, Callable[[LocalRun], Any]] = {
        "run": lambda run: run.name,
        "status": lambda run: run.status,
        "protocol": lambda run: run.protocol,
        "age": lambda run: -run.changed,
    }
    labels = {entry.label.lower(): entry.name for run in runs for entry in run.headline}
    names = dict.fromkeys(entry.name for run in runs for entry in run.headline)
    name = labels.get(sort.lower(), sort)
    if sort in facts:
        value = facts[sort]
    elif name in names:
        value = lambda run: run.known_by(name)  # noqa: E731
    else:
        value = _setting("--sort", sort, runs, [*facts, *names])
    have = [run for run in kept if _orderable(value(run))]
    return sorted(have, key=lambda run: _order(value(run)), reverse=reverse) + [run for run in kept if run not in have]


def _orderable(value: Any) -> bool:
    return value is not None and not (isinstance(value, float) and math.isnan(value))


def _order(value: Any) -> tuple[bool, float, str]:
    """Numbers before words, each among themselves."""
    if isinstance(value, int | float):
        return False, float(value), ""
    return True, 0.0, setting(value)


def _check_statuses(status: Iterable[str]) -> None:
    for one in status:
        if one not in STATUSES:
            raise ConfigError(
                f"--status {one} is none{did_you_mean(one, STATUSES)}; allowed: {', '.join(STATUSES)} (with commas)."
            )


def _setting(option: str, name: str, runs: Sequence[LocalRun], also: Iterable[str] = ()) -> Callable[[LocalRun], Any]:
    """What gives the setting of a run that is meant by the name."""
    try:
        key = full_key(runs, name)
    except ValueError as several:
        raise ConfigError(f"{option} {name} could be {several}; allowed: one of them in full.") from None
    if key is None:
        hint = did_you_mean(name, [*also, *known_settings(runs)], cutoff=LIKE)
        every = dict.fromkeys(key for run in runs for key in run.settings)
        some = list(dict.fromkeys([*also, *(one.key for one in varied(runs)), *every]))
        more = f" (and {len(some) - SHOWN} more)" if len(some) > SHOWN else ""
        allowed = f"a setting{' or a column' * bool(also)}: {', '.join(some[:SHOWN])}{more}"
        raise ConfigError(f"{option} {name}: no run has it{hint}; allowed: {allowed}.")
    return lambda run: run.settings.get(key)


def _same(value: Any, text: str) -> bool:
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return float(text) == value
        except ValueError:
            return False
    return setting(value).replace(" ", "") == text.replace(" ", "")
