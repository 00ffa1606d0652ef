"""The door of a run folder: every run, of the command or of a study, comes in here.

What can be wrong is found before anything is written, a completed run is not overwritten, and while a run lasts nobody
else gets into its folder. What takes seconds to import is imported where it is needed: not for what is refused at once.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.config import Config
from pipeline.runs.launches import is_first
from pipeline.runtime.errors import ConfigError
from pipeline.runtime.interruption import interruption
from pipeline.runtime.lock import FolderLock, Occupied
from pipeline.storage.summary import COMPLETED, UNREADABLE, read

if TYPE_CHECKING:
    from pipeline.runs.inputs import Inputs


class FolderInUse(ConfigError):
    """Another process works in the folder; `owner` says which."""

    def __init__(self, folder: Path, owner: str) -> None:
        super().__init__(f"hydra.run.dir={folder} is in use by {owner}; allowed: another folder.")
        self.owner = owner


@dataclass(frozen=True)
class Admission:
    """Leave to run: a checked configuration, its inputs, and a folder that is this process's until `release`.

    Of the processes (ranks) of one run, which are one party, only the first holds the lock.
    """

    config: Config
    inputs: "Inputs"
    folder: Path
    lock: FolderLock | None

    def perform(self) -> None:
        """Run, going on where an earlier attempt in the folder left off, and release the folder.

        Raises:
            RunError, Interrupted: see `pipeline.runs.execution.execute`.
        """
        from pipeline.runs.execution import execute

        interruption.reset()
        try:
            execute(self.config, self.inputs, self.folder)
        finally:
            self.release()

    def release(self) -> None:
        """Let others into the folder; twice is once."""
        if self.lock is not None:
            self.lock.release()


def admit(config: Config, folder: Path, *, replace: bool = False) -> Admission:
    """Check everything, then make the folder and keep others out of it.

    Args:
        config: validated (`pipeline.config.settings`).
        replace: what an earlier run has left in the folder is removed, even if that run is complete; what else lies
            there is not.

    Raises:
        FolderInUse: another process works there.
        ConfigError: anything else that a run cannot begin with; nothing was written.
    """
    from pipeline.runs.inputs import prepare
    from pipeline.runs.processes import check as check_processes
    from pipeline.storage.ownership import remove_run

    if not replace:
        refuse_completed(folder)
    check_folder(folder)
    refuse_others(folder)
    check_processes(config)
    inputs = prepare(config)
    lock = _occupy(folder) if is_first() else None
    admission = Admission(config, inputs, folder, lock)
    try:
        if replace:
            remove_run(folder)
        else:
            refuse_completed(folder)  # again: another process may have completed one meanwhile
    except BaseException:
        admission.release()
        raise
    return admission


def is_completed(folder: Path) -> bool:
    """Whether the folder holds a completed run."""
    return read(folder).status == COMPLETED


def refuse_completed(folder: Path) -> None:
    """Raise ConfigError if the folder holds a completed run."""
    if is_completed(folder):
        raise ConfigError(f"hydra.run.dir={folder} holds a completed run; allowed: a new folder.")


def refuse_others(folder: Path, *, by_settings: bool = True) -> None:
    """Raise ConfigError if a run in this folder would replace files that no run of ours has left there.

    Args:
        by_settings: whether the configuration kept there tells a run of ours, too (see `ownership.is_runs`).
    """
    from pipeline.storage.ownership import in_the_way

    try:
        found = in_the_way(folder, by_settings=by_settings)
    except OSError as error:
        raise ConfigError(f"hydra.run.dir={folder} cannot be looked into ({_reason(error)}); {_NEW}.") from error
    if found is None:
        return
    why = read(folder)
    said = f"; {why.error}" if why.status == UNREADABLE else ""
    raise ConfigError(
        f"hydra.run.dir={folder} holds {found.relative_to(folder)}, which no run of ours has left there{said}; {_NEW}."
    )


_NEW = "allowed: a new folder, or that of an earlier attempt"


def check_folder(folder: Path) -> None:
    """Raise ConfigError unless a run's folder exists or can be made."""
    key = f"hydra.run.dir={folder}"
    try:
        exists = folder.exists()
        place = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    except (OSError, ValueError) as error:
        raise ConfigError(f"{key} cannot be a folder ({_reason(error)}); allowed: a new folder.") from error
    if not place.is_dir():
        problem = "is a file" if exists else f"lies in {place}, which is a file"
        raise ConfigError(f"{key} {problem}; allowed: a new folder.")
    if not os.access(place, os.W_OK | os.X_OK):
        raise ConfigError(f"{key} cannot be made or written: no right to write in {place}; allowed: a new folder.")


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def _occupy(folder: Path) -> FolderLock:
    folder.mkdir(parents=True, exist_ok=True)
    try:
        return FolderLock(folder)
    except Occupied as error:
        raise FolderInUse(folder, str(error)) from error
