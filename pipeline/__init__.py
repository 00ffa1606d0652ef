"""Measure deep neural collapse, layer by layer, in real networks and in the deep unconstrained features model.

Public: `CollapseTracker`, `CollapseCallback`, `Reading`, `Taps`, `read_record` and `read_classes` from here, and
`pipeline.metrics`, `pipeline.theory` and `pipeline.data.load_images`. Everything else may move.
"""

import signal
import sys
from importlib import import_module

PUBLIC = {
    "CollapseCallback": "pipeline.measure.tracker.callback",
    "CollapseTracker": "pipeline.measure.tracker",
    "Reading": "pipeline.networks.reading",
    "Taps": "pipeline.networks.taps",
    "read_classes": "pipeline.storage.classes",
    "read_record": "pipeline.storage.record",
}
"""Names that can be imported from the package, and where they are."""

_begun_as = sys.orig_argv[sys.orig_argv.index("-m") + 1] if "-m" in sys.orig_argv[:-1] else ""
if _begun_as.split(".")[0] == __name__ and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    # ``python -m pipeline...``: until a program listens, Ctrl-C ends it silently, in the middle of its imports.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

__all__ = ["CollapseCallback", "CollapseTracker", "Reading", "Taps", "read_classes", "read_record"]


def __getattr__(name: str) -> object:
    # On demand: whoever needs one room of the package should not wait for all that tracking imports.
    if name in PUBLIC:
        return getattr(import_module(PUBLIC[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
