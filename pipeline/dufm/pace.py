"""Which of several ways to take the same steps is the fastest here and now: the clock decides, and looks again."""

import math
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence

REMEMBERED = 3
"""Of so many times that a way was timed the fastest counts: one interruption says nothing about it."""
FIRST_LOOK, LAST_LOOK = 4, 64
"""Shares after which one is taken in the slower way, to time it once more: soon after the way has changed, which may
have been for a moment's noise, and each time twice as late as before."""
TRIAL = 10e-3
"""Seconds of such a share, were it taken in the faster way."""
SHARE = 0.25
"""Seconds of any other, so that long blocks of steps are not left to a way that has become slow."""
WORTH_TIMING = 2e-3
"""Seconds: in less, the start of threads makes a way look slower than it is, which hence can only show that it is
faster."""


class Pace:
    """Seconds a step takes in each of several ways, named by numbers."""

    def __init__(self) -> None:
        self._timed: dict[int, deque[float]] = defaultdict(lambda: deque(maxlen=REMEMBERED))
        self._favourite: int | None = None
        self._since, self._look = 0, FIRST_LOOK

    def shares(self, ways: Sequence[int], steps: int) -> Iterator[tuple[int, int]]:
        """Deal out steps: pairs of a way and how many to take in it, each to be timed (`took`) before the next is
        asked for. Ways that were never timed come first, in the order given."""
        while steps:
            way, share = (ways[0], steps) if len(ways) == 1 else self._next(ways, steps)
            yield way, share
            steps -= share

    def took(self, way: int, steps: int, seconds: float) -> None:
        """Remember how long some steps took."""
        known, pace = self._of(way), seconds / steps
        if seconds > WORTH_TIMING or (known is not None and pace < known):
            self._timed[way].append(pace)

    def _next(self, ways: Sequence[int], steps: int) -> tuple[int, int]:
        untimed = [way for way in ways if self._of(way) is None]
        if untimed:
            return untimed[0], steps
        fast, *_, slow = sorted(ways, key=self._of)
        if fast != self._favourite:
            self._favourite, self._since, self._look = fast, 0, FIRST_LOOK
        self._since += 1
        if trial := self._since > self._look:
            self._since, self._look = 0, min(2 * self._look, LAST_LOOK)
        return (slow if trial else fast), min(steps, math.ceil((TRIAL if trial else SHARE) / self._of(fast)))

    def _of(self, way: int) -> float | None:
        return min(self._timed[way], default=None)
