"""Whether the other processes of a run are still there, asked from a thread.

gloo tells a rank at once that another one is gone. NCCL does not: the rank waits, for half an hour, in a call that no
exception reaches. So when a process has ended otherwise than well, and this one has not noticed by itself after a
while, the group is aborted, upon which what waits in it fails; and if this one then still stands where it stood, it
ends with a sentence.
"""

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from pipeline.runtime import ranks

SECONDS_TO_NOTICE = 10.0
"""For this process to learn by itself that another one is gone."""
SECONDS_TO_LEAVE = 60.0
"""For it to move on, once the group is aborted."""
SECONDS_BETWEEN = 0.5
"""Between two looks."""


@contextmanager
def watched(children: Sequence[subprocess.Popen], abort: Callable[[], None] = ranks.abort) -> Iterator[None]:
    """Within, the end of a child other than with status 0 is looked for; the children are ranks 1, 2, ..."""
    over = threading.Event()
    arguments = (children, abort, over)
    watcher = threading.Thread(target=_watch, args=arguments, daemon=True, name="watch-children")
    watcher.start()
    try:
        yield
    finally:
        over.set()


def _watch(children: Sequence[subprocess.Popen], abort: Callable[[], None], over: threading.Event) -> None:
    lost = None
    while lost is None:
        if over.wait(SECONDS_BETWEEN):
            return
        lost = next((rank for rank, child in enumerate(children, start=1) if child.poll()), None)
    if over.wait(SECONDS_TO_NOTICE):
        return
    abort()
    still, place = 0.0, None
    while still < SECONDS_TO_LEAVE:
        if over.wait(SECONDS_BETWEEN):
            return
        before, place = place, _where_the_program_is()
        still = still + SECONDS_BETWEEN if place == before else 0.0
    code = children[lost - 1].returncode
    print(
        f"error: rank 0 waits for process {lost} of the run, which has ended (status {code}), and whose own last words "
        "say why.",
        file=sys.stderr,
        flush=True,
    )
    for child in children:
        child.kill()
    os._exit(1)  # nothing else ends a thread that waits in a library


def _where_the_program_is() -> list[tuple[int, int]]:
    """Where the main thread stands, call by call: the same for as long as it waits in a library."""
    frame, found = sys._current_frames().get(threading.main_thread().ident), []
    while frame is not None:
        found.append((id(frame), frame.f_lasti))
        frame = frame.f_back
    return found
