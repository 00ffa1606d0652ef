"""The problems that theory speaks of, and points of them: what all families of closed forms share."""

import math
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import NamedTuple

from torch import Tensor


@dataclass(frozen=True)
class DufmProblem:
    """A balanced DUFM: K classes, n samples per class, L weight matrices and the decay of every factor.

    `weight_decay` is one number for all layers or one per layer, W_1 first; decays are positive and enter the objective
    as decay/2 ||factor||_F^2. Raises ValueError naming the argument.

    >>> DufmProblem(num_classes=2, samples_per_class=50, depth=3, weight_decay=5e-4, feature_decay=1e-3).weight_decays
    (0.0005, 0.0005, 0.0005)
    """

    num_classes: int
    samples_per_class: int
    depth: int
    weight_decay: float | Sequence[float]
    feature_decay: float

    def __post_init__(self) -> None:
        checked = {
            "num_classes": integer("num_classes", self.num_classes, 2),
            "samples_per_class": integer("samples_per_class", self.samples_per_class, 1),
            "depth": integer("depth", self.depth, 1),
            "feature_decay": _decay("feature_decay", self.feature_decay),
        }
        if isinstance(self.weight_decay, Iterable) and not isinstance(self.weight_decay, str):
            decays = tuple(_decay("weight_decay", decay) for decay in self.weight_decay)
            if len(decays) != checked["depth"]:
                raise ValueError(
                    f"weight_decay has {len(decays)} values, must be one number or one per layer ({checked['depth']})"
                )
            checked["weight_decay"] = decays
        else:
            checked["weight_decay"] = _decay("weight_decay", self.weight_decay)
        for name, value in checked.items():
            object.__setattr__(self, name, value)

    @property
    def weight_decays(self) -> tuple[float, ...]:
        """The decays of W_1..W_L, whether one number or L of them were given."""
        return self.weight_decay if isinstance(self.weight_decay, tuple) else (self.weight_decay,) * self.depth


class DufmFactors(NamedTuple):
    """A point of the DUFM: features (N, d_1), labels int64 (N,) and weights W_l (d_{l+1}, d_l), l = 1..L."""

    features: Tensor
    labels: Tensor
    weights: tuple[Tensor, ...]


def integer(name: str, value: object, least: int, most: int | None = None) -> int:
    """`value` as an int, or a ValueError that names it unless it is one from `least` to `most`."""
    allowed = f"an integer >= {least}" if most is None else f"an integer from {least} to {most}"
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least or (most and value > most):
        raise ValueError(f"{name} is {value!r}, must be {allowed}")
    return int(value)


def _decay(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, Real) or not math.ulp(0.0) <= value <= sys.float_info.max:
        raise ValueError(f"{name} is {value!r}, must be a positive finite number")
    return float(value)
