"""Which objectives there are."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from pipeline.runtime.discovery import names_in
from pipeline.runtime.suggestions import did_you_mean

if TYPE_CHECKING:
    from pipeline.dufm.objectives._objective import Objective


def known_objectives() -> tuple[str, ...]:
    """Names of all objectives; none of them is imported."""
    return names_in(__package__)


def load_objective(name: str) -> Objective:
    """The objective of that name.

    Raises:
        ValueError: no such name.
        TypeError: its module holds no `OBJECTIVE`.
    """
    if name not in known_objectives():
        hint = did_you_mean(name, known_objectives())
        raise ValueError(f"objective={name!r} is not known; allowed: {', '.join(known_objectives())}{hint}.")
    from pipeline.dufm.objectives._objective import Objective  # here, because names alone need no PyTorch

    module = import_module(f"{__package__}.{name}")
    found = getattr(module, "OBJECTIVE", None)
    if not isinstance(found, Objective):
        raise TypeError(f"{module.__name__} must hold OBJECTIVE, an instance of Objective, got {found!r}")
    return found
