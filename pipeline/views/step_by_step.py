"""Rows of the record on their way to a tracker, which wants all of one stage and step at once."""

from collections.abc import Sequence

from pipeline.storage.record import Row


class StepByStep:
    """Collects rows; those of one stage and step are sent together, when the next one begins."""

    def __init__(self) -> None:
        self._pending: list[Row] = []

    @property
    def open(self) -> bool:
        """Whether there is anybody to send to."""
        raise NotImplementedError

    def rows(self, rows: Sequence[Row]) -> None:
        """Mirror rows of the record."""
        if not self.open:
            return
        for row in rows:
            if self._pending and (row.stage, row.step) != (self._pending[0].stage, self._pending[0].step):
                self._send_pending()
            self._pending.append(row)

    def _send_pending(self) -> None:
        """Send what is collected, and begin anew; must not raise."""
        raise NotImplementedError
