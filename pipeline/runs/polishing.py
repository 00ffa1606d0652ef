"""The end of a head's descent, polished by second order, as part of its stage."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pipeline.dufm.cost import Point
from pipeline.dufm.descent import Descent
from pipeline.dufm.polish import polish
from pipeline.runs.solutions import Polish


@dataclass(frozen=True)
class Ending:
    """Where this rank's members of a descent have ended, diverged ones as NaN; and their polish, if they had any.

    switched: member -> step from which on its products were in float64; None where all of them were.
    """

    point: Point
    diverged: dict[int, int]
    without_direction: int
    polish: Polish | None = None
    switched: dict[int, int] | None = None

    @classmethod
    def of(cls, descent: Descent) -> "Ending":
        """As descent left it."""
        switched = dict(descent.switched) if descent.mixed else None
        return cls(descent.point, dict(descent.diverged), descent.without_direction, switched=switched)


def polished(descent: Descent, constraint: str, on_iteration: Callable[[int], None]) -> Ending:
    """The end of a descent, polished in float64.

    Args:
        constraint: of the features, a name of `pipeline.dufm.CONSTRAINTS`.
        on_iteration: called every few iterations, with how many are done.
    """
    alive = [member for member in range(descent.num_members) if member not in descent.diverged]
    end, (norms, iterations, steps) = descent.point, ([None] * descent.num_members for _ in range(3))
    point = Point(
        end.features if end.features is None else end.features.double(),
        tuple(weight.double() for weight in end.weights),
        None if end.bias is None else end.bias.double(),
    )
    if alive:
        found = polish(
            descent.cost.select(alive),
            _some(point, alive),
            constraint=constraint,
            lr=descent.lr[alive],
            on_iteration=on_iteration,
        )
        point = _with(point, alive, found.point)
        ends = zip(alive, found.iterations, found.gradient_norm.tolist(), found.steps, strict=True)
        for member, *how in ends:
            iterations[member], norms[member], steps[member] = how
    how = Polish(descent.step, iterations, norms, steps)
    return replace(Ending.of(descent), point=point, polish=how)


def joined(parts: list[Polish | None]) -> Polish | None:
    """That of all members, from those of consecutive ones."""
    if any(part is None for part in parts):
        return None
    iterations = [count for part in parts for count in part.iterations]
    norms = [norm for part in parts for norm in part.gradient_norm]
    return Polish(parts[0].from_step, iterations, norms, [count for part in parts for count in part.heavy_ball_steps])


def polish_rows(how: Polish) -> Tensor:
    """As a tensor `(S, 4)` to keep: step, iterations, gradient norm, heavy-ball steps; NaN for a diverged member."""
    rows = zip(how.iterations, how.gradient_norm, how.heavy_ball_steps, strict=True)
    return torch.tensor(
        [[how.from_step, *(math.nan if value is None else value for value in row)] for row in rows],
        dtype=torch.float64,
    )


def polish_of(rows: Tensor) -> Polish:
    """From what `polish_rows` made of it; stages kept by older versions say nothing of heavy-ball steps."""
    columns = [[None if math.isnan(value) else value for value in column] for column in rows.T.tolist()]
    step, iterations, norms, *more = columns
    counts = [[None if count is None else int(count) for count in column] for column in (iterations, *more)]
    nothing = [None if count is None else 0 for count in counts[0]]
    return Polish(int(step[0]), counts[0], norms, counts[1] if more else nothing)


def _some(point: Point, members: list[int]) -> Point:
    features = point.features if point.features.dim() == 2 else point.features[members]
    bias = None if point.bias is None else point.bias[members]
    return Point(features, tuple(weight[members] for weight in point.weights), bias)


def _with(point: Point, members: list[int], found: Point) -> Point:
    """The point with some members where they were found to end."""
    features = point.features
    if features.dim() == 3:
        features = features.index_copy(0, torch.tensor(members, device=features.device), found.features)
    place = torch.tensor(members, device=features.device)
    weights = tuple(w.index_copy(0, place, f) for w, f in zip(point.weights, found.weights, strict=True))
    bias = None if point.bias is None else point.bias.index_copy(0, place, found.bias)
    return Point(features, weights, bias)
