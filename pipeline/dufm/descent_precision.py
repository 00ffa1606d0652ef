"""When a descent whose products are in float32 has to go on in float64: once their rounding shows in its gradient.

Weights are float64 all along, so that neither do small steps get lost nor is a decay rounded (1 - 5e-5 in float32 is a
decay that is off by up to 6e-4 of itself). What is left is the rounding of a gradient, which can be measured.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from pipeline.dufm.descent_native import NativeSteps
from pipeline.dufm.descent_torch import Parameters, Rule

MOST_ROUNDING = 1e-2
"""Share of a gradient's norm that float32 products may be off by (our choice). Where the loss nears its floor gradients
vanish and their rounding does not, so the share grows; before it is about 1e-7."""
LOOKS = 3
"""Steps in a row at which it must be. At one of them alone a unit may be next to zero, and rounding decide if it fires,
which says nothing of other steps."""


def too_coarse(start: Parameters, rule: Rule) -> Sequence[bool]:
    """Of every member, whether float32 products are too coarse for its next steps, by the gradient in both ways.

    Args:
        start: float64, features frozen.
        rule: of their steps.
    """
    still, plain = replace(start, velocities=[]), replace(rule, momentum=0.0)
    coarse = torch.ones(len(rule.lr), dtype=torch.bool)
    for _ in range(LOOKS):
        found, still = _rounding(still, plain)
        coarse &= torch.logical_not(found <= MOST_ROUNDING)  # also where nothing moves, or it is NaN
    return coarse.tolist()


def _rounding(still: Parameters, plain: Rule) -> tuple[Tensor, Parameters]:
    """What float32 is off by of every member's step, as a share; and where the step in float64 goes."""
    double, single = (NativeSteps(still, plain, members) for members in ((), range(len(plain.lr))))
    for steps in (double, single):
        steps.run(1)
    off, length = (
        sum((after - before).square().sum(dim=(-2, -1)) for after, before in zip(one, other, strict=True)).sqrt()
        for one, other in (
            (single.parameters.weights, double.parameters.weights),
            (double.parameters.weights, still.weights),
        )
    )
    return off / length, double.parameters
