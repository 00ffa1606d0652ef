"""Standard streams that nobody reads, or that are not there: no reason to lose a run.

A pipe whose reader has gone (``dnc ... | head -n 1``), a closed stream (``>&-``) and a terminal that was hung up
are like ``/dev/null``. A full disk behind a stream costs the lines that do not fit, and one line on the other stream.
"""

import errno
import io
import os
import sys
from contextlib import suppress
from typing import Any

GONE = (errno.EPIPE, errno.EBADF, errno.EIO, errno.ENXIO, errno.ECONNRESET)
"""Errors after which a stream does not come back."""
STREAMS = {1: "stdout", 2: "stderr"}


class _Steady(io.FileIO):
    """A stream that takes everything, and passes on what it can."""

    told = False

    def write(self, data: Any, /) -> int | None:
        try:
            return super().write(data)
        except OSError as error:
            if error.errno in GONE:
                _to_nowhere(self.fileno())
            elif not self.told:
                self.told = True
                with suppress(OSError):
                    line = f"{STREAMS[self.fileno()]} cannot be written ({error.strerror}); going on.\n"
                    os.write(3 - self.fileno(), line.encode())
            return memoryview(data).nbytes


def steady_streams() -> None:
    """Let nothing that happens to standard input, output and error raise an error in this process.

    What stands in their place otherwise (a notebook, a test that captures them) is left alone.
    """
    for descriptor in range(3):
        _open_if_closed(descriptor)
    if sys.stdin is None:
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 (kept open)
    for descriptor, name in STREAMS.items():
        stream = getattr(sys, name)
        if stream is None or _is_plain(stream, descriptor):
            steady = _steady(descriptor, stream)
            setattr(sys, name, steady)
            setattr(sys, f"__{name}__", steady)


def _open_if_closed(descriptor: int) -> None:
    """Have something under the number, or the next file that is opened would get all that is printed."""
    try:
        os.fstat(descriptor)
    except OSError:
        _to_nowhere(descriptor)


def _to_nowhere(descriptor: int) -> None:
    nowhere = os.open(os.devnull, os.O_RDWR)
    if nowhere == descriptor:
        os.set_inheritable(descriptor, True)
        return
    os.dup2(nowhere, descriptor)
    os.close(nowhere)


def _is_plain(stream: Any, descriptor: int) -> bool:
    """Whether this is what Python made at its start."""
    raw = getattr(getattr(stream, "buffer", None), "raw", getattr(stream, "buffer", None))
    return type(stream) is io.TextIOWrapper and type(raw) is io.FileIO and raw.fileno() == descriptor


def _steady(descriptor: int, like: Any) -> io.TextIOWrapper:
    raw = _Steady(descriptor, "w", closefd=False)
    raw.name = f"<{STREAMS[descriptor]}>"
    if like is None:
        return io.TextIOWrapper(io.BufferedWriter(raw), encoding="utf-8", errors="backslashreplace")
    with suppress(OSError):
        like.flush()
    buffer = io.BufferedWriter(raw) if hasattr(like.buffer, "raw") else raw  # python -u has none
    return io.TextIOWrapper(
        buffer,
        encoding=like.encoding,
        errors=like.errors,
        line_buffering=like.line_buffering,
        write_through=like.write_through,
    )
