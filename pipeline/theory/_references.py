"""Values that theory knows of a problem, and which of them a loss sits at.

Every module of `pipeline.theory.providers` is a family of closed forms. Its `references` gives what the family knows of
a problem: nothing, `()`, of a problem that it does not treat.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from numbers import Real

from pipeline.runtime.discovery import modules_in
from pipeline.theory._problem import DufmProblem, Problem
from pipeline.theory._reference import BOUND, OPTIMUM, Reference
from pipeline.theory.providers import collapsed

_COLLAPSED = ("global optimum", "collapsed solution", "metastable collapsed solution")

_LISTED = 20  # names that an error tells

# How far below a reference value a loss may be by rounding alone (float32 objectives are good to about 1e-6).
_ROUNDING = 1e-5


@dataclass(frozen=True)
class Diagnosis:
    """Which value a run sits at: `name` for people, `fitted` classes (None if no value fits) for programs.

    `gap` is (loss - reference) / reference, where `reference` is the value named, or else the nearest one.
    """

    name: str
    fitted: int | None
    reference: float
    gap: float


def references(problem: Problem | DufmProblem, widths: Sequence[int] | None = None) -> tuple[Reference, ...]:
    """What all families know of a problem; of a `DufmProblem`, the states of its collapsed family, 0..K classes fitted.

    With `widths` d_1..d_L, points that do not fit in are left out; an optimum of wider networks is a bound then.
    """
    if isinstance(problem, DufmProblem):
        known = collapsed.states(problem)
    else:
        if problem.anchor is not None and not problem.anchor.strength:
            problem = replace(problem, anchor=None)
        families = modules_in("pipeline.theory.providers")
        known = tuple(state for family in families for state in family.references(problem))
    if widths is None:
        return known
    return tuple(fitting for state in known if (fitting := _within(state, widths)) is not None)


def _within(state: Reference, widths: Sequence[int]) -> Reference | None:
    if all(width >= least for width, least in zip(widths, state.widths, strict=False)):
        return state
    return replace(state, kind=BOUND, ranks=(), construct=None) if state.kind == OPTIMUM else None


def named(known: Iterable[Reference], name: str) -> Reference:
    """The reference of this name, words joined by blanks or underscores; "collapsed": that of all classes fitted.

    Raises ValueError that lists the names of all points.
    """
    points = _points(known)
    wanted = name.lower().replace("_", " ")
    for point in points:
        if point.name.lower() == wanted:
            return point
    if wanted in ("collapsed", "collapsed solution"):
        states = [point for point in points if point.fitted is not None and not point.is_zero]
        whole = [point for point in states if point.name in _COLLAPSED]
        if whole:
            return whole[0]
    names = [point.name for point in points]
    more = f", and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    raise ValueError(f"no point is named {name!r}; known here: {', '.join(names[:_LISTED]) or 'none'}{more}")


def lowest(known: Iterable[Reference]) -> Reference:
    """The cheapest point known, which gaps are taken to; the first of equal ones. Bounds do not count."""
    return min(_points(known), key=lambda reference: reference.value)


def diagnose(problem: Problem | DufmProblem, loss: float, tolerance: float = 0.01) -> Diagnosis:
    """Name the value a run's final loss sits at, among all that is known of its problem, see `diagnose_among`.

    Names of the collapsed family: "global optimum" where a theorem says so, else "collapsed solution", "metastable
    collapsed solution" (zero is cheaper, up to the fold), "m of K classes fitted", "zero solution".

    >>> diagnose(DufmProblem(2, 50, 3, 5e-4, 5e-4), 0.25266).name
    '1 of 2 classes fitted'
    """
    return diagnose_among(references(problem), loss, tolerance)


def diagnose_among(known: Iterable[Reference], loss: float, tolerance: float = 0.01) -> Diagnosis:
    """Name the reference a loss sits at: the nearest one it lies at most `tolerance` (relative) above.

    Descent comes to a value from above, so below it only rounding (1e-5) is allowed. Besides the names of the
    references: "below all references" for a loss under all of them, a state that theory here does not know and no
    error (e.g. a low-rank solution for K > 2); "below the global optimum", or zero solution, under one that nothing is
    below, so a sign of another objective; "diverged" for NaN and infinities; else "none of them". With hundreds of
    states, or close to a threshold, the values lie closer than 1 %: the nearest one is named; lower `tolerance`.
    Raises ValueError for a tolerance that is no finite number >= 0, and for a list without a point.
    """
    if isinstance(tolerance, bool) or not isinstance(tolerance, Real) or not 0 <= tolerance < math.inf:
        raise ValueError(f"tolerance is {tolerance!r}, must be a finite number >= 0")
    loss, points = float(loss), _points(known)
    if not points:
        raise ValueError("no reference with a point is known, so a loss has none to sit at")
    cheapest = lowest(points)
    if not math.isfinite(loss):
        return Diagnosis("diverged", None, cheapest.value, loss)
    gaps = [(loss - point.value) / point.value for point in points]
    reached = [index for index, gap in enumerate(gaps) if -_ROUNDING <= gap <= tolerance]
    nearest = min(reached or range(len(gaps)), key=lambda index: abs(gaps[index]))
    point, gap = points[nearest], gaps[nearest]
    if reached:
        return Diagnosis(point.name, point.fitted, point.value, gap)
    if loss >= cheapest.value:
        name = "none of them"
    else:
        name = f"below the {cheapest.name}" if cheapest.kind == OPTIMUM else "below all references"
    return Diagnosis(name, None, point.value, gap)


def _points(known: Iterable[Reference]) -> Sequence[Reference]:
    return [reference for reference in known if reference.kind != BOUND]
