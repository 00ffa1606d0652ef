"""What lists need of many runs, kept beside them in one hidden file: reading thousands of run folders takes a minute.

An entry stands for the files of one run as they were when they were read: their inodes, sizes and times of change. If
any of these is another now, the run is read again. The file is a cache: it may be removed at any time, is written whole
or not at all, not where the folder cannot be written, and is made anew where it makes no sense. As it may be a
stranger's like the runs beside it, what is taken from it is checked as what is read from them is.
"""

import hashlib
import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.runtime.files import atomic
from pipeline.storage import settings_files as settings
from pipeline.storage import summary
from pipeline.storage.parts import Parts
from pipeline.storage.reading import Unreadable, not_plain, text_of
from pipeline.storage.shapes import fault
from pipeline.storage.summary_shape import SUMMARY, lacks

FILE = ".dnc.index"
FORM = 2
"""Of the file; one of another form is made anew."""
FEWEST = 20
"""Runs that the file is not written for: reading them takes a fifth of a second."""
SETTLED_NS = 2 * 10**9
"""A file that changed later than this before it was read could change again without being seen to."""
LEFT_OUT = frozenset({"layers", "backbone_layers", "environment", "references", "sits_at", "timings", "training"})
"""Parts of a summary that no list shows; whoever asks for one has the summary read."""
_written = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode
MAKES_NO_SENSE = (AttributeError, IndexError, KeyError, TypeError, ValueError, RecursionError)
"""What comes of an index that is none."""


class KeptRun(NamedTuple):
    """What an index holds of a run all of whose files can be used."""

    summary: Mapping[str, Any]
    config: Mapping[str, Any] | None
    overrides: list[str] | None
    hydra: Mapping[str, Any] | None


def kept_runs(folder: Path, runs: Iterable[Path]) -> dict[Path, KeptRun]:
    """What the index in ``folder`` holds of the runs below it; if it lacks many, after having read these.

    Runs that cannot be used, or changed only now, are not among them: they are read by whoever needs them.
    """
    old, new, found, unknown = _Index.read(folder), _Index(), {}, []
    for run in runs:
        name, stamp = str(run.relative_to(folder)), _stamp(run)
        if kept := old.taken(run, name, stamp):
            found[run] = kept
        else:
            unknown.append((run, name, stamp))
    if len(unknown) <= FEWEST:
        return found
    reading = _Reading(new)
    for run, name, stamp in unknown:
        if stamp and (row := reading.row(run, stamp)):
            new.rows[name] = row
            found[run] = new.taken(run, name, stamp)
    if len(new.rows) > FEWEST:
        new.add_from(old, {str(run.relative_to(folder)) for run in found})
        with suppress(OSError):  # a cache of what lies in somebody else's folder, or on a full disk
            new.write(folder)
    return {run: kept for run, kept in found.items() if kept}


@dataclass
class _Index:
    """Runs by their path below the folder; every value stands once in a pool, however many runs share it."""

    pool: list[Any] = field(default_factory=list)
    rows: dict[str, Any] = field(default_factory=dict)
    sound: dict[tuple[str, int], bool] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path) -> "_Index":
        """The index in a folder; an empty one where there is none, or none that can be used."""
        with suppress(FileNotFoundError, Unreadable, *MAKES_NO_SENSE):
            digest, _, content = text_of(folder / FILE).partition("\n")
            found = json.loads(content) if digest == _digest(content) else {"form": None}
            if found["form"] == FORM and isinstance(found["pool"], list) and isinstance(found["runs"], dict):
                return cls(found["pool"], found["runs"])
        return cls()

    def write(self, folder: Path) -> None:
        """Write it, whole or not at all."""
        content = {"form": FORM, "pool": self.pool, "runs": self.rows}
        text = _written(content)
        with atomic(folder / FILE) as path:
            path.write_text(f"{_digest(text)}\n{text}", encoding="ascii")

    def taken(self, run: Path, name: str, stamp: str | None) -> KeptRun | None:
        """What it holds of a run whose files are as they were; None where they are not, or it makes no sense."""
        with suppress(*MAKES_NO_SENSE):
            row = self.rows[name]
            if row["stamp"] == stamp and not lacks(row["summary"]):
                config, overrides = row["config"], row["overrides"]
                return KeptRun(
                    _Summary(run, row["summary"], self),
                    None if config is None else {key: self.value(place, key, _CONFIG) for key, place in config.items()},
                    None if overrides is None else self.value(overrides, "overrides", _OVERRIDES),
                    None if (hydra := row["hydra"]) is None else self.value(hydra, "hydra", _HYDRA),
                )
        return None

    def value(self, place: int, key: str, shapes: Mapping[str, Any]) -> Any:
        """A value of the pool.

        Raises:
            ValueError: it has not the shape that belongs to the key.
        """
        value = self.pool[place]
        if (key, place) not in self.sound:
            shape = shapes.get(f"{key}?")
            self.sound[key, place] = not ((shape is not None and fault(value, shape)) or not_plain(value))
        if not self.sound[key, place]:
            raise ValueError(key)
        return value

    def add_from(self, old: "_Index", names: Iterable[str]) -> None:
        """Note what another index holds of runs, where this one holds nothing."""
        at = lambda place: None if place is None else self.place(old.pool[place])  # noqa: E731
        for name in names:
            if name not in self.rows:
                row = old.rows[name]
                config = row["config"] and {key: at(place) for key, place in row["config"].items()}
                written = {key: at(place) for key, place in row["summary"].items()}
                self.rows[name] = {"stamp": row["stamp"], "summary": written, "config": config}
                self.rows[name] |= {key: at(row[key]) for key in ("overrides", "hydra")}

    @cached_property
    def _places(self) -> dict[str, int]:
        return {}

    def place(self, value: Any) -> int:
        """Where a value stands, from now on.

        Raises:
            ValueError: it holds an infinity.
        """
        text = _written(value)
        if text not in self._places:
            self._places[text] = len(self.pool)
            self.pool.append(value)
        return self._places[text]


class _Reading:
    """Runs as rows of an index, read from their files: the summary without `LEFT_OUT`, the configuration, the
    overrides, and where Hydra started it."""

    def __init__(self, index: _Index) -> None:
        self._index = index
        kept = lambda key, value: None if key in LEFT_OUT else index.place(value)  # noqa: E731
        self._summary = Parts(SUMMARY, kept, is_json=True)
        self._config = Parts(settings.CONFIG_SHAPE, lambda _, value: index.place(value))
        self._hydra = Parts(settings.HYDRA_SHAPE, lambda _, value: index.place(_started(value)))

    def row(self, run: Path, stamp: str) -> dict[str, Any] | None:
        """The row of a run; None unless all its files can be used."""
        try:
            written = self._summary.of(run / summary.FILE) or {}
            config, hydra = self._config.of(run / settings.CONFIG), self._hydra.of(run / settings.HYDRA)
            overrides = settings.kept_overrides(run)
            if lacks(written) or ("status" in written and self._index.pool[written["status"]] == summary.UNREADABLE):
                return None
            row = {"stamp": stamp, "summary": written, "config": config}
            at = None if overrides is None else self._index.place(overrides)
            return row | {"overrides": at, "hydra": hydra and hydra["hydra"]}
        except ValueError:  # Unreadable, or what no index can hold
            return None


_CONFIG, _OVERRIDES = settings.CONFIG_SHAPE, {"overrides?": settings.OVERRIDES_SHAPE}
_HYDRA = {"hydra?": settings.HYDRA_SHAPE["hydra"]}


class _Summary(Mapping):
    """``summary.json`` as an index holds it; what the index leaves out, or lacks, is read from the file."""

    def __init__(self, run: Path, places: Mapping[str, int | None], index: _Index) -> None:
        self._run, self._places, self._index = run, places, index

    @cached_property
    def _whole(self) -> Mapping[str, Any]:
        return summary.read(self._run).written

    def __getitem__(self, key: str) -> Any:
        if (place := self._places[key]) is None:
            return self._whole[key]
        try:
            return self._index.value(place, key, SUMMARY)
        except MAKES_NO_SENSE:
            return self._whole[key]

    def __contains__(self, key: object) -> bool:
        return key in self._places

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


def _digest(text: str) -> str:
    """Of what stands in the file: a disk may damage it so that it still makes sense."""
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _started(hydra: Mapping[str, Any]) -> dict[str, Any]:
    """What runs of one sweep have in common of Hydra's own settings: where they were started, by which files."""
    runtime = hydra.get("runtime") or {}
    return {"runtime": {key: runtime.get(key) for key in ("cwd", "config_sources")}}


def _stamp(run: Path) -> str | None:
    """What the files of a run would not have in common with others in their place; None if one changed just now."""
    found, latest = hashlib.blake2b(digest_size=12), time.time_ns() - SETTLED_NS
    for file in (summary.FILE, settings.CONFIG, settings.HYDRA, settings.OVERRIDES):
        try:
            stat = os.stat(f"{run}/{file}")
        except (OSError, ValueError):
            found.update(b"-")
            continue
        if max(stat.st_mtime_ns, stat.st_ctime_ns) > latest:
            return None
        found.update(f"{stat.st_ino},{stat.st_size},{stat.st_mtime_ns},{stat.st_ctime_ns};".encode())
    return found.hexdigest()
