"""A value of the objective that theory knows, and the point that has it."""

from collections.abc import Callable
from dataclasses import dataclass, field

from pipeline.theory._problem import DufmFactors

OPTIMUM, STATIONARY, ATTAINED, BOUND = "optimum", "stationary", "attained", "bound"
"""Kinds of a reference: nothing is lower; a stationary point has this value; a point that is not stationary has it;
no point known has it. An "optimum" is proven, in the source that its provider names or there; what is merely the lowest
value known is not called one."""


@dataclass(frozen=True)
class Reference:
    """A value of the objective that theory knows.

    name: of the state that has this value.
    kind: `OPTIMUM`, `STATIONARY`, `ATTAINED` or `BOUND`.
    ranks: of the class means at the constructed point, place by place in the order of `pipeline.dufm.layer_taps`
        (1 pre, 2 pre, 2 post, ..., L pre, L post); () for a bound.
    construct: (widths d_1..d_L, generator, nonnegative_features=False) -> a random point that has the value, float64;
        None for a bound. Raises ValueError for widths that do not hold it. Samples stand in the order of their classes.
        For L = 0 the only width is that of the features.
    fitted: classes that are fitted, where this is what tells the states of a family apart.
    widths: the least widths d_1..d_L of a network that holds the point.
    """

    name: str
    value: float
    kind: str
    ranks: tuple[int, ...] = ()
    construct: Callable[..., DufmFactors] | None = field(default=None, compare=False, repr=False)
    fitted: int | None = None
    widths: tuple[int, ...] = ()

    @property
    def is_zero(self) -> bool:
        """Whether all factors of the point are zero."""
        return self.kind != BOUND and not any(self.ranks)
