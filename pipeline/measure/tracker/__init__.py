"""Deep neural collapse in anybody's training loop: see `CollapseTracker` and docs/tracker.md."""

from pipeline.measure.tracker.tracker import CollapseTracker

__all__ = ["CollapseTracker"]
