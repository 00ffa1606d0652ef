"""Values that theory knows of a problem, and which of them a loss sits at.

Every module of this package that does not begin with an underscore is a family of closed forms. Its `references`
gives what the family knows of a problem: nothing, `()`, of a problem that it does not treat.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from numbers import Real

from pipeline.runtime.discovery import modules_in
from pipeline.theory._problem import DufmFactors, DufmProblem

OPTIMUM, STATIONARY, ATTAINED, BOUND = "optimum", "stationary", "attained", "bound"
"""Kinds of a reference: nothing is lower; a stationary point has this value; a point that is not stationary has it;
no point known has it."""

# How far below a reference value a loss may be by rounding alone (float32 objectives are good to about 1e-6).
_ROUNDING = 1e-5


@dataclass(frozen=True)
class Reference:
    """A value of the objective that theory knows.

    name: of the state that has this value.
    kind: `OPTIMUM`, `STATIONARY`, `ATTAINED` or `BOUND`.
    ranks: of the class means at the constructed point, place by place in the order of `pipeline.dufm.layer_taps`
        (1 pre, 2 pre, 2 post, ..., L pre, L post); () for a bound.
    construct: (widths d_1..d_L, generator, nonnegative_features=False) -> a random point that has the value, float64;
        None for a bound. Raises ValueError for widths that do not hold it.
    fitted: classes that are fitted, where this is what tells the states of a family apart.
    """

    name: str
    value: float
    kind: str
    ranks: tuple[int, ...] = ()
    construct: Callable[..., DufmFactors] | None = field(default=None, compare=False, repr=False)
    fitted: int | None = None

    @property
    def is_zero(self) -> bool:
        """Whether all factors of the point are zero."""
        return self.kind != BOUND and not any(self.ranks)


@dataclass(frozen=True)
class Diagnosis:
    """Which value a run sits at: `name` for people, `fitted` classes (None if no value fits) for programs.

    `gap` is (loss - reference) / reference, where `reference` is the value named, or else the nearest one.
    """

    name: str
    fitted: int | None
    reference: float
    gap: float


def references(problem: DufmProblem) -> tuple[Reference, ...]:
    """What all families know of a problem."""
    return tuple(known for family in modules_in("pipeline.theory") for known in family.references(problem))


def lowest(known: Iterable[Reference]) -> Reference:
    """The cheapest point known, which gaps are taken to; the first of equal ones. Bounds do not count."""
    return min(_points(known), key=lambda reference: reference.value)


def diagnose(problem: DufmProblem, loss: float, tolerance: float = 0.01) -> Diagnosis:
    """Name the value a run's final loss sits at, among all that is known of its problem, see `diagnose_among`.

    Names of the collapsed family: "global optimum" (K = 2), "collapsed solution" (K > 2), "metastable collapsed
    solution" (zero is cheaper, up to the fold), "m of K classes fitted", "zero solution".

    >>> diagnose(DufmProblem(2, 50, 3, 5e-4, 5e-4), 0.25266).name
    '1 of 2 classes fitted'
    """
    return diagnose_among(references(problem), loss, tolerance)


def diagnose_among(known: Iterable[Reference], loss: float, tolerance: float = 0.01) -> Diagnosis:
    """Name the reference a loss sits at: the nearest one it lies at most `tolerance` (relative) above.

    Descent comes to a value from above, so below it only rounding (1e-5) is allowed. Besides the names of the
    references: "below the ..." for a loss under all of them (impossible under a global optimum, so a sign of another
    objective; else a state that theory here does not know, e.g. a low-rank solution for K > 2); "diverged" for NaN and
    infinities; else "none of them". With hundreds of classes, or close to a threshold, the values lie closer than
    1 %: lower `tolerance`. Raises ValueError for a tolerance that is no finite number >= 0.
    """
    if isinstance(tolerance, bool) or not isinstance(tolerance, Real) or not 0 <= tolerance < math.inf:
        raise ValueError(f"tolerance is {tolerance!r}, must be a finite number >= 0")
    loss, points = float(loss), _points(known)
    cheapest = lowest(points)
    if not math.isfinite(loss):
        return Diagnosis("diverged", None, cheapest.value, loss)
    gaps = [(loss - point.value) / point.value for point in points]
    reached = [index for index, gap in enumerate(gaps) if -_ROUNDING <= gap <= tolerance]
    nearest = min(reached or range(len(gaps)), key=lambda index: abs(gaps[index]))
    point, gap = points[nearest], gaps[nearest]
    if reached:
        return Diagnosis(point.name, point.fitted, point.value, gap)
    below = (loss - cheapest.value) / cheapest.value < 0
    return Diagnosis(f"below the {cheapest.name}" if below else "none of them", None, point.value, gap)


def _points(known: Iterable[Reference]) -> Sequence[Reference]:
    return [reference for reference in known if reference.kind != BOUND]
