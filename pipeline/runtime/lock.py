"""One process at a time in a run folder, or at a download.

The lock is the kernel's (`flock`), so that of a dead process is gone with it; what the file says is for people.
"""

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

FILE = ".lock"


class Occupied(Exception):
    """Another process works in the folder; the message says which."""


class FolderLock:
    """Held from construction until `release` or the end of the process.

    Raises:
        Occupied: another process holds it.
        OSError: the folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE
        self._stream: IO[str] | None = open(self.path, "a+", encoding="utf-8")  # noqa: SIM115 (kept open)
        try:
            fcntl.flock(self._stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._stream.seek(0)
            owner = self._stream.read().strip()
            self._stream.close()
            raise Occupied(owner or "another process") from None
        self._stream.truncate(0)
        self._stream.write(f"process {os.getpid()} on {socket.gethostname()}")
        self._stream.flush()

    def release(self) -> None:
        """Let others in. The file goes first: whoever has opened it already is refused all the same."""
        if self._stream is not None:
            self.path.unlink(missing_ok=True)
            self._stream.close()
            self._stream = None


@contextmanager
def one_at_a_time(path: Path) -> Iterator[None]:
    """Wait until no other process is within; the file at ``path`` stands for what they take turns at."""
    with open(path, "w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield
        path.unlink(missing_ok=True)


def occupied(folder: Path) -> bool:
    """Whether a process works in a run folder now."""
    try:
        with open(folder / FILE) as stream:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
