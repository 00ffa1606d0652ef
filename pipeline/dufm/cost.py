"""The whole function that a head minimises, its value and its gradients, for many members at once.

    F = fit(Z + b, T) + sum_l lambda_{W_l}/2 ||W_l||_F^2 + lambda_{H_1}/2 ||H_1||_F^2 + beta/2 ||H_1 - A||_F^2
        + mu/2 ||b||^2

Descent, polishing, the record and the verdict all mean this function. mu, the decay of the last layer's bias b, is 0
unless it is given.
Without weights (depth 0) the features are the outputs.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pipeline.dufm.model import forward, layer_taps, num_members, one_hot, squared_norm, weight_decay_table
from pipeline.dufm.objectives import Objective
from pipeline.dufm.objectives.mse import MeanSquaredError


@dataclass(frozen=True)
class ObjectiveValue:
    """The objective of every member and its terms, each `(S,)`: `total` is the sum of the others."""

    total: Tensor
    fit: Tensor
    weight_penalty: Tensor
    feature_penalty: Tensor
    anchor_penalty: Tensor
    bias_penalty: Tensor


@dataclass(frozen=True)
class Anchor:
    """beta/2 ||H_1 - A||_F^2: what free features are tied to (Tirer et al., arXiv 2210.16658; our normalisation).

    features: A, `(N, d_1)` shared or `(S, N, d_1)`; strength: beta >= 0.
    """

    features: Tensor
    strength: float

    def select(self, members: Sequence[int]) -> "Anchor":
        """That of some of the members."""
        return self if self.features.dim() == 2 else replace(self, features=self.features[list(members)])


@dataclass(frozen=True)
class Point:
    """Where members are, or a gradient there: features `(N, d_1)` or `(S, N, d_1)`, weights W_l `(S, out, in)`, and
    the bias of the last layer `(S, K)` if there is one. In a gradient the features are None where they are frozen."""

    features: Tensor | None
    weights: tuple[Tensor, ...]
    bias: Tensor | None = None


@dataclass(frozen=True)
class Cost:
    """F of this module for S members; a point gives its value, its gradients, or both.

    Attributes:
        targets: `(N, K)`: labels as `one_hot` writes them, or any matrix if the loss takes it.
        loss: states the fit.
        weight_decay: float64 `(S, L)`.
        feature_decay: float64 `(S,)`; None: the features are frozen, and cost nothing.
        activation: "relu" or "linear".
        anchor: what free features are tied to; None: nothing.
        bias_decay: mu.
    """

    targets: Tensor
    loss: Objective
    weight_decay: Tensor
    feature_decay: Tensor | None = None
    activation: str = "relu"
    anchor: Anchor | None = None
    bias_decay: float = 0.0

    def select(self, members: Sequence[int]) -> "Cost":
        """That of some of the members."""
        chosen = list(members)
        decay = None if self.feature_decay is None else self.feature_decay[chosen]
        anchor = None if self.anchor is None else self.anchor.select(chosen)
        return replace(self, weight_decay=self.weight_decay[chosen], feature_decay=decay, anchor=anchor)

    def value(self, point: Point) -> ObjectiveValue:
        """F and its terms, `(S,)` each."""
        for _, _, last in layer_taps(point.features, point.weights, self.activation):  # keeps one layer alive
            entering = last
        return self._terms(point, _outputs(entering, point, len(self.weight_decay)))

    def pattern(self, point: Point, least: float = 0.0, own_least: float = 0.0) -> list[Tensor]:
        """Which units before W_2..W_L fire for which samples, 1 or 0, `(S, N, d)` each; [] for linear layers.

        Args:
            least: how much a unit has to give to count, as a share of the most that one of its layer gives.
            own_least: the same, as a share of the most that it gives itself.
        """
        if self.activation != "relu":
            return []
        _, *hidden, _ = forward(point.features, point.weights, self.activation, point.bias)
        fires = []
        for units in (hidden_units.relu() for hidden_units in hidden):
            bound = torch.maximum(least * units.amax((-2, -1), keepdim=True), own_least * units.amax(-2, keepdim=True))
            fires.append((units > bound).to(units))
        return fires

    def value_and_gradients(
        self, point: Point, pattern: Sequence[Tensor] | None = None
    ) -> tuple[ObjectiveValue, Point]:
        """F and its terms `(S,)`, and the gradient of `total` with respect to everything that is free.

        Args:
            pattern: as the method of this name gives it: units then fire as it says, whatever they get. That is F
                itself where they do, and smooth.
        """
        members = len(self.weight_decay)
        if pattern is None:
            *entering, outputs = forward(point.features, point.weights, self.activation, point.bias)
            if self.activation == "relu":
                entering = [*entering[:1], *(hidden.relu() for hidden in entering[1:])]
        else:
            entering, outputs = _forward_as(point, pattern)
        terms = self._terms(point, outputs.expand(members, -1, -1))
        gradient = outputs.expand(members, -1, -1).clone()
        self.loss.gradient_(gradient, self.targets)
        of_bias = None if point.bias is None else gradient.sum(dim=1)
        if self.bias_decay and of_bias is not None:
            of_bias = of_bias.add(point.bias, alpha=self.bias_decay)
        of_weights: list[Tensor] = []
        for layer in reversed(range(len(point.weights))):
            weight, hidden = point.weights[layer], entering[layer]
            decay = self.weight_decay[:, layer].to(weight).view(-1, 1, 1)
            of_weights.append((gradient.mT @ hidden).addcmul_(weight, decay))
            if layer or self.feature_decay is not None:
                gradient = gradient @ weight
            if layer and self.activation == "relu":
                gradient = gradient.mul_(hidden > 0 if pattern is None else pattern[layer - 1])
        of_features = None if self.feature_decay is None else self._of_features(point.features, gradient)
        return terms, Point(of_features, tuple(reversed(of_weights)), of_bias)

    def _of_features(self, features: Tensor, gradient: Tensor) -> Tensor:
        gradient = gradient.addcmul(features, self.feature_decay.to(features).view(-1, 1, 1))
        if self.anchor is not None:
            gradient = gradient.add(features - self.anchor.features.to(features), alpha=self.anchor.strength)
        return gradient

    def _terms(self, point: Point, outputs: Tensor) -> ObjectiveValue:
        members, features = len(self.weight_decay), point.features
        fit = self.loss.value(outputs, self.targets)
        weight_penalty, feature_penalty, anchor_penalty, bias_penalty = (torch.zeros_like(fit) for _ in range(4))
        if point.weights:
            norms = torch.stack([squared_norm(weight).expand(members) for weight in point.weights], dim=1)
            weight_penalty = (self.weight_decay.to(fit) * norms).sum(dim=1) / 2
        if self.feature_decay is not None:
            feature_penalty = self.feature_decay.to(fit) / 2 * squared_norm(features).expand(members)
        if self.anchor is not None:
            distance = squared_norm(features - self.anchor.features.to(features)).expand(members)
            anchor_penalty = self.anchor.strength / 2 * distance
        total = fit + weight_penalty + feature_penalty
        total = total if self.anchor is None else total + anchor_penalty
        if self.bias_decay and point.bias is not None:
            bias_penalty = self.bias_decay / 2 * point.bias.square().sum(dim=-1).expand(members)
            total = total + bias_penalty
        return ObjectiveValue(total, fit, weight_penalty, feature_penalty, anchor_penalty, bias_penalty)


def objective(
    features: Tensor,
    weights: Sequence[Tensor],
    labels: Tensor | None,
    weight_decay: float | Tensor,
    feature_decay: float | Tensor | None = None,
    activation: str = "relu",
    loss: Objective | None = None,
    *,
    bias: Tensor | None = None,
    targets: Tensor | None = None,
    num_classes: int | None = None,
    anchor: Anchor | None = None,
    bias_decay: float = 0.0,
) -> ObjectiveValue:
    """F of this module for every member.

    Args:
        features: `(N, d_1)` or `(S, N, d_1)`.
        weights: W_1..W_L, each `(S, out, in)` or `(out, in)`; empty: the features are the outputs.
        labels: int64 `(N,)` in 0..K-1; None where there are `targets`.
        weight_decay: lambda_W: a float, one per layer `(L,)`, or per member and layer `(S, L)`.
        feature_decay: lambda_{H_1}: a float, one per member `(S,)`, or None for frozen inputs, which cost nothing.
        activation: "relu" or "linear".
        loss: what states the fit; mean squared error, 1/(2N) ||Z - Y||_F^2, if None.
        bias: of the last layer, `(S, K)` or `(K,)`.
        targets: `(N, K)`, instead of the labels.
        num_classes: K; the last weight's `out` if None.
        anchor: what the features are tied to.
        bias_decay: mu, of the bias.
    """
    members = num_members(features, weights)
    if targets is None:
        classes = num_classes or (weights[-1].shape[-2] if weights else features.shape[-1])
        targets = one_hot(labels, classes, features.dtype)
    cost = Cost(
        targets=targets.to(features),
        loss=loss or MeanSquaredError(),
        weight_decay=weight_decay_table(weight_decay, members, len(weights)),
        feature_decay=None
        if feature_decay is None
        else torch.as_tensor(feature_decay, dtype=torch.float64).expand(members),
        activation=activation,
        anchor=anchor,
        bias_decay=bias_decay,
    )
    return cost.value(Point(features, tuple(weights), bias))


def _forward_as(point: Point, pattern: Sequence[Tensor]) -> tuple[list[Tensor], Tensor]:
    """What enters W_1..W_L, and the outputs, where hidden units fire as the pattern says."""
    entering = [point.features]
    for weight, fires in zip(point.weights, pattern, strict=False):
        entering.append((entering[-1] @ weight.mT) * fires)
    outputs = entering[-1] @ point.weights[-1].mT
    return entering, outputs if point.bias is None else outputs + point.bias.unsqueeze(-2)


def _outputs(entering: Tensor, point: Point, members: int) -> Tensor:
    """Z `(S, N, K)`, from what enters the last layer."""
    outputs = entering @ point.weights[-1].mT if point.weights else entering
    outputs = outputs.expand(members, -1, -1)
    return outputs if point.bias is None else outputs + point.bias.unsqueeze(-2)
