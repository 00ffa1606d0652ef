"""Measure deep neural collapse, layer by layer, in real networks and in the deep unconstrained features model."""

__all__ = ["CollapseTracker"]


def __getattr__(name: str) -> object:
    # On demand: whoever needs one room of the package should not wait for all that tracking imports.
    if name == "CollapseTracker":
        from pipeline.measure.tracker import CollapseTracker

        return CollapseTracker
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
