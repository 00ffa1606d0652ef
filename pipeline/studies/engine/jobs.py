"""A point of a study as an ordinary run folder: composed from ``conf/``, run when it must be, and read back.

A folder counts as finished when it holds a closed run of the wanted configuration, which is kept where Hydra keeps it
(``.hydra/config.yaml``): a run made by hand with ``dnc experiment=... hydra.run.dir=...`` is as good as one made here,
and ``dnc resume=FOLDER`` goes on with one that was begun here.
"""

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pipeline.config import Config, from_plain
from pipeline.config.overrides import knob_of
from pipeline.runs.checking import checked
from pipeline.runs.door import FolderInUse, admit
from pipeline.runs.protocols import protocol_named, protocol_names
from pipeline.runtime.errors import ConfigError, RunError
from pipeline.runtime.files import atomic
from pipeline.storage.reading import Unreadable
from pipeline.storage.record import read_summary
from pipeline.storage.settings_files import kept_config as kept_settings
from pipeline.storage.summary import COMPLETED
from pipeline.studies.engine.composing import composed
from pipeline.studies.engine.folders import INCIDENTAL, is_within
from pipeline.studies.engine.results import Point, Result

CIRCUMSTANCES = ("out of memory", "process ", "rank ")
"""How the errors begin that a run need not meet again: what else was on the machine, or a process that was lost."""


@dataclass(frozen=True)
class Job:
    """A point with its validated configuration and its folder.

    composed: the configuration as Hydra made it. hydra: what Hydra would keep of the command that makes this run.
    """

    point: Point
    composed: DictConfig
    hydra: Mapping[str, Any]
    config: Config
    folder: Path

    @classmethod
    def plan(cls, experiment: str | None, point: Point, overrides: Sequence[str], folder: Path) -> "Job":
        """Compose ``experiment`` with the point's overrides and then ``overrides``, which win.

        Args:
            experiment: the file in ``conf/experiment/``, unless the point names another; None: none.

        Raises:
            ConfigError, HydraException, OmegaConfBaseException: the configuration is not valid.
        """
        own = any(override.startswith("experiment=") for override in point.overrides)
        begin = [] if own or experiment is None else [f"experiment={experiment}"]
        task = [*begin, *point.overrides, *point.shrunk, *overrides]
        config, runtime = composed(task)
        return cls(point, config, {"overrides": {"task": task}, "runtime": runtime}, checked(config), folder)

    @property
    def is_finished(self) -> bool:
        """Whether the folder holds a closed run of this configuration."""
        return holds_finished(self.folder, self.config)

    @property
    def in_the_way(self) -> str | None:
        """What finished run of another configuration the folder holds, in words; None if there is none."""
        if not is_closed(self.folder) or self.is_finished:
            return None
        kept = kept_config(self.folder)
        return "settings that cannot be used here" if kept is None else _difference(kept, self.config)

    def found_in(self, folders: Mapping[Path, Config]) -> "Job":
        """This job, in the folder among those of closed runs that holds its configuration; else in its own."""
        if self.is_finished:
            return self
        wanted = essence(self.config)
        same = [folder for folder, config in folders.items() if essence(config) == wanted]
        # One of the same name, where two points come to the same.
        same.sort(key=lambda folder: folder.name != self.folder.name)
        return replace(self, folder=same[0]) if same else self

    def order(self, repeat_before: float | None = None) -> "Order":
        """What makes the run; see `Order`."""
        files = {
            ".hydra/config.yaml": OmegaConf.to_yaml(self.composed),
            ".hydra/hydra.yaml": OmegaConf.to_yaml({"hydra": self.hydra}),
            ".hydra/overrides.yaml": OmegaConf.to_yaml(self.hydra["overrides"]["task"]),
        }
        return Order(self.point.name, self.config, self.folder.absolute(), files, repeat_before)

    def result(self) -> Result:
        """What a finished job left behind."""
        return Result(self.point, self.config, self.folder)


@dataclass(frozen=True)
class Order:
    """A run to be made, in this process or another.

    name: of its point. files: what the folder keeps of the configuration, by path. repeat_before: a run that was
    finished before this time (seconds since 1970) is made again; None: none is.
    """

    name: str
    config: Config
    folder: Path
    files: Mapping[str, str] = field(default_factory=dict)
    repeat_before: float | None = None

    def plain(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return asdict(self) | {"folder": str(self.folder)}

    @classmethod
    def from_plain(cls, values: dict[str, Any]) -> "Order":
        """From what `plain` made."""
        return cls(**values | {"config": from_plain(values["config"]), "folder": Path(values["folder"])})

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to do."""
        if not holds_finished(self.folder, self.config):
            return False
        return self.repeat_before is None or (self.folder / "summary.json").stat().st_mtime >= self.repeat_before

    def perform(self) -> str | None:
        """Make the run, going on where an earlier attempt left off; the verdict and the log go to ``dnc.log`` there.

        Returns:
            Who else is making it, if somebody is; None when it is finished.

        Raises:
            ConfigError: it cannot begin.
            Interrupted: a signal asked it to end; its status is ``interrupted`` then.
        """
        if self.is_done:
            return None
        again = self.repeat_before is not None and is_closed(self.folder)
        try:
            admission = admit(self.config, self.folder, replace=again)
        except FolderInUse as error:
            return error.owner
        except ConfigError:
            if self.is_done:  # another process was faster
                return None
            raise
        try:
            if not self.is_done:
                self._keep_files()
                with _saying_it_to(self.folder / "dnc.log"):
                    admission.perform()
        except RunError:
            pass  # its summary says why, and whoever counts the run tells it
        finally:
            admission.release()
        return None

    def _keep_files(self) -> None:
        for name, text in self.files.items():
            with atomic(self.folder / name) as path:
                path.write_text(text)


@contextmanager
def _saying_it_to(path: Path) -> Iterator[None]:
    """What is printed or logged goes to the file; only errors are shown as well: a run has one line, with its end."""
    logger = logging.getLogger("pipeline")
    shown = [handler for handler in logging.root.handlers if handler.level < logging.ERROR]
    levels = [handler.level for handler in shown]
    with open(path, "a", encoding="utf-8") as stream, redirect_stdout(stream):
        told = logging.StreamHandler(stream)
        logger.addHandler(told)
        try:
            for handler in shown:
                handler.setLevel(logging.ERROR)
            yield
        finally:
            logger.removeHandler(told)
            for handler, level in zip(shown, levels, strict=True):
                handler.setLevel(level)


def holds_finished(folder: Path, config: Config) -> bool:
    """Whether the folder holds a closed run of this configuration."""
    if not is_closed(folder):
        return False
    kept = kept_config(folder)
    return kept is not None and essence(kept) == essence(config)


def is_closed(folder: Path) -> bool:
    """Whether a run came to an end in this folder: completed, or failed for a reason of its own.

    Such a failure (all seeds diverged) is a result too: the run would fail again.
    """
    summary = read_summary(folder) or {}
    kind, _, error = str(summary.get("error", "")).partition(": ")
    own_fault = kind == RunError.__name__ and not error.startswith(CIRCUMSTANCES)
    return summary.get("status") == COMPLETED or (summary.get("status") == "failed" and own_fault)


def kept_config(folder: Path) -> Config | None:
    """The configuration of the run in this folder; None if it was never begun, or by a version with other settings."""
    path = folder / ".hydra" / "config.yaml"
    try:
        return _config_in(path, path.stat().st_mtime_ns)
    except OSError:
        return None


@cache
def _config_in(path: Path, changed: int) -> Config | None:
    """The same of a file that was last changed at this time; a study asks several times, and reading takes long."""
    try:
        kept = kept_settings(path.parents[1])
        # What a resolver (`${oc.env:X}`) stands for was decided elsewhere; another setting (`${head.width}`) is here.
        if kept is None or re.search(r"\$\{[^}]*[:$]", path.read_text(encoding="utf-8")):
            return None
        return checked(OmegaConf.create(kept))
    except (OSError, Unreadable, ConfigError, OmegaConfBaseException):
        return None


def closed_runs(folders: Sequence[Path]) -> dict[Path, Config]:
    """Of these folders, those that hold a closed run, with its configuration."""
    return {folder: config for folder in folders if is_closed(folder) and (config := kept_config(folder)) is not None}


def essence(config: Config) -> dict[str, Any]:
    """The settings that decide what comes out, by name."""
    return {key: value for key, value in _flat(asdict(config)) if not is_within(key, INCIDENTAL)}


def decisive(config: Config) -> dict[str, Any]:
    """Of `essence`, the settings that the run's protocol looks at: where they are equal, so is what comes out.

    A setting whose description begins with the names of protocols belongs to those alone.
    """
    own, protocol, values = config.protocol, protocol_named(config.protocol.name), essence(config)
    idle = [key for key in values if (owners := _protocols_of(key)) and protocol.name not in owners]
    idle += [] if protocol.images else ["data"]
    idle += [] if protocol.network else ["backbone", "optimizer"]
    if protocol.head is None or protocol.name == "end_to_end":
        idle += [f"descent.{name}" for name in ("steps", "lr", "momentum", "polish", "precision")]
    if protocol.name == "frozen_features":
        idle += ["optimizer"] if config.backbone.epochs == 0 else []
        # Its penalties are those of end_to_end and fixed_head.
        values["protocol.regularization"] = own.regularization.replace("dufm", "standard")
    return {key: value for key, value in values.items() if not is_within(key, idle)}


@cache
def _protocols_of(key: str) -> frozenset[str]:
    entry = knob_of(key)
    named = {name.strip() for name in entry.metadata["help"].partition(":")[0].split(",")} if entry else set()
    return frozenset(named) if named and named <= {*protocol_names()} else frozenset()


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _difference(theirs: Config, ours: Config) -> str:
    """The first setting that differs, in words."""
    there, here = essence(theirs), essence(ours)
    for key in dict.fromkeys((*here, *there)):
        if here.get(key) != there.get(key):
            return f"{key}={there.get(key)}, here {here.get(key)}"
    return "the same"
