"""Mean-field networks of three layers, f(x) = gamma W^T h(x), h(x) = 1/N_1 sum_j a_j phi(u_j^T x), and their training.

Source: Wu & Mondelli, arXiv 2501.19104. The objective on n rows is

    1/(2n) ||gamma W^T H - Y||^2 + lambda_W/2 ||W||^2 + lambda_rho/(2 N_1) sum_j (||a_j||^2 + ||u_j||^2).

Neurons move in the time of the mean-field limit: their gradients are those of the objective times N_1.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from pipeline.runtime.randomness import generator

CHUNK = 4096
"""Rows in a pass."""
PHI: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "tanh": (torch.tanh, lambda values: 1 - values.square()),
    "relu": (torch.relu, lambda values: (values > 0).to(values)),
}
"""phi, and its derivative as a function of phi's values."""


@dataclass
class MeanFieldNetwork:
    """The network, which training changes in place.

    Attributes:
        neurons: a_j, ``(N_1, p)``. directions: u_j, ``(N_1, d)``. weight: W, ``(p, q)``.
        decay: lambda_W. neuron_decay: lambda_rho. frozen: W stays as it is.
    """

    neurons: Tensor
    directions: Tensor
    weight: Tensor
    gamma: float = 1.0
    decay: float = 0.0
    neuron_decay: float = 0.0
    phi: str = "tanh"
    frozen: bool = False

    @classmethod
    def drawn(cls, seed: int, neurons: int, inputs: int, width: int, outputs: int, **settings: Any):
        """a_j and u_j of N(0, I), float32, and W with W^T W = I (Q of a Gaussian matrix's QR)."""
        source = generator(seed, "mean_field/start")
        outer, inner = torch.randn(neurons, width, generator=source), torch.randn(neurons, inputs, generator=source)
        frame = torch.linalg.qr(torch.randn(width, outputs, generator=source, dtype=torch.float64)).Q.float()
        return cls(outer, inner, frame.contiguous(), **settings)

    def to(self, device: torch.device) -> "MeanFieldNetwork":
        """The same network elsewhere."""
        tensors = {name: getattr(self, name).to(device) for name in ("neurons", "directions", "weight")}
        return replace(self, **tensors)

    @property
    def moving(self) -> list[Tensor]:
        """What is trained, neurons first."""
        return [self.neurons, self.directions] + ([] if self.frozen else [self.weight])

    def hidden(self, rows: Tensor) -> Tensor:
        """phi(u_j^T x_i), ``(n, N_1)``."""
        return PHI[self.phi][0](rows @ self.directions.mT)

    def features(self, rows: Tensor) -> Tensor:
        """h(x_i), ``(n, p)``."""
        return torch.cat([self.hidden(part) @ self.neurons for part in rows.split(CHUNK)]) / len(self.neurons)

    def outputs(self, features: Tensor) -> Tensor:
        """gamma W^T h, ``(n, q)``."""
        return self.gamma * features @ self.weight

    def penalty(self) -> float:
        """What decays add to the objective; that of a frozen W, too."""
        of_neurons = (self.neurons.double().square().sum() + self.directions.double().square().sum()) / len(
            self.neurons
        )
        return float(self.decay * self.weight.double().square().sum() + self.neuron_decay * of_neurons) / 2

    def gradients(self, rows: Tensor, targets: Tensor) -> list[Tensor]:
        """Of the objective on these rows, by `moving`: those of neurons times N_1."""
        found = [torch.zeros_like(value) for value in self.moving]
        for part, wanted in zip(rows.split(CHUNK), targets.split(CHUNK), strict=True):
            hidden = self.hidden(part)
            features = hidden @ self.neurons / len(self.neurons)
            error = (self.outputs(features) - wanted) / len(rows)
            backward = self.gamma * error @ self.weight.mT
            found[0] += hidden.mT @ backward
            found[1] += ((backward @ self.neurons.mT) * PHI[self.phi][1](hidden)).mT @ part
            if not self.frozen:
                found[2] += self.gamma * features.mT @ error
        decays = (self.neuron_decay, self.neuron_decay, self.decay)
        return [gradient + decay * value for gradient, decay, value in zip(found, decays, self.moving, strict=False)]

    def gradient_norm(self, rows: Tensor, targets: Tensor) -> float:
        """(1/N_1 sum_j ||N_1 grad_j||^2 + ||grad_W||^2)^(1/2), without W where it is frozen."""
        of_neurons, of_directions, *of_weight = (
            float(gradient.double().square().sum()) for gradient in self.gradients(rows, targets)
        )
        return math.sqrt((of_neurons + of_directions) / len(self.neurons) + sum(of_weight))


@dataclass(frozen=True)
class Descent:
    """Stochastic gradient descent; with a temperature T neurons also get N(0, 2 T rate) in every step (Langevin).

    schedule: of the rate over the epochs, as `optimizer.schedule` says.
    """

    rate: float
    epochs: int
    batch_size: int
    momentum: float = 0.0
    temperature: float = 0.0
    schedule: str = "constant"

    def rate_of(self, epoch: int) -> float:
        """The rate within the epoch, 0 the first one."""
        if self.schedule == "cosine":
            return self.rate * (1 + math.cos(math.pi * epoch / self.epochs)) / 2
        return self.rate / 10 if self.schedule == "drop" and epoch >= math.ceil(0.8 * self.epochs) else self.rate

    def train(self, network: MeanFieldNetwork, rows: Tensor, targets: Tensor, seed: int) -> Iterator[int]:
        """Train in place; yields 0 before the first epoch and the number of epochs done after each."""
        order, noise = generator(seed, "mean_field/order"), generator(seed, "mean_field/noise")
        speeds = [torch.zeros_like(value) for value in network.moving]
        yield 0
        for epoch in range(self.epochs):
            rate = self.rate_of(epoch)
            for batch in torch.randperm(len(rows), generator=order).to(rows.device).split(self.batch_size):
                gradients = network.gradients(rows[batch], targets[batch])
                for value, speed, gradient in zip(network.moving, speeds, gradients, strict=True):
                    value.sub_(speed.mul_(self.momentum).add_(gradient), alpha=rate)
                for value in network.moving[:2] if self.temperature else ():
                    shake = torch.randn(value.shape, generator=noise).to(value)
                    value.add_(shake, alpha=math.sqrt(2 * self.temperature * rate))
            yield epoch + 1
