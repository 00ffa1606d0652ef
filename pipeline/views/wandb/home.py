"""A folder for wandb's own log and cache, where the user has none: a container without HOME, a home that is not there.

wandb's service, which writes the runs, prints its log on standard error when it finds no place for it.
"""

import atexit
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

VARIABLE = "XDG_CACHE_HOME"


@contextmanager
def cache_folder() -> Iterator[None]:
    """Within, wandb finds a folder for its cache; its service, which starts here, keeps it until the process ends."""
    before = os.environ.get(VARIABLE)
    if _is_usable(before):
        yield
        return
    os.environ[VARIABLE] = _temporary()
    try:
        yield
    finally:
        os.environ.pop(VARIABLE)
        if before is not None:
            os.environ[VARIABLE] = before


def _is_usable(chosen: str | None) -> bool:
    home = os.environ.get("HOME")
    base = chosen or (home and str(Path(home, ".cache")))
    if not base or not os.path.isabs(base):
        return False
    logs = Path(base, "wandb", "logs")
    try:
        logs.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(logs, os.W_OK | os.X_OK)


@cache
def _temporary() -> str:
    folder = tempfile.TemporaryDirectory(prefix="dnc-wandb-", ignore_cleanup_errors=True)
    atexit.register(folder.cleanup)
    return folder.name
