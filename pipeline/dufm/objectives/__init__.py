"""What a head's outputs are fitted to, and what collapse is then: the file is the registration.

Every module here that does not begin with an underscore is an objective under the name of its file. It holds one
`OBJECTIVE`, an instance of `Objective`. With it ``head.loss`` and ``backbone.loss`` have one more choice.
"""

from typing import TYPE_CHECKING

from pipeline.runtime.on_demand import passes_on

if TYPE_CHECKING:
    from pipeline.dufm.objectives._objective import Objective, Promise
    from pipeline.dufm.objectives._registry import known_objectives, load_objective

__all__ = ["Objective", "Promise", "known_objectives", "load_objective"]

__getattr__ = passes_on(__name__, __file__)
