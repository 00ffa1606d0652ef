"""Sets that free features are kept in, each with its projection."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F


def _nonnegative(features: Tensor) -> None:
    features.clamp_(min=0)


def _sphere(features: Tensor) -> Tensor:
    return _unit_rows(features, features)


def _nonnegative_sphere(features: Tensor) -> Tensor:
    return _unit_rows(features, features.clamp(min=0))


def _unit_rows(features: Tensor, kept: Tensor) -> Tensor:
    """Make `features` the directions of `kept`; returns how many rows had none.

    Such a row goes to the axis of its largest entry: among unit vectors without negative entries that is the nearest
    to a row without positive ones, and to a row of zeros all are equally near.
    """
    norms = torch.linalg.vector_norm(kept, dim=-1, keepdim=True)
    lost = norms == 0
    largest = features.argmax(dim=-1, keepdim=True)
    axes = (torch.arange(features.shape[-1], device=features.device) == largest).to(features)
    features.copy_(torch.where(lost, axes, kept / norms.masked_fill(lost, 1.0)))
    return lost.sum()


_PROJECTIONS: dict[str, Callable[[Tensor], Tensor | None]] = {
    "nonnegative": _nonnegative,
    "sphere": _sphere,
    "nonnegative_sphere": _nonnegative_sphere,
}


def mapped(features: Tensor, constraint: str) -> Tensor:
    """A network's features `(N, d)`, mapped onto the set by layers: ReLU, then division by the norm (0 stays 0)."""
    if "nonnegative" in constraint:
        features = features.relu()
    return F.normalize(features, dim=-1) if "sphere" in constraint else features


class Constraint:
    """The Euclidean projection of every row of features `(S, N, d)` onto a set, in place.

    Args:
        name: one of `CONSTRAINTS` but ``none``.

    Attributes:
        without_direction: how many rows, over all calls, had no direction (on the sphere with ``h >= 0``: no positive
            entry), and were put on an axis.

    Raises:
        ValueError: an unknown name.
    """

    def __init__(self, name: str) -> None:
        if name not in _PROJECTIONS:
            raise ValueError(f"constraint must be one of {sorted(_PROJECTIONS)}, got {name!r}")
        self.name = name
        self._count: Tensor | None = None
        self._before = 0

    @classmethod
    def named(cls, name: str) -> "Constraint | None":
        """A fresh constraint of this name; None for ``none``."""
        return None if name == "none" else cls(name)

    @property
    def is_on_sphere(self) -> bool:
        """Whether rows have unit norm."""
        return "sphere" in self.name

    @property
    def is_nonnegative(self) -> bool:
        """Whether entries are at least 0."""
        return "nonnegative" in self.name

    @property
    def without_direction(self) -> int:
        """See the class."""
        return self._before + (0 if self._count is None else int(self._count))

    @without_direction.setter
    def without_direction(self, count: int) -> None:
        self._before, self._count = count, None

    def __call__(self, features: Tensor) -> None:
        lost = _PROJECTIONS[self.name](features)
        if lost is not None:  # counted on the device: a word to the host in every step would cost more than the step
            if self._count is None:
                self._count = torch.zeros_like(lost)
            self._count += lost
