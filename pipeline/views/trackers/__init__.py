"""Trackers that the record is mirrored to: wandb, and loggers of Lightning's. None of them decides over a run."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.config import LoggerConfig
from pipeline.storage.record import Row
from pipeline.views.wandb import Reached
from pipeline.views.wandb import track as track_with_wandb

__all__ = ["Trackers", "track"]

Asides = Mapping[tuple[str, int], Mapping[str, float]]


class Trackers:
    """All trackers of a run as one."""

    def __init__(self, members: Sequence[Any]) -> None:
        self.members = members

    @property
    def waits_for_a_server(self) -> bool:
        """Whether closing may take a while."""
        return any(getattr(member, "channels", ()) for member in self.members)

    def rows(self, rows: list[Row]) -> None:
        """Mirror rows of the record."""
        for member in self.members:
            member.rows(rows)

    def finish(self, summary: Mapping[str, Any], figures: list[Path], *, failed: bool = False) -> None:
        """Send what a run has come to, and close."""
        for member in self.members:
            member.finish(summary, figures, failed=failed)


def track(
    config: LoggerConfig,
    folder: Path,
    run_config: Mapping[str, Any],
    job_type: str,
    asides: Asides,
    reached: Reached | None = None,
) -> Trackers:
    """Open what ``logger`` names for the run in ``folder``, or continue it, and log the run's configuration.

    Args:
        asides: by stage and step, what is logged beside the rows of the record (`Record.asides`).
        reached: what says the verdict that rows of one step meet, None if they meet none.
    """
    members = []
    for name in dict.fromkeys((config.name, *config.also)):
        own = replace(config, name=name)
        if name in ("wandb", "none"):
            members.append(track_with_wandb(own, folder, run_config, job_type, asides, reached))
            continue
        from pipeline.views.trackers.lightning import LightningTracker  # Lightning takes seconds to import

        members.append(LightningTracker.start(own, folder, run_config, job_type, asides))
    return Trackers(members)
