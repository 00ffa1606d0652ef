"""Steps of gradient descent on a batch of DUFMs in plain PyTorch: any device, any loss, any constraint.

A step allocates nothing. Matrices lie in columns as in the paper (H_l is `(S, d_l, N)` in memory), so that inputs
shared by all members are read in place and every product is one batched GEMM into a buffer. The learning rate rides
in the gradient of the outputs; the update of a factor is then the beta of the GEMM that computes its gradient.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from pipeline.dufm.cost import Anchor, Cost
from pipeline.dufm.objectives import Objective

Project = Callable[[Tensor], Any]
"""Projects features in place: a `pipeline.dufm.constraints.Constraint`, or any function."""

GRAPH_STEPS = 50
"""Steps in one CUDA graph: enough to hide its launch, few enough to capture at once."""


@dataclass(frozen=True)
class Rule:
    """What a step is, for the S members of a batch. `lr` and the decays are float64 on the CPU."""

    targets: Tensor  # (N, K), one-hot or any matrix
    lr: Tensor  # (S,)
    weight_decay: Tensor  # (S, L)
    feature_decay: Tensor | None  # (S,); None: the features are frozen
    momentum: float
    activation: str
    loss: Objective
    constraint: Project | None
    tf32: bool
    anchor: Anchor | None = None
    bias_decay: float = 0.0

    def select(self, members: Sequence[int]) -> "Rule":
        """The rule of some of the members."""
        chosen = list(members)
        feature_decay = None if self.feature_decay is None else self.feature_decay[chosen]
        anchor = None if self.anchor is None else self.anchor.select(chosen)
        return replace(
            self,
            lr=self.lr[chosen],
            weight_decay=self.weight_decay[chosen],
            feature_decay=feature_decay,
            anchor=anchor,
        )

    @property
    def cost(self) -> Cost:
        """What the steps go down on."""
        return Cost(
            self.targets,
            self.loss,
            self.weight_decay,
            self.feature_decay,
            activation=self.activation,
            anchor=self.anchor,
            bias_decay=self.bias_decay,
        )


@dataclass(frozen=True)
class Parameters:
    """Where the S members of a batch are, as rows: features `(S, N, d_1)` or shared `(N, d_1)`, weights
    `(S, out, in)`, the last layer's bias `(S, K)` if it has one. Velocities follow the order weights, then features if
    those are free; none without momentum. The bias has its own."""

    features: Tensor
    weights: list[Tensor]
    velocities: list[Tensor]
    bias: Tensor | None = None
    bias_velocity: Tensor | None = None

    def select(self, members: Sequence[int]) -> "Parameters":
        """Copies of some of the members."""
        chosen = list(members)
        features = self.features if self.features.dim() == 2 else self.features[chosen]
        bias, velocity = (None if it is None else it[chosen] for it in (self.bias, self.bias_velocity))
        return Parameters(
            features, [w[chosen] for w in self.weights], [v[chosen] for v in self.velocities], bias, velocity
        )

    def to(self, like: Tensor) -> "Parameters":
        """The same on another tensor's device and in its dtype."""
        bias, velocity = (None if it is None else it.to(like) for it in (self.bias, self.bias_velocity))
        return Parameters(
            self.features.to(like),
            [w.to(like) for w in self.weights],
            [v.to(like) for v in self.velocities],
            bias,
            velocity,
        )

    def shapes(self) -> list[tuple[int, ...]]:
        """Shapes of all tensors in order."""
        biases = [tensor for tensor in (self.bias, self.bias_velocity) if tensor is not None]
        return [tuple(tensor.shape) for tensor in (self.features, *self.weights, *self.velocities, *biases)]


class TorchSteps:
    """Takes steps from `start`; `parameters` are views of where the members are now."""

    def __init__(self, start: Parameters, rule: Rule) -> None:
        self._rule = rule
        self._free = rule.feature_decay is not None
        self._weights = [weight.clone() for weight in start.weights]
        self._features = _columns(start.features)
        velocities = [velocity.clone() for velocity in start.velocities]
        if velocities and self._free:
            velocities[-1] = _columns(velocities[-1])
        self._velocities = velocities
        self._bias, self._bias_velocity = (
            None if it is None else it.clone() for it in (start.bias, start.bias_velocity)
        )
        self._allocate_buffers()
        self._precompute_factors()
        self._graph: torch.cuda.CUDAGraph | None = None
        self._capture_failed = False
        views = [*velocities[:-1], velocities[-1].mT] if velocities and self._free else velocities
        self.parameters = Parameters(self._features.mT, self._weights, views, self._bias, self._bias_velocity)

    def run(self, steps: int) -> None:
        """Take some steps; on a GPU in graphs of `GRAPH_STEPS`, without a word from the host in between."""
        with matmul_precision(self._rule.tf32):
            if self._features.is_cuda and steps >= GRAPH_STEPS and not self._capture_failed:
                self._graph = self._graph or self._capture()
            if self._graph is not None:
                with torch.cuda.device(self._features.device):  # on its stream, like the steps that follow
                    for _ in range(steps // GRAPH_STEPS):
                        self._graph.replay()
                steps %= GRAPH_STEPS
            for _ in range(steps):
                self._step()

    def _allocate_buffers(self) -> None:
        """Outputs of every layer, and two buffers in turn for the gradients on the way back."""
        members, samples = len(self._rule.lr), self._features.shape[-1]
        like = self._features
        self._inputs = [like.expand(members, -1, -1)]
        if not self._weights:  # the features are the outputs, whose gradient needs a place of its own
            self._inputs.append(torch.empty_like(self._inputs[0]))
        for weight in self._weights:
            self._inputs.append(like.new_empty(members, weight.shape[1], samples))
        widest = max((weight.shape[2] for weight in self._weights), default=0)
        pair = [like.new_empty(members * widest * samples) for _ in range(2)]
        self._gradients = [
            pair[layer % 2][: members * weight.shape[2] * samples].view(members, weight.shape[2], samples)
            for layer, weight in enumerate(self._weights)
        ]

    def _precompute_factors(self) -> None:
        rule, like = self._rule, self._features
        decays = [*rule.weight_decay.unbind(dim=1)] + ([] if rule.feature_decay is None else [rule.feature_decay])
        if rule.anchor is not None:  # its gradient is beta H_1, as of a decay, less beta A
            decays[-1] = decays[-1] + rule.anchor.strength
        self._keep = [_common_or_per_member(1 - rule.lr * decay, like) for decay in decays]
        self._decay = [decay.to(like).view(-1, 1, 1) for decay in decays]
        self._minus_lr = (-rule.lr).to(like).view(-1, 1, 1)
        self._keep_bias = (1 - rule.lr * rule.bias_decay).to(like).view(-1, 1) if rule.bias_decay else None
        self._pull: Tensor | None = None
        if rule.anchor is not None:
            self._pull = -rule.anchor.strength * _columns(rule.anchor.features.to(like))
            if not self._velocities:
                self._pull = self._minus_lr * self._pull

    def _step(self) -> None:
        relu, last = self._rule.activation == "relu", len(self._weights) - 1
        for layer, weight in enumerate(self._weights):
            output = torch.bmm(weight, self._inputs[layer], out=self._inputs[layer + 1])
            if relu and layer < last:
                output.relu_()
        gradient = self._inputs[-1]
        if self._bias is not None:
            gradient += self._bias[..., None]
        if not self._weights:
            gradient.copy_(self._features)
        self._rule.loss.gradient_(gradient.mT, self._rule.targets)
        if not self._velocities:
            gradient.mul_(self._minus_lr)
        if self._bias is not None:
            self._move_bias(gradient)
        for layer in range(last, -1, -1):
            weight, entering, below = self._weights[layer], self._inputs[layer], self._gradients[layer]
            if layer > 0 or self._free:
                torch.bmm(weight.mT, gradient, out=below)
            if layer > 0 and relu:
                torch.ops.aten.threshold_backward.grad_input(below, entering, 0, grad_input=below)
            self._move_weight(layer, gradient, entering)
            gradient = below
        if self._free:
            self._move_features(gradient)

    def _move_weight(self, layer: int, gradient: Tensor, entering: Tensor) -> None:
        weight, keep = self._weights[layer], self._keep[layer]
        if self._velocities:
            self._velocities[layer].baddbmm_(gradient, entering.mT, beta=self._rule.momentum)
            self._follow_velocity(layer, weight)
        elif isinstance(keep, float):
            weight.baddbmm_(gradient, entering.mT, beta=keep)
        else:
            weight.mul_(keep).baddbmm_(gradient, entering.mT)

    def _move_bias(self, gradient: Tensor) -> None:
        """The outputs that it is part of are used no more."""
        if self._bias_velocity is None:
            if self._keep_bias is not None:
                self._bias *= self._keep_bias
            self._bias += gradient.sum(dim=-1)
        else:
            self._bias_velocity.mul_(self._rule.momentum).add_(gradient.sum(dim=-1))
            if self._rule.bias_decay:
                self._bias_velocity.add_(self._bias, alpha=self._rule.bias_decay)
            self._bias.addcmul_(self._bias_velocity, self._minus_lr[..., 0])

    def _move_features(self, gradient: Tensor) -> None:
        if self._pull is not None:
            gradient += self._pull
        if self._velocities:
            self._velocities[-1].mul_(self._rule.momentum).add_(gradient)
            self._follow_velocity(-1, self._features)
        elif isinstance(keep := self._keep[-1], float):
            torch.add(gradient, self._features, alpha=keep, out=self._features)
        else:
            torch.addcmul(gradient, self._features, keep, out=self._features)
        if self._rule.constraint is not None:
            self._rule.constraint(self._features.mT)

    def _follow_velocity(self, index: int, parameter: Tensor) -> None:
        """v += decay p; p -= lr v: what is left of the step of `torch.optim.SGD`."""
        self._velocities[index].addcmul_(parameter, self._decay[index])
        parameter.addcmul_(self._velocities[index], self._minus_lr)

    def _capture(self) -> torch.cuda.CUDAGraph | None:
        """Record steps as one graph. Warming up moves the members, so they are put back; recording does not."""
        device = self._features.device
        with torch.cuda.device(device), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*Synchronization debug mode.*")  # that it is a prototype
            return self._captured(torch.cuda.current_stream(device))

    def _captured(self, own: torch.cuda.Stream) -> torch.cuda.CUDAGraph | None:
        """`own` is the stream outside; a capture that fails leaves its own in its place."""
        moving = [*self._weights, *self._velocities, self._features]
        moving += [tensor for tensor in (self._bias, self._bias_velocity) if tensor is not None]
        before = [tensor.clone() for tensor in moving]
        side = torch.cuda.Stream()
        side.wait_stream(own)
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.stream(side):
                for attempt in range(3):
                    with _without_host(attempt > 0):  # first steps may wait for the libraries that they set up
                        self._step()
            own.wait_stream(side)
            for tensor, value in zip(moving, before, strict=True):
                tensor.copy_(value)
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                for _ in range(GRAPH_STEPS):
                    self._step()
        except RuntimeError:  # a plugged-in loss or constraint that speaks to the host: step by step, then
            self._capture_failed = True
            torch.cuda.set_stream(own)
            own.wait_stream(side)
            for tensor, value in zip(moving, before, strict=True):
                tensor.copy_(value)
            return None
        return graph


def _columns(rows: Tensor) -> Tensor:
    """`(S, N, d)` as a fresh contiguous `(S, d, N)`."""
    return rows.mT.clone(memory_format=torch.contiguous_format)


def _common_or_per_member(values: Tensor, like: Tensor) -> float | Tensor:
    """One number where all members agree (it can be the beta of a GEMM), else `(S, 1, 1)`."""
    if bool((values == values[0]).all()):
        return float(values[0])
    return values.to(like).view(-1, 1, 1)


@contextmanager
def _without_host(wanted: bool) -> Iterator[None]:
    """Within, if wanted, an operation that waits for a GPU raises RuntimeError; in a capture it would break more."""
    before = torch.cuda.get_sync_debug_mode()
    try:
        if wanted:
            torch.cuda.set_sync_debug_mode("error")
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


@contextmanager
def matmul_precision(tf32: bool) -> Iterator[None]:
    """Within, whether a GPU may multiply float32 matrices in TensorFloat-32."""
    before = torch.backends.cuda.matmul.fp32_precision
    torch.backends.cuda.matmul.fp32_precision = "tf32" if tf32 else "ieee"
    try:
        yield
    finally:
        torch.backends.cuda.matmul.fp32_precision = before
