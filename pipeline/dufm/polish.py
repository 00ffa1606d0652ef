"""Second order at the end of a descent: L-BFGS in float64 on all members at once, each as if it were alone.

Near a minimum gradient descent gains a digit in some 1/(lr lambda) steps, L-BFGS in tens of them
(`pipeline.dufm.lbfgs`).

ReLU puts minima on kinks: what a unit gets from a class that it does not serve is driven to exactly 0, from below.
There no second-order method converges quickly. So the search changes between the function itself and the smooth one
that it is while no unit changes its mind (`Cost.pattern`), and keeps what the latter found if the function agrees. On
the function itself it takes steps of heavy-ball descent where it knows a step size (`pipeline.dufm.heavy_ball`), and
else of L-BFGS.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pipeline.dufm.charts import Chart
from pipeline.dufm.cost import Cost, Point
from pipeline.dufm.heavy_ball import rolled
from pipeline.dufm.lbfgs import Search
from pipeline.dufm.lbfgs_native import NativeSearch, can_search

MOST_ITERATIONS = 5000
FREE, FIXED = 200, 500
"""Iterations on the function itself at first, and then on the one whose units do not change their minds; the former are
twice as many after every round."""
ROLLS = (2000, 4000, 4000)
"""Steps of heavy-ball descent before the searches with a fixed pattern, one round each."""
ON_THEIR_WAY = ((0.3, 0.5), (0.1, 0.5), (0.5, 0.5), (1e-2, 0.0))
"""What is taken to be on its way to 0, in turn: activations below a share of the largest of their layer, or of the
largest of their own unit. A guess: it is kept only where the function itself is no higher there."""
LOOK = 50
"""Iterations between two calls of `on_iteration` and, with a fixed pattern, two looks whether the function itself has
become higher."""
SLACK = 1e-12
"""Relative to the objective: how far the function and the one with a fixed pattern may differ to be the same."""


@dataclass(frozen=True)
class Polished:
    """Where the members ended.

    Attributes:
        point: float64, of all members.
        iterations: of each member.
        gradient_norm: `(S,)`, ||gradient||_2 at the end over everything that is free; of constrained features what
            points along the constraint set or into it. On a kink it is the gradient on the side that the member came
            from.
        steps: of heavy-ball descent, of each member.
    """

    point: Point
    iterations: tuple[int, ...]
    gradient_norm: Tensor
    steps: tuple[int, ...]


def polish(
    cost: Cost,
    point: Point,
    *,
    iterations: int = MOST_ITERATIONS,
    tolerance: float = 1e-10,
    constraint: str = "none",
    lr: Tensor | None = None,
    on_iteration: Callable[[int], None] = lambda iteration: None,
) -> Polished:
    """Minimise `cost` from `point`, member by member.

    Args:
        cost: of S members; its tensors are taken to float64.
        point: of S members, finite; features `(N, d_1)` where they are frozen.
        iterations: at most, of each member.
        tolerance: a member is done when its gradient's norm is at most this.
        constraint: a name of `pipeline.dufm.CONSTRAINTS`; the features are then moved along their set.
        lr: `(S,)`, step sizes that suit plain descent; used where ReLU puts the minimum on kinks.
        on_iteration: called with the number of iterations done, after every `LOOK` at the latest.
    """
    polishing = _Polishing(_in_float64(cost), point, constraint)
    has_kinks = cost.activation == "relu" and len(point.weights) > 1
    rolls = has_kinks and lr is not None
    left, done, round_ = list(range(len(polishing.position))), 0, 0

    def search(members: list[int], at_most: int, masks: list[Tensor] | None = None) -> Search | NativeSearch:
        nonlocal done
        found, last = polishing.search(members, masks), min(done + at_most, iterations)
        while len(found.rows) and done < last:
            if taken := found.advance(min(LOOK, last - done), tolerance):
                done += taken
                on_iteration(done)
            if masks is not None and len(found.rows) and done < last:
                found.keep(polishing.no_higher(members, found))
        return found

    while left and done < iterations and not (rolls and round_ == len(ROLLS)):
        rolled_on = polishing.roll(left, lr, ROLLS[round_], lambda: on_iteration(done)) if rolls else []
        if others := [member for member in left if member not in rolled_on]:
            found = search(others, FREE * 2 ** (0 if rolls else round_) if has_kinks else iterations)
            polishing.settle(others, found)
            left = sorted([*rolled_on, *(others[row] for row in found.rows.tolist())])
        if left and has_kinks and done < iterations:
            masks = polishing.pattern(left, *ON_THEIR_WAY[round_ % len(ON_THEIR_WAY)])
            agreed = polishing.agree(left, masks, search(left, FIXED, masks))
            left = [member for member, fine in zip(left, agreed, strict=True) if not fine]
        round_ += 1
    return polishing.result()


class _Polishing:
    """Where all members are, how far they have come, and the pattern of those that ended on kinks."""

    def __init__(self, cost: Cost, point: Point, constraint: str) -> None:
        self._cost, self._constraint = cost, constraint
        self._chart = chart = Chart(point, constraint, free=cost.feature_decay is not None)
        self._native = can_search(cost, point, constraint)
        self._widths = [weight.shape[-1] for weight in point.weights]
        self.position = chart.start
        self._iterations, self._steps = [0] * len(self.position), [0] * len(self.position)
        self._norms = torch.full_like(self.position[:, 0], torch.nan)

    def search(self, members: list[int], masks: list[Tensor] | None) -> Search | NativeSearch:
        """A search of some members from where they are, with the pattern `masks` if one is given."""
        own = self._own(members)
        if self._native:
            return NativeSearch(
                self._cost.select(members), self._widths, self.position[members], self._constraint, masks
            )

        def evaluate(at: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
            chosen = own[rows]
            cost = self._cost if len(chosen) == len(self.position) else self._cost.select(chosen.tolist())
            pattern = None if masks is None else [mask[rows] for mask in masks]
            terms, gradient = cost.value_and_gradients(self._chart.point(at, chosen), pattern)
            return terms.total, self._chart.pulled_back(at, gradient)

        return Search(evaluate, self.position[members])

    def settle(self, members: list[int], found: Search | NativeSearch) -> None:
        """Take over where some members have come to."""
        self.position[members] = found.position
        for member, count in zip(members, found.iterations, strict=True):
            self._iterations[member] += count

    def roll(self, members: list[int], lr: Tensor, steps: int, on_block: Callable[[], None]) -> list[int]:
        """Heavy-ball steps on the function itself, of those whom they take down; returns these."""
        cost, chart = self._cost.select(members), self._chart
        before = chart.point(self.position[members], self._own(members))
        reached, lower = rolled(cost, before, lr.cpu()[members], steps, self._constraint, on_block)
        end = Chart(reached, self._constraint, free=cost.feature_decay is not None).start
        for member, moved in zip(members, lower.tolist(), strict=True):
            self._steps[member] += steps * moved
        self.position[members] = torch.where(lower[:, None], end, self.position[members])
        return [member for member, moved in zip(members, lower.tolist(), strict=True) if moved]

    def pattern(self, members: list[int], least: float, own_least: float) -> list[Tensor]:
        """Which units of W_1..W_{L-1} fire for which samples, `(R, N, d)` each."""
        point = self._chart.point(self.position[members], self._own(members))
        return self._cost.select(members).pattern(point, least, own_least)

    def no_higher(self, members: list[int], found: Search | NativeSearch) -> Tensor:
        """Of the rows that are still searched: whether the function itself is no higher than before the search."""
        some = [members[row] for row in found.rows.tolist()]
        cost, own = self._cost.select(some), self._own(some)
        before = cost.value(self._chart.point(self.position[some], own)).total
        return cost.value(self._chart.point(found.now, own)).total <= before + SLACK * before.abs()

    def _own(self, members: list[int]) -> Tensor:
        return torch.tensor(members, device=self.position.device)

    def agree(self, members: list[int], masks: list[Tensor], found: Search | NativeSearch) -> list[bool]:
        """Take over the ends of a search with a fixed pattern where the function itself is no higher than before; which
        of them have converged, to a point where it has the same value."""
        own = self._own(members)
        cost, point = self._cost.select(members), self._chart.point(found.position, own)
        terms, gradient = cost.value_and_gradients(point, masks)
        true = cost.value(point).total
        before = cost.value(self._chart.point(self.position[members], own)).total
        slack = SLACK * before.abs()
        lower = true <= before + slack
        fine = lower & ((true - terms.total).abs() <= slack)
        fine[found.rows] = False  # it has not come to its end
        for row, member in enumerate(members):
            self._iterations[member] += found.iterations[row]
        self.position[own[lower]] = found.position[lower]
        self._norms[own[fine]] = self._chart.gradient_norm(point, gradient)[fine]
        return fine.tolist()

    def result(self) -> Polished:
        """The end of all members."""
        end = self._chart.point(self.position)
        norms = self._chart.gradient_norm(end, self._cost.value_and_gradients(end)[1])
        norms = torch.where(self._norms.isnan(), norms, self._norms)
        return Polished(end, tuple(self._iterations), norms, tuple(self._steps))


def _in_float64(cost: Cost) -> Cost:
    anchor = cost.anchor
    anchor = anchor and replace(anchor, features=anchor.features.double())
    return replace(cost, targets=cost.targets.double(), anchor=anchor)
