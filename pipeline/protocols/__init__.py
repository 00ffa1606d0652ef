"""Protocols: each composes the shared stages into one experiment and returns its `Outcome`.

Add one by writing a module here and naming it in ``PROTOCOLS`` and in ``conf/protocol/``.
"""

from collections.abc import Callable

from pipeline.protocols.dufm import dufm
from pipeline.protocols.frozen_features import frozen_features
from pipeline.stages import Outcome, Run

PROTOCOLS: dict[str, Callable[[Run], Outcome]] = {"frozen_features": frozen_features, "dufm": dufm}
