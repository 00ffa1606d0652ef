"""Files that appear whole or not at all (temporary file, fsync, rename)."""

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

TEMPORARY = ".dnc-tmp-"
"""How the names of temporary files begin; nobody else uses it, so that what bears it may be removed."""


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Give a temporary path beside ``path``; on success it is synced to disk and takes ``path``'s place.

    Raises:
        OSError: naming ``path``; what was there before is as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{TEMPORARY}{os.getpid()}-{path.name}")
    try:
        yield temporary
        _sync(temporary)
        os.replace(temporary, path)
        with suppress(OSError):  # not every file system can
            _sync(path.parent)
    except OSError as error:
        error.filename = error.filename or str(path)  # a full disk is noticed when writing, which names no file
        raise
    finally:
        temporary.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    """Have a file's content, or a folder's names, on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_temporaries(folders: Iterable[Path]) -> None:
    """Remove the temporary files that a killed process left behind in these very folders.

    The caller holds the lock of the run that writes there.
    """
    for folder in folders:
        if folder.is_dir() and not folder.is_symlink():
            for path in folder.iterdir():
                if re.fullmatch(rf"{re.escape(TEMPORARY)}\d+-.+", path.name) and path.is_file():
                    path.unlink(missing_ok=True)
