"""When a training or a descent saves a checkpoint."""

import time

from pipeline.runtime import ranks
from pipeline.runtime.interruption import Interrupted, interruption


class CheckpointTimer:
    """Says when to save a checkpoint: every ``seconds``, and when a signal has arrived.

    Collective: all ranks ask at the same points of their work, and get the same answer.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds, self._last, self._signal = seconds, time.monotonic(), 0

    def due(self) -> bool:
        """Whether to save a checkpoint now; `restart_or_exit` must follow."""
        elapsed = time.monotonic() - self._last >= self.seconds
        # The number of a signal is greater than 1.
        wanted = int(ranks.largest(interruption.received or elapsed))
        self._signal = wanted if wanted > 1 else 0
        return wanted > 0

    def restart_or_exit(self) -> None:
        """The checkpoint is saved: count the seconds anew, or leave if a signal asked for it.

        Raises:
            Interrupted: on all ranks, whichever of them got the signal.
        """
        self._last = time.monotonic()
        if self._signal:
            raise Interrupted(self._signal)
