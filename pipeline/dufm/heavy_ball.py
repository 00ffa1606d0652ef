"""Many cheap steps with much momentum, between the few dear ones of `pipeline.dufm.polish`.

Near a minimum a step of heavy-ball descent (Polyak 1964) goes as far as 1 / (1 - momentum) plain ones, and costs no
more. It is not held up by kinks of ReLU, where L-BFGS stops: what a unit still gives to a class that it does not serve
goes on shrinking.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from pipeline.dufm.constraints import Constraint
from pipeline.dufm.cost import Cost, Point
from pipeline.dufm.descent import Descent

MOMENTUM = 0.99
BLOCK = 250
"""Steps between two calls of `on_block`."""


def rolled(
    cost: Cost, point: Point, lr: Tensor, steps: int, constraint: str, on_block: Callable[[], None] = lambda: None
) -> tuple[Point, Tensor]:
    """Where S members are after some steps from rest, and for whom that is lower; the others stay where they are.

    Args:
        cost: of S members, float64 on the point's device.
        point: with a member dimension in all that is free.
        lr: `(S,)`.
        constraint: a name of `pipeline.dufm.CONSTRAINTS`.

    Returns:
        The point, and `(S,)`: whether a member has moved.
    """
    descent = Descent(
        point.features,
        point.weights,
        None,
        num_classes=cost.targets.shape[-1],
        lr=lr,
        weight_decay=cost.weight_decay,
        feature_decay=cost.feature_decay,
        momentum=MOMENTUM,
        activation=cost.activation,
        loss=cost.loss,
        constraint=Constraint.named(constraint),
        bias=point.bias,
        targets=cost.targets,
        anchor=cost.anchor,
        bias_decay=cost.bias_decay,
    )
    for taken in range(0, steps, BLOCK):
        descent.advance(min(BLOCK, steps - taken))
        on_block()
    reached = descent.point
    lower = cost.value(reached).total < cost.value(point).total  # False where it has diverged
    return _where(lower, reached, point), lower


def _where(chosen: Tensor, one: Point, other: Point) -> Point:
    def pick(first: Tensor, second: Tensor) -> Tensor:
        return torch.where(chosen.view(-1, *[1] * (first.dim() - 1)), first, second)

    frozen = one.features.dim() == 2
    return Point(
        one.features if frozen else pick(one.features, other.features),
        tuple(pick(*pair) for pair in zip(one.weights, other.weights, strict=True)),
        None if one.bias is None else pick(one.bias, other.bias),
    )
