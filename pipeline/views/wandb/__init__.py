"""The record mirrored to Weights & Biases. Nothing here decides over a run: it goes on whatever wandb does."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.config import LoggerConfig
from pipeline.storage.record import Row

if TYPE_CHECKING:
    from pipeline.views.wandb.tracker import Tracker

__all__ = ["Reached", "Untracked", "track"]

Reached = Callable[[Sequence[Row]], str | None]


class Untracked:
    """What stands in a tracker's place with ``logger=none``."""

    channels = ()

    def rows(self, rows: list[Row]) -> None:
        """Mirror them nowhere."""

    def finish(self, summary: Mapping[str, Any], figures: list[Path], *, failed: bool = False) -> None:
        """Nothing is open."""


def track(
    config: LoggerConfig,
    folder: Path,
    run_config: Mapping[str, Any],
    job_type: str,
    asides: Mapping[tuple[str, int], Mapping[str, float]] | None = None,
    reached: Reached | None = None,
) -> "Tracker | Untracked":
    """Open the wandb run of the run in ``folder``, or continue it, and log its configuration.

    Args:
        asides: by stage and step, what is logged beside the rows of the record (`Record.asides`).
        reached: what says the verdict that rows of one step meet, None if they meet none; for ``logger.alert``.
    """
    if config.name == "none":
        return Untracked()
    from pipeline.views.wandb.tracker import Tracker  # wandb takes a second to import

    return Tracker.start(config, folder, run_config, job_type, {} if asides is None else asides, reached)
