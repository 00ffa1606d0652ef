"""Descent on frozen features whose samples lie on several ranks: their gradients are added up in every step, and the
weights are the same everywhere.

A step needs the gradient of the fit, a mean over samples, with respect to the weights: each rank's by its own samples,
weighted by its share of all. What travels is as large as the weights, however many samples or ranks there are.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pipeline.dufm.cost import ObjectiveValue, Point
from pipeline.dufm.descent_torch import Parameters, Rule, matmul_precision
from pipeline.dufm.model import one_hot
from pipeline.runtime import ranks

ROWS = 4096
"""Samples whose activations are there at once."""


@dataclass(frozen=True)
class Shard:
    """What a rank with some of the samples knows of all ranks'.

    own: how many it has, maybe none; class_sizes: of all ranks.
    """

    own: int
    class_sizes: tuple[int, ...]

    @classmethod
    def of(cls, labels: Tensor, num_classes: int) -> Shard:
        """Of this rank's labels ``(n,)``; collective."""
        counts = ranks.total(torch.bincount(labels.cpu(), minlength=num_classes))
        return cls(len(labels), tuple(counts.tolist()))

    @property
    def samples(self) -> int:
        """N, of all ranks."""
        return sum(self.class_sizes)

    def targets(self, labels: Tensor, num_classes: int, dtype: torch.dtype) -> Tensor:
        """One-hot rows of this rank's labels, which may be none."""
        return one_hot(labels, num_classes, dtype) if self.own else torch.zeros(0, num_classes, dtype=dtype)

    def mean(self, of_own: Tensor) -> Tensor:
        """Over all samples, of the mean over this rank's, float64, the same bits on every rank; collective."""
        own = of_own.detach().double().cpu()
        part = own * (self.own / self.samples) if self.own else torch.zeros_like(own)
        return ranks.total(part).to(of_own.device)

    def objective(self, of_own: ObjectiveValue) -> ObjectiveValue:
        """Of all samples, of that of this rank's; collective."""
        fit = self.mean(of_own.fit).to(of_own.fit)
        penalties = of_own.weight_penalty + of_own.feature_penalty + of_own.anchor_penalty + of_own.bias_penalty
        return replace(of_own, total=fit + penalties, fit=fit)


class ShardedSteps:
    """Takes steps from `start`, whose features `(n, d)` are this rank's; `parameters` are where the members are now."""

    def __init__(self, start: Parameters, rule: Rule, shard: Shard) -> None:
        self._rule, self._samples = rule, shard.samples
        weights, velocities = ([tensor.clone() for tensor in given] for given in (start.weights, start.velocities))
        bias, speed = (None if it is None else it.clone() for it in (start.bias, start.bias_velocity))
        self.parameters = Parameters(start.features, weights, velocities, bias, speed)
        self._lr = rule.lr.to(weights[0]).view(-1, 1, 1)
        self._decays = rule.weight_decay.to(weights[0])
        # Penalties are added once, and not on every rank.
        self._fit = replace(rule, weight_decay=torch.zeros_like(rule.weight_decay), bias_decay=0.0).cost

    def run(self, steps: int) -> None:
        """Take some steps; collective."""
        on_gpu = self.parameters.features.is_cuda
        with matmul_precision(self._rule.tf32) if on_gpu else nullcontext():
            for _ in range(steps):
                self._step()

    def _step(self) -> None:
        at = self.parameters
        *of_weights, of_bias = self._gradients()
        for layer, (weight, gradient) in enumerate(zip(at.weights, of_weights, strict=True)):
            gradient.addcmul_(weight, self._decays[:, layer].view(-1, 1, 1))
            self._move(weight, gradient, at.velocities[layer] if at.velocities else None, self._lr)
        if at.bias is not None:
            self._move(at.bias, of_bias.add_(at.bias, alpha=self._rule.bias_decay), at.bias_velocity, self._lr[..., 0])

    def _move(self, parameter: Tensor, gradient: Tensor, velocity: Tensor | None, lr: Tensor) -> None:
        """As `torch.optim.SGD` does."""
        if velocity is not None:
            gradient = velocity.mul_(self._rule.momentum).add_(gradient)
        parameter.addcmul_(gradient, lr, value=-1)

    def _gradients(self) -> list[Tensor | None]:
        """Of the fit to all ranks' samples, with respect to W_1..W_L and the bias, None if there is none."""
        at, targets = self.parameters, self._rule.targets
        moving = [*at.weights, *(() if at.bias is None else (at.bias,))]
        sums = [torch.zeros_like(tensor) for tensor in moving]
        for rows, goals in zip(at.features.split(ROWS, dim=-2), targets.split(ROWS), strict=True):
            if not len(goals):
                continue
            point = Point(rows, tuple(at.weights), at.bias)
            _, found = replace(self._fit, targets=goals).value_and_gradients(point)
            own = [*found.weights, *(() if at.bias is None else (found.bias,))]
            for total, gradient in zip(sums, own, strict=True):
                total.add_(gradient, alpha=len(goals) / self._samples)
        flat = ranks.total(torch.cat([each.reshape(-1) for each in sums]).cpu()).to(sums[0].device)
        pieces = flat.split([each.numel() for each in sums])
        found = [piece.view(each.shape) for piece, each in zip(pieces, sums, strict=True)]
        return found if at.bias is not None else [*found, None]
