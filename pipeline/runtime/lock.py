"""One process at a time in a run folder, or at a download.

The lock is the kernel's (`flock`), so that of a dead process is gone with it; what the file says is for people.
"""

import fcntl
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

FILE = ".dnc.lock"
ATTEMPTS, SECONDS_BETWEEN_ATTEMPTS = 10, 0.02
"""How often a lock is asked for: whoever asks whether a folder is occupied holds it for a moment."""


class Occupied(Exception):
    """Another process works in the folder; the message says which."""


class FolderLock:
    """Held from construction until `release` or the end of the process.

    Raises:
        Occupied: another process holds it.
        OSError: the folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self.path = (folder / FILE).absolute()
        self._stream: IO[str] | None = _locked(self.path)
        self._stream.truncate(0)
        self._stream.write(f"process {os.getpid()} on {socket.gethostname()}")
        self._stream.flush()

    def fileno(self) -> int:
        """Descriptor of the lock; children it is passed to hold the lock, too, for as long as they live."""
        assert self._stream is not None, "released"
        return self._stream.fileno()

    def release(self) -> None:
        """Let others in."""
        if self._stream is not None:
            self.path.unlink(missing_ok=True)
            self._stream.close()
            self._stream = None


def _locked(path: Path) -> IO[str]:
    """The file at ``path``, open and locked."""
    owner = ""
    for _ in range(ATTEMPTS):
        stream = open(path, "a+", encoding="utf-8")  # noqa: SIM115 (kept open)
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            stream.seek(0)
            owner = stream.read().strip() or owner
            stream.close()
            time.sleep(SECONDS_BETWEEN_ATTEMPTS)
            continue
        if _is_at(stream, path):
            return stream
        stream.close()  # opened before its owner removed it: others would lock another file
    raise Occupied(owner or "another process")


def _is_at(stream: IO[str], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(stream.fileno()), os.stat(path))
    except FileNotFoundError:
        return False


@contextmanager
def one_at_a_time(path: Path) -> Iterator[None]:
    """Wait until no other process is within; the file at ``path`` stands for what they take turns at."""
    while True:
        with open(path, "w") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            if _is_at(stream, path):  # and not what the one before has removed meanwhile
                yield
                path.unlink(missing_ok=True)
                return


def occupied(folder: Path) -> bool:
    """Whether a process works in a run folder now."""
    try:
        if not (folder / FILE).is_file():  # a pipe would be waited for
            return False
        with open(folder / FILE) as stream:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
