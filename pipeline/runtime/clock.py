"""When a training or a descent keeps what it has."""

import time

from pipeline.runtime import ranks
from pipeline.runtime.interruption import Interrupted, interruption


class Clock:
    """Says when to keep a checkpoint: every ``seconds``, and when a signal has come.

    All ranks must look at the same places, and get the same answer.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds, self._last, self._signal = seconds, time.monotonic(), 0

    def due(self) -> bool:
        """Whether to keep a checkpoint now; `leave` has to follow."""
        elapsed = time.monotonic() - self._last >= self.seconds
        # The number of a signal is greater than 1.
        wanted = int(ranks.largest(interruption.received or elapsed))
        self._signal = wanted if wanted > 1 else 0
        return wanted > 0

    def leave(self) -> None:
        """The checkpoint is kept: go on, or end if a signal has asked for it.

        Raises:
            Interrupted: on all ranks, whichever got the signal.
        """
        self._last = time.monotonic()
        if self._signal:
            raise Interrupted(self._signal)
