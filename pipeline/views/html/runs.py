"""Run folders as values: found below a folder, read from their files, whatever became of the run."""

import math
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.runtime.errors import ConfigError
from pipeline.runtime.lock import occupied
from pipeline.storage.index import KeptRun, kept_runs
from pipeline.storage.reading import Unreadable
from pipeline.storage.record import read_record
from pipeline.storage.settings_files import CONFIG, HYDRA, OVERRIDES, kept_config, kept_hydra, kept_overrides
from pipeline.storage.summary import FILE, UNREADABLE, Headline, RunSummary, read
from pipeline.views.html.formatting import flat

if TYPE_CHECKING:
    import pandas as pd

FATES = {
    "running": "is running",
    "killed": "was killed",
    "failed": "failed",
    "interrupted": "was interrupted",
}
LARGEST_SHOWN = 1e300
"""Of finite numbers in a record: sums of a few are finite, too."""
DEEPEST = 40
"""Folders within folders that are looked into."""


@dataclass(frozen=True)
class LocalRun:
    """One run folder.

    name: what it is called among the runs it is shown with. kept: what an index of many runs holds of it. Files that
    are absent read as empty, and so do unreadable ones: `unreadable` then says why. Nothing in them is resolved: a page
    that is shown to others holds no secrets of whoever makes it.
    """

    folder: Path
    name: str
    kept: KeptRun | None = field(default=None, repr=False, compare=False)

    def called(self, name: str) -> "LocalRun":
        """The same run under another name; what was read of it is not read again."""
        other = copy(self)
        object.__setattr__(other, "name", name)
        return other

    @cached_property
    def summary(self) -> RunSummary:
        """``summary.json``."""
        return RunSummary(self.kept.summary) if self.kept else read(self.folder)

    @cached_property
    def config(self) -> Mapping[str, Any]:
        """``.hydra/config.yaml``, nested."""
        return (self.kept.config if self.kept else self._settings[CONFIG][0]) or {}

    @cached_property
    def settings(self) -> Mapping[str, Any]:
        """The configuration, flat: ``head.depth``."""
        return flat(self.config)

    @cached_property
    def hydra(self) -> Mapping[str, Any]:
        """Hydra's own settings of the run (``.hydra/hydra.yaml``); of an indexed run, where it was started."""
        return (self.kept.hydra if self.kept else self._settings[HYDRA][0]) or {}

    @cached_property
    def overrides(self) -> list[str] | None:
        """``.hydra/overrides.yaml``; None where there is none: the run was not started by the command."""
        return self.kept.overrides if self.kept else self._settings[OVERRIDES][0]

    @cached_property
    def _settings(self) -> dict[Path, tuple[Any, str | None]]:
        """What Hydra keeps, each with why it cannot be used."""
        readers = {CONFIG: kept_config, HYDRA: kept_hydra, OVERRIDES: kept_overrides}
        return {file: _or_why(reader, self.folder) for file, reader in readers.items()}

    @cached_property
    def unreadable(self) -> str | None:
        """Which file of the summary and the settings cannot be used, and why; None if all can."""
        if self.kept:
            return None
        if self.summary.status == UNREADABLE:
            return self.summary.error
        return next((f"{file}: {why}" for file, (_, why) in self._settings.items() if why), None)

    @property
    def status(self) -> str:
        """What became of it, in a word."""
        return UNREADABLE if self.unreadable else status_of(self.folder, self.summary.status)

    @property
    def completed(self) -> bool:
        """Whether the summary holds closing numbers, and all is there to read them by."""
        return self.summary.completed and not self.unreadable

    @property
    def error(self) -> str | None:
        """Why it did not complete, in its own words, or why it is unreadable."""
        return self.unreadable or self.summary.error

    @property
    def protocol(self) -> str:
        """Name of the protocol; empty if nothing says it."""
        return self.summary.protocol or str(self.group("protocol").get("name") or "")

    def group(self, name: str) -> Mapping[str, Any]:
        """A group of the configuration; empty where there is none."""
        found = self.config.get(name)
        return found if isinstance(found, dict) else {}

    @property
    def subject(self) -> str:
        """Data set and network, as ``digits / mlp``; what a head without them has instead; empty where no summary says
        which of these there were, because a configuration names them all."""
        if self.summary.status in (UNREADABLE, None):
            return ""
        uses = self.summary.uses
        if uses.head and not uses.images and not uses.network:
            sizes = self.group("protocol") | (self.summary.written.get("problem") or {})
            if targets := sizes.get("targets_matrix"):
                return f"free features, targets {targets}, N={sizes.get('num_samples', '?')}"
            return f"free features, K={sizes.get('num_classes', '?')}, n={sizes.get('samples_per_class', '?')}"
        groups = ["data"] * uses.images + ["backbone"] * uses.network
        return " / ".join(filter(None, (str(self.group(group).get("name") or "") for group in groups)))

    @property
    def title(self) -> str:
        """The run in one sentence: the verdict where there is one, or why the run came to none."""
        if self.completed:
            return self.summary.title or f"the run {self.protocol} completed"
        return f"no verdict: the run {self.fate}" + (f" ({self.error})" if self.error else "")

    @property
    def fate(self) -> str:
        """The status as the predicate of a sentence."""
        return FATES.get(self.status, f"is {self.status}")

    @property
    def headline(self) -> tuple[Headline, ...]:
        """What the run is known by; nothing unless it completed."""
        return self.summary.headline if self.completed else ()

    def known_by(self, name: str) -> float | str | None:
        """A value of the headline."""
        return next((one.value for one in self.headline if one.name == name), None)

    @property
    def changed(self) -> float:
        """When the folder last heard of the run (seconds since 1970)."""
        for file in (FILE, CONFIG, ""):
            try:
                return (self.folder / file).stat().st_mtime
            except OSError:
                continue
        return 0.0

    def record(self) -> "tuple[pd.DataFrame | None, str | None]":
        """``record.csv`` as a table, or None and why there is none."""
        if not (self.folder / "record.csv").is_file():
            return None, "the run has no record.csv: it ended before its record was written, or goes on"
        try:
            frame = read_record(self.folder).astype({"value": float})
        except (OSError, Unreadable) as error:
            return None, str(error)
        return frame.assign(value=frame.value.where(frame.value.abs() < LARGEST_SHOWN, math.nan)), None


def status_of(folder: Path, status: str | None) -> str:
    """What became of the run in ``folder`` whose summary says ``status``; the only place that decides if one is alive.

    A run that was killed had no time to say so, and its summary still reads ``running``; its lock is gone. (Where
    the file system does not pass locks on to other machines, a run on another one is taken for killed.)
    """
    return "killed" if status == "running" and not occupied(folder) else status or "not begun"


def is_run(folder: Path) -> bool:
    """Whether a run was begun in this folder."""
    if _is_there(folder / CONFIG):
        if _is_there(folder / FILE):
            return True
        config, why = _or_why(kept_config, folder)
        return bool(why) or "protocol" in (config or {})
    summary = read(folder)
    if summary.status == UNREADABLE:
        return _is_there(folder / "record.csv")
    return {"status", "protocol"} <= summary.written.keys()


def find_runs(folder: Path) -> Iterator[Path]:
    """Run folders at and below ``folder``, in natural order; what lies within a run is not looked at."""
    waiting = [(folder, 0)]
    while waiting:
        here, depth = waiting.pop()
        if is_run(here):
            yield here
        elif depth < DEEPEST:
            waiting += [(entry, depth + 1) for entry in reversed(_below(here))]


def _below(folder: Path) -> list[Path]:
    """Folders in a folder that may hold runs, in natural order."""
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return []
    return [folder / name for name in sorted(names, key=_natural) if not name.startswith(".")]


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:
        return False


def _or_why(reader: Callable[[Path], Any], folder: Path) -> tuple[Any, str | None]:
    """What a reader finds in a run folder, and why that is nothing if it cannot be used."""
    try:
        return reader(folder), None
    except Unreadable as error:
        return None, error.why


def runs_below(folder: Path) -> list[LocalRun]:
    """The runs at and below a folder, in natural order, each named like its folder; by its index, if they are many."""
    paths = list(find_runs(folder))
    kept = kept_runs(folder, paths) if folder not in paths else {}
    return [LocalRun(path, path.name, kept.get(path)) for path in paths]


def open_runs(folders: Sequence[Path]) -> list[LocalRun]:
    """The runs at and below the given folders, each once, named by the path below what they have in common.

    Raises:
        ConfigError: a folder does not exist, or no run lies in it.
    """
    found: dict[Path, LocalRun] = {}
    for folder in folders:
        if not folder.is_dir():
            raise ConfigError(f"{folder} is {'not a folder' if folder.exists() else 'not there'}; allowed: {_ALLOWED}.")
        runs = runs_below(folder.resolve())
        if not runs:
            raise ConfigError(f"{folder} is no run's folder and none lies below it; allowed: {_ALLOWED}.")
        found |= {run.folder: run for run in runs}
    paths = list(found)
    shared = Path(os.path.commonpath(paths)) if len(paths) > 1 else paths[0].parent
    return [run.called(str(run.folder.relative_to(shared))) for run in found.values()]


def open_run(folder: Path) -> LocalRun:
    """The run in this very folder.

    Raises:
        ConfigError: there is none.
    """
    if not is_run(folder):
        raise ConfigError(f"{folder} is no run's folder; allowed: a folder that holds a run's summary.json.")
    return LocalRun(folder.resolve(), str(folder))


_ALLOWED = "the folder of a run, or of a multirun"


def _natural(name: str) -> list[tuple[int, str]]:
    """Sort key by which job 10 follows job 9."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"([0-9]+)", name)]
