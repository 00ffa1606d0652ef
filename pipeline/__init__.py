"""Measure deep neural collapse, layer by layer, in real networks and in the deep unconstrained features model.

Public: `CollapseTracker`, `Reading`, `Taps` and `read_record` from here, and `pipeline.metrics`, `pipeline.theory` and
`pipeline.data.load_images`. Everything else may move.
"""

from importlib import import_module

PUBLIC = {
    "CollapseTracker": "pipeline.measure.tracker",
    "Reading": "pipeline.networks.reading",
    "Taps": "pipeline.networks.taps",
    "read_record": "pipeline.storage.record",
}
"""Names that can be imported from the package, and where they are."""

__all__ = ["CollapseTracker", "Reading", "Taps", "read_record"]


def __getattr__(name: str) -> object:
    # On demand: whoever needs one room of the package should not wait for all that tracking imports.
    if name in PUBLIC:
        return getattr(import_module(PUBLIC[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
