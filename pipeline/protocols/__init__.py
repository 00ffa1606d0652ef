"""Protocols: each composes the shared stages into one experiment and returns its `Outcome`.

Add one by writing a module here and naming it in ``PROTOCOLS`` and in ``conf/protocol/``.
"""

from collections.abc import Callable

from pipeline.protocols.dufm import dufm
from pipeline.protocols.end_to_end import end_to_end
from pipeline.protocols.fixed_head import fixed_head
from pipeline.protocols.frozen_features import frozen_features
from pipeline.run import Outcome, Run

PROTOCOLS: dict[str, Callable[[Run], Outcome]] = {
    "frozen_features": frozen_features,
    "end_to_end": end_to_end,
    "fixed_head": fixed_head,
    "dufm": dufm,
}
