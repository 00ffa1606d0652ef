"""L-BFGS of many members at once: histories, step lengths and ends are their own, evaluations are shared.

Byrd, Nocedal and Schnabel 1994; Nocedal and Wright, Numerical Optimization, chapter 7. Steps obey the approximate Wolfe
conditions of Hager and Zhang (SIAM J. Optim. 16, 2005), which can still be told from rounding where differences of the
objective cannot.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

HISTORY = 10
"""Pairs of steps and gradient differences kept of each member."""
SUFFICIENT, CURVATURE = 0.1, 0.9
"""delta and sigma of the Wolfe conditions: how much of the first slope a step has to win, and may leave."""
MOST_TRIALS = 25
"""Step lengths that are tried along one direction."""
ROUNDING = 1e-14
"""Relative to the objective: differences below it are not seen."""
PATIENCE = 20
"""Iterations in a row that win nothing but rounding before a member is taken for done."""

Evaluate = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Values `(R,)` and gradients `(R, P)` of some members `(R,)` at `(R, P)`."""


class Search:
    """L-BFGS of R members, and what each that is not done remembers; `rows` are those that are not."""

    def __init__(self, evaluate: Evaluate, position: Tensor) -> None:
        self._evaluate = evaluate
        self.position = position.clone()
        self.rows = torch.arange(len(position), device=position.device)
        self._at = position
        self._value, self._slope = evaluate(position, self.rows)
        self._history = _History(position)
        self._idle = torch.zeros_like(self.rows)
        self.iterations = [0] * len(position)

    def retire(self, tolerance: float) -> bool:
        """Let the members that are done stay where they are; whether any is left."""
        self.keep((self._slope.norm(dim=-1) > tolerance) & (self._idle < PATIENCE))
        return len(self.rows) > 0

    def advance(self, iterations: int, tolerance: float) -> int:
        """Up to so many iterations of every member that is not done; returns the most that one has taken."""
        for count in range(iterations):
            if not self.retire(tolerance):
                return count
            self.iterate()
        self.retire(tolerance)
        return iterations

    def keep(self, going: Tensor) -> None:
        """Let the other members stay where they are."""
        self.position[self.rows] = self._at
        if not going.all():
            self.rows, self._at, self._idle = self.rows[going], self._at[going], self._idle[going]
            self._value, self._slope = self._value[going], self._slope[going]
            self._history.keep(going)

    @property
    def now(self) -> Tensor:
        """Where the members are that are not done."""
        return self._at

    def iterate(self) -> None:
        """One step of every member that is not done."""
        value, slope, rows = self._value, self._slope, self.rows
        direction, first = self._history.direction(slope)
        descends = (direction * slope).sum(-1) < 0
        direction = torch.where(descends[:, None], direction, -slope)
        length = torch.where(first | ~descends, (1 / slope.norm(dim=-1)).clamp(max=1.0), 1.0)

        def evaluate(at: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
            return self._evaluate(at, rows[chosen])

        found = _line_search(evaluate, self._at, value, slope, direction, length)
        moved = found.length > 0
        steps = found.length[:, None] * direction
        self._history.remember(steps, found.slope - slope, moved)
        gained = value - found.value > ROUNDING * value.abs()
        fell = found.slope.norm(dim=-1) < 0.9 * slope.norm(dim=-1)
        self._idle = torch.where(gained | fell, 0, self._idle + 1).masked_fill(~moved & first, PATIENCE)
        self._at, self._value, self._slope = self._at + steps, found.value, found.slope
        for row in rows.tolist():
            self.iterations[row] += 1


class _History:
    """The last steps s and gradient differences y of every member, in a ring, and what the inverse Hessian needs of
    them (Byrd, Nocedal, Schnabel 1994, eq. 2.25): reading all of them twice costs less than one evaluation.

    A member that could not move begins anew, and pairs without positive curvature are left out: they read as zeros.
    """

    def __init__(self, like: Tensor) -> None:
        members, size = like.shape
        self._steps, self._changes = (like.new_zeros(members, HISTORY, size) for _ in range(2))
        self._products, self._squares = (like.new_zeros(members, HISTORY, HISTORY) for _ in range(2))  # s.y, y.y
        self._scale = like.new_ones(members)
        self._order: list[int] = []  # places, the oldest first

    def keep(self, going: Tensor) -> None:
        """Forget members that are done."""
        for name in ("_steps", "_changes", "_products", "_squares", "_scale"):
            setattr(self, name, getattr(self, name)[going])

    def direction(self, slope: Tensor) -> tuple[Tensor, Tensor]:
        """-H grad `(R, P)`, and which members have no history."""
        order = self._order
        if not order:
            return -slope, torch.ones_like(self._scale, dtype=torch.bool)
        used = self._products.diagonal(dim1=1, dim2=2)[:, order]
        along = (self._steps @ slope[..., None])[:, order, 0]
        across = (self._changes @ slope[..., None])[:, order, 0]
        products = self._products[:, order][:, :, order].triu()
        products = products + torch.diag_embed((used == 0).to(slope))
        squares = self._squares[:, order][:, :, order]
        scale = self._scale[:, None]
        inner = torch.linalg.solve_triangular(products, along[..., None], upper=True)
        middle = used[..., None] * inner + scale[..., None] * (squares @ inner) - scale[..., None] * across[..., None]
        of_steps = torch.linalg.solve_triangular(products.mT, middle, upper=False)[..., 0] * (used > 0)
        of_changes = -scale * inner[..., 0] * (used > 0)
        rows, columns = torch.zeros_like(self._squares[:, 0]), torch.zeros_like(self._squares[:, 0])
        rows[:, order], columns[:, order] = of_steps, of_changes
        result = scale * slope
        result = torch.baddbmm(result[:, None], rows[:, None], self._steps)
        result = torch.baddbmm(result, columns[:, None], self._changes)[:, 0]
        return -result, (used == 0).all(-1)

    def remember(self, steps: Tensor, changes: Tensor, moved: Tensor) -> None:
        """Keep the newest pairs in the place of the oldest."""
        place = len(self._order) if len(self._order) < HISTORY else self._order.pop(0)
        self._order.append(place)
        curvature, square = (steps * changes).sum(-1), changes.square().sum(-1)
        useful = moved & (curvature > 1e-12 * square.sqrt() * steps.norm(dim=-1))
        self._steps[:, place] = steps * useful[:, None]
        self._changes[:, place] = changes * useful[:, None]
        products = self._steps @ self._changes[:, place, :, None]
        self._products[:, :, place] = products[..., 0]
        self._products[:, place] = (self._changes @ self._steps[:, place, :, None])[..., 0]
        self._squares[:, :, place] = self._squares[:, place] = (self._changes @ self._changes[:, place, :, None])[
            ..., 0
        ]
        self._scale = torch.where(useful, curvature / square, self._scale)
        for kept in (self._steps, self._changes, self._products, self._squares):
            kept[~moved] = 0
        self._scale[~moved] = 1


@dataclass(frozen=True)
class _Found:
    """Step lengths `(R,)`, 0 where none was found, and value and gradient there."""

    length: Tensor
    value: Tensor
    slope: Tensor


def _line_search(
    evaluate: Evaluate,
    position: Tensor,
    value: Tensor,
    slope: Tensor,
    direction: Tensor,
    length: Tensor,
) -> _Found:
    """For every member a length that satisfies the approximate Wolfe conditions, by bracketing and secants."""
    first = (direction * slope).sum(-1)
    ceiling = value + ROUNDING * value.abs()
    low, low_slope = torch.zeros_like(length), first.clone()
    high, high_slope = torch.full_like(length, torch.inf), torch.full_like(length, torch.nan)
    best = _Found(torch.zeros_like(length), value.clone(), slope.clone())
    open_ = torch.ones_like(length, dtype=torch.bool)
    for _ in range(MOST_TRIALS):
        rows = open_.nonzero()[:, 0]
        if not len(rows):
            break
        at = length[rows]
        there, gradient = evaluate(position[rows] + at[:, None] * direction[rows], rows)
        rise = (gradient * direction[rows]).sum(-1)
        sound = torch.isfinite(there) & torch.isfinite(rise)
        below = sound & (there <= ceiling[rows])
        steep = first[rows]
        armijo = there <= value[rows] + SUFFICIENT * at * steep
        approximate = rise <= (2 * SUFFICIENT - 1) * steep
        accepted = below & (armijo | approximate) & (rise >= CURVATURE * steep)
        better = accepted | (below & (there < best.value[rows]))
        kept = rows[better]
        best.length[kept], best.value[kept], best.slope[kept] = at[better], there[better], gradient[better]
        open_[rows[accepted]] = False
        too_far = ~below | (rise >= 0)
        far, near = rows[too_far], rows[~too_far]
        high[far], high_slope[far] = at[too_far], torch.where(below, rise, torch.nan)[too_far]
        low[near], low_slope[near] = at[~too_far], rise[~too_far]
        length = _next_length(low, low_slope, high, high_slope)
    return best


def _next_length(low: Tensor, low_slope: Tensor, high: Tensor, high_slope: Tensor) -> Tensor:
    """By the secant of the slopes within the bracket, or its middle; where there is no upper end, further out."""
    width = high - low
    secant = low - low_slope * width / (high_slope - low_slope)
    inside = torch.isfinite(secant) & (secant > low + 0.05 * width) & (secant < high - 0.05 * width)
    within = torch.where(inside, secant, low + 0.5 * width)
    return torch.where(torch.isinf(high), 4 * low.clamp(min=1e-8), within)
