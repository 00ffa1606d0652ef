"""When a descent whose products are in float32 has to go on in float64: once their rounding may show in its numbers.

Weights are float64 all along, so that neither do small steps get lost nor is a decay rounded (1 - 5e-5 in float32 is a
decay that is off by up to 6e-4 of itself). What is left is the rounding of a gradient. Where curvature pulls back, it
moves weights by no more than they are rounded themselves; along what only decays it adds up over 1 / (lr decay) steps.
So what counts is not how large it is, but how far it moves the numbers that are measured, compared to themselves: a
spread within classes that has fallen to 1e-6 feels what one of 0.1 does not.

At every look both gradients are taken at the same weights. What their difference does to the numbers is taken for what
it does at every step until the next look, and summed, with what has been before decaying as the weights do. Units that
are next to zero fire in one precision and not in the other: too rarely to be met by chance, too strong to be neglected.
What they do is found from many more of them, those within `NEAR_KINK` of zero, and scaled down to those that rounding
decides about; as their signs are at random, it is squares that are summed.

The difference of the gradients themselves, added to those of the steps that follow, would not help (see
docs/performance.md): it is another one a few steps later.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from pipeline.dufm.cost import Point
from pipeline.dufm.descent_native import NativeSteps
from pipeline.dufm.descent_torch import Parameters, Rule
from pipeline.dufm.model import forward, layer_taps

DOUBLE_SHARE = 0.05
"""Of a descent's steps, the first ones, as many as the last ones, which are in float64 whatever the numbers say (our
choice). At first, paths may part at a kink for the least of reasons; at last, what is kept is to be float64's."""
TOLERANCE = 5e-4
"""Share of themselves by which numbers may be moved, by what adds up and by kinks alike (our choice); of loss and dnc1
it is the root that counts, so theirs is twice this."""
MOST_ROUNDING = 1e-2
"""Share of a first step's norm that rounding may be: more where features need float64 (our choice)."""
LOOKS = 3
"""Steps in a row at which rounding is found; the median counts. At one of them alone a unit may be next to zero, which
says nothing of other steps."""
NEAR_KINK = 1e-3
ROUNDING = 1e-7
"""Shares of a layer's units (root mean square): within which they are looked for, more where samples are few, and
within which rounding decides."""
KINK_SAMPLES = 1000
"""About how many samples they are looked for in."""
NOTHING = 1e-13
"""Numbers below it are rounding of float64 itself."""
FASTEST = 10.0
"""Most by which what is summed is taken to grow until the next look, if it has grown so since the last one."""


def single_steps(steps: int) -> range:
    """Which of so many steps of a descent may have products in float32."""
    double = math.ceil(DOUBLE_SHARE * steps)
    return range(double, steps - double)


def until_next_look(step: int, every: int) -> int:
    """Steps from one look to the next: `every`, or more, so that there are ten to twenty while steps double. A look
    is due where the step is a multiple of it."""
    return every << (step // (10 * every)).bit_length()


def drifted(start: Parameters, rule: Rule, steps: int, before: Tensor | None) -> tuple[Tensor, list[bool]]:
    """How far the numbers of members will have moved after so many steps, and for whom that is too far.

    Args:
        start: float64, features frozen.
        rule: of their steps.
        before: what this has found when it last looked, `(S, 2, Q)`: sums, and sums of squares; None at first.
    """
    found, fine = [], []
    for member in range(len(rule.lr)):  # one by one: neither memory nor bits depend on how many there are
        own = rule.select([member])
        once, share = _moves(start.select([member]), own)
        last = torch.zeros_like(once) if before is None else before[member]
        keep = float(1 - own.lr[0] / (1 - own.momentum) * own.weight_decay.min())
        powers = torch.tensor([[keep], [keep * keep]], dtype=once.dtype)
        left = powers**steps
        count = torch.where(powers < 1, (1 - left) / (1 - powers).clamp_min(NOTHING), float(steps))
        found.append(left * last + count * once)
        fine.append(_fine(last, found[-1]) and (before is not None or share <= MOST_ROUNDING))
    return torch.stack(found), [not good for good in fine]


def _fine(last: Tensor, now: Tensor) -> bool:
    """Whether the numbers stay within the tolerance, what adds up until the look after the next; False for NaN."""
    sums, squares = now.abs()
    growth = torch.where(last[0] != 0, sums / last[0].abs().clamp_min(torch.finfo(now.dtype).tiny), 1.0)
    return bool((sums * growth.clamp(1, FASTEST) <= TOLERANCE).all() and (squares <= TOLERANCE**2).all())


def _moves(start: Parameters, rule: Rule) -> tuple[Tensor, float]:
    """What the rounding of one step moves the numbers of one member by, as shares of themselves, and the mean square
    of what units do that fire in one precision only, `(2, Q)`; and the rounding's share of the step."""
    by_class = torch.linalg.pinv(rule.targets.mT @ rule.targets, hermitian=True) @ rule.targets.mT
    before = _numbers(start.features, start.weights, rule, by_class)

    def share(off: Sequence[Tensor]) -> Tensor:
        there = [weight + change / (1 - rule.momentum) for weight, change in zip(start.weights, off, strict=True)]
        after = _numbers(start.features, there, rule, by_class)
        return torch.where(before > NOTHING, (after - before) / before, 0.0)

    off, share_of_step = _rounding(start, rule)
    once, kinks = share(off), torch.zeros_like(before)
    if rule.activation == "relu" and len(start.weights) > 1:
        samples = len(rule.targets)
        thinned = max(1, samples // KINK_SAMPLES)  # fewer independent terms of a mean
        near = NEAR_KINK * max(1.0, KINK_SAMPLES / samples)
        kinks = share(_jump(start, rule, thinned, near)).square() * (ROUNDING / near / thinned)
    return torch.stack([once, kinks]), share_of_step


def _rounding(start: Parameters, rule: Rule) -> tuple[list[Tensor], float]:
    """What float32 makes of a plain step of one member, less what float64 makes of it; and as a share of that."""
    still, plain = replace(start, velocities=[]), replace(rule, momentum=0.0)
    found: list[list[Tensor]] = []
    for _ in range(LOOKS):
        double, single = (NativeSteps(still, plain, members) for members in ((), (0,)))
        for steps in (double, single):
            steps.run(1)
        at = double.parameters.weights
        found.append([there - here for here, there in zip(at, single.parameters.weights, strict=True)])
        still = replace(still, weights=at)
    off = [torch.stack(same).median(dim=0).values for same in zip(*found, strict=True)]
    moved = [(there - here).norm() for here, there in zip(start.weights, still.weights, strict=True)]
    return off, LOOKS * float(torch.stack([it.norm() for it in off]).norm() / torch.stack(moved).norm())


def _jump(start: Parameters, rule: Rule, thinned: int, share: float) -> list[Tensor]:
    """What else a plain step on every `thinned`-th sample does if all units within a share of them next to zero fire
    that do not, and the other way round."""
    point = Point(start.features[..., ::thinned, :], tuple(start.weights))
    cost = replace(rule.cost, targets=rule.targets[::thinned])
    _, *hidden, _ = forward(point.features, point.weights)
    fires = [(units > 0).to(units) for units in hidden]
    near = [units.abs() < share * units.square().mean((-2, -1), keepdim=True).sqrt() for units in hidden]
    other = [torch.where(close, 1 - fire, fire) for close, fire in zip(near, fires, strict=True)]
    one, two = (cost.value_and_gradients(point, pattern)[1].weights for pattern in (fires, other))
    return [rule.lr.view(-1, 1, 1) * (there - here) for here, there in zip(one, two, strict=True)]


def _numbers(features: Tensor, weights: Sequence[Tensor], rule: Rule, by_class: Tensor) -> Tensor:
    """What is measured of one member, or its root, so that all are lengths, `(Q,)`: the objective and its fit, weights
    and their imbalance, and of what enters them the size, the spread within classes (dnc1), the singular values of the
    class means (dnc2) and how far weights are from these (dnc3).

    Args:
        by_class: `(K, N)`, makes means of classes (for targets of any kind, what least squares has them explain).
    """
    decays, tiny = rule.weight_decay[0].to(features), torch.finfo(features.dtype).tiny
    sizes = torch.stack([weight.norm() for weight in weights])
    found = [sizes]
    for above, below, size in zip(weights[1:], weights, sizes, strict=False):
        found.append((above.mT @ above - below @ below.mT).norm().view(1) / size.square().clamp_min(tiny))
    for layer, tap, entering in layer_taps(features, weights, rule.activation):
        if layer > 1 and tap == "pre":
            continue
        hidden, weight = entering.view(entering.shape[-2:]), weights[layer - 1][0]
        means = by_class @ hidden
        if layer > 1:
            size = hidden.norm().clamp_min(tiny)
            spread = torch.addmm(hidden, rule.targets, means, alpha=-1).norm()
            found += [torch.stack([size, spread / size]), torch.linalg.svdvals(means) / size]
        directions = torch.nn.functional.normalize(means, dim=-1)
        closest = directions[(weight @ directions.mT).abs().argmax(dim=-1)]
        left = weight - (weight * closest).sum(dim=-1, keepdim=True) * closest
        found.append(
            (weight.norm(dim=-1) * left.norm(dim=-1)).sum().view(1) / sizes[layer - 1].square().clamp_min(tiny)
        )
    fit = rule.loss.value((hidden @ weight.mT)[None], rule.targets)
    total = fit + (decays * sizes.square()).sum() / 2
    return torch.cat([*found, fit.sqrt(), total.sqrt()])
