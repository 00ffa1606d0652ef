"""Shallow networks trained on rows by L-BFGS, all starts at once, full batch in float64.

    fit(W relu(.. relu(W_1 x))) + lambda_W/2 ||W||^2 + lambda_H/2 ||H||^2,     H what enters W, of all rows; no biases

Source: the model of Hong & Ling, arXiv 2409.01832 (as the specification gives it); the layers below W have no penalty.
It is the objective of ``protocol=end_to_end protocol.regularization=dufm`` with one layer in the head.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from pipeline.dufm.lbfgs import Search
from pipeline.dufm.model import one_hot
from pipeline.dufm.objectives import Objective

TOLERANCE = 1e-10
"""Norm of the gradient at which a start is done."""
START = 0.01
"""What starts are multiplied by; ours. From starts of the usual size networks end at stationary points far above the
bound even where it is attainable: seen at d = 34, signal 2, width 16, where the best of ten had a gap of 0.54."""


@dataclass(frozen=True)
class Trained:
    """Where the starts have ended: objectives `(S,)`, features `(S, N, d)` and weights W_1..W, `(S, out, in)` each."""

    objective: Tensor
    features: Tensor
    weights: tuple[Tensor, ...]


def trained(
    rows: Tensor,
    labels: Tensor,
    num_classes: int,
    hidden: Sequence[int],
    loss: Objective,
    decays: tuple[float, float],
    generators: Sequence[torch.Generator],
    iterations: int,
) -> Trained:
    """Networks from random starts, entries `START` times N(0, 2/fan_in) below and N(0, 1/fan_in) in W.

    Args:
        rows: `(N, d)`; labels: int64 `(N,)`.
        hidden: widths of the layers below W, at least one.
        decays: lambda_W and lambda_H.
        generators: one for each start.
        iterations: of L-BFGS, at most.
    """
    rows = rows.double()
    shapes = [(out, into) for into, out in pairwise([rows.shape[1], *hidden, num_classes])]
    sizes = [out * into for out, into in shapes]
    targets = one_hot(labels, num_classes, torch.float64)
    wide = torch.tensor([(2.0 if layer < len(hidden) else 1.0) / into for layer, (_, into) in enumerate(shapes)])
    scales = torch.cat([scale.sqrt().double().expand(size) for scale, size in zip(wide, sizes, strict=True)])
    start = torch.stack([torch.randn(sum(sizes), generator=it, dtype=torch.float64) for it in generators])
    start = START * scales * start

    def layers(position: Tensor) -> tuple[Tensor, ...]:
        parts = position.split(sizes, dim=1)
        return tuple(part.reshape(-1, *shape) for part, shape in zip(parts, shapes, strict=True))

    def features_and_value(position: Tensor) -> tuple[Tensor, Tensor]:
        *below, last = layers(position)
        features = rows
        for weight in below:
            features = torch.relu(features @ weight.mT)
        penalty = decays[0] / 2 * last.square().sum((1, 2)) + decays[1] / 2 * features.square().sum((1, 2))
        return features, loss.value(features @ last.mT, targets) + penalty

    def evaluate(position: Tensor, _: Tensor) -> tuple[Tensor, Tensor]:
        leaf = position.detach().requires_grad_()
        value = features_and_value(leaf)[1]
        (gradient,) = torch.autograd.grad(value.sum(), leaf)
        return value.detach(), gradient

    search = Search(evaluate, start)
    for _ in range(iterations):
        if not search.retire(TOLERANCE):
            break
        search.iterate()
    search.keep(torch.zeros_like(search.rows, dtype=torch.bool))
    features, value = features_and_value(search.position)
    return Trained(value, features, layers(search.position))
