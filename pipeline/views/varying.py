"""Settings in which runs differ: what tells the jobs of a sweep apart."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.views.html.formatting import setting
from pipeline.views.html.runs import LocalRun

SUBJECTS = ("protocol.name", "data.name", "backbone.name")
"""Settings that a run is known by anyway."""
SEED = "seed"
ASIDE = ("logger", "hydra", "resume", "protocol=", "data=", "backbone=")
"""Sections that say nothing of a result, and groups that stand among the settings by their names."""


@dataclass(frozen=True)
class Varied:
    """A setting that is not the same in all runs.

    Attributes:
        key: as on the command line.
        label: its last part, or the whole key where two settings end alike.
        values: of each run; None where a run does not have it.
    """

    key: str
    label: str
    values: tuple[Any, ...]

    @property
    def same(self) -> bool:
        """Whether all the values are one."""
        return len({_comparable(value) for value in self.values}) == 1

    def texts(self) -> list[str]:
        """The values as one would write them; an empty text where a run does not have the setting."""
        return ["" if value is None else setting(value) for value in self.values]


def varied(runs: Sequence[LocalRun]) -> list[Varied]:
    """Settings that differ between runs, the one with the most values first; seeds, which only repeat a run, last.

    Those that a command line said count and, where these do not tell the runs apart, all others too; but not between
    runs of different kinds, which differ in dozens of settings that say no more than the kind does.
    """
    said = [_said(run) for run in runs]
    configs = [run.settings for run in runs]
    found = _differing((*SUBJECTS, *(key for one in said for key in one)), configs, said)
    told_apart = len(set(zip(*(map(_comparable, values) for values in found.values()), strict=True))) == len(runs)
    if not told_apart and not found.keys() & set(SUBJECTS):
        found |= _differing((key for config in configs for key in config), configs, said)
    ends = Counter(_end(key) for key in found)
    made = [Varied(key, _end(key) if ends[_end(key)] == 1 else key, values) for key, values in found.items()]
    return sorted(made, key=lambda one: (one.key == SEED, -len({_comparable(value) for value in one.values})))


def _differing(
    keys: Iterable[str], configs: Sequence[Mapping[str, Any]], said: Sequence[Mapping[str, Any]]
) -> dict[str, tuple[Any, ...]]:
    found = {}
    for key in dict.fromkeys(keys):
        if re.split(r"[./]", key)[0] not in ASIDE and f"{key}=" not in ASIDE:
            values = [config.get(key, one.get(key)) for config, one in zip(configs, said, strict=True)]
            if len({_comparable(value) for value in values}) > 1:
                found[key] = tuple(values)
    return found


def _end(key: str) -> str:
    """The last part of a key that says something: ``protocol`` of ``protocol.name``."""
    return key.removesuffix(".name").rpartition(".")[2]


def _said(run: LocalRun) -> dict[str, Any]:
    """What the command line of a run set, by key."""
    pairs = (override.lstrip("+~").partition("=") for override in run.overrides or ())
    return {key: value for key, equals, value in pairs if equals}


def _comparable(value: Any) -> str:
    return repr(float(value)) if isinstance(value, int | float) and not isinstance(value, bool) else repr(value)


def full_key(runs: Sequence[LocalRun], name: str) -> str | None:
    """The setting that is meant by its key or the last part of it; None if no run has such a setting.

    Groups stand for their names (``protocol`` is ``protocol.name``). Of several settings that end alike the one that
    differs between the runs is meant.

    Raises:
        ValueError: it could be any of several, which the message lists.
    """
    keys = dict.fromkeys(key for run in runs for key in run.settings)
    for key in (name, f"{name}.name"):
        if key in keys:
            return key
    ending = [key for key in keys if key.endswith(f".{name}")]
    if len(ending) > 1:
        differing = {one.key for one in varied(runs)}
        ending = [key for key in ending if key in differing] or ending
    if len(ending) > 1:
        raise ValueError(", ".join(ending))
    return ending[0] if ending else None


def known_settings(runs: Sequence[LocalRun]) -> Mapping[str, None]:
    """All names that `full_key` knows."""
    keys: dict[str, None] = {}
    for run in runs:
        for key in run.settings:
            keys |= dict.fromkeys((key, key.removesuffix(".name"), key.rpartition(".")[2]))
    return keys
