"""Deep recursive feature machines: kernel ridge regression layer by layer, no gradient descent (arXiv 2402.13728)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pipeline.networks.kernel_machine import LaplaceMachine, gradient_outer_product, matrix_root, unit_rows
from pipeline.networks.registry import architecture
from pipeline.runtime.settings import knob

RANDOM = ("relu", "cosine")


@dataclass(frozen=True)
class Settings:
    """Of deep RFMs."""

    depth: int = knob(5, "L, number of blocks, or of layers", ge=1, le=1000)
    width: int = knob(64, "width of the blocks, or of the layers", ge=1)
    bandwidth: float = knob(2.0, "b of the Laplace kernel exp(-||x - z|| / b)", gt=0)
    ridge: float = knob(1e-3, "added to the diagonal of the kernel matrix", gt=0)
    agop: bool = knob(True, "false: M = I in every layer, the control")
    random_features: str = knob("relu", "what follows M^1/2: relu(R x), or sqrt(2/width) cos(w x + u)", choices=RANDOM)
    frequency: float = knob(0.1, "scale of the Cauchy frequencies w of cosine features", gt=0)


class Cosine(nn.Module):
    """sqrt(2/D) cos(values + u), u uniform on a period."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.shift = nn.Parameter(2 * math.pi * torch.rand(width), requires_grad=False)

    def forward(self, values: Tensor) -> Tensor:
        return math.sqrt(2 / len(self.shift)) * torch.cos(values + self.shift)


class UnitRows(nn.Module):
    """Rows at length one; those of zeros stay."""

    def forward(self, rows: Tensor) -> Tensor:
        return unit_rows(rows)


class RfmLayer(nn.Module):
    """x (unit rows), projected = x M^1/2, phi = random features of that: the three are places."""

    def __init__(self, num_inputs: int, settings: Settings) -> None:
        super().__init__()
        self.x = UnitRows()
        self.projected = nn.Linear(num_inputs, num_inputs, bias=False)
        with torch.no_grad():
            self.projected.weight.copy_(torch.eye(num_inputs))
        first = nn.Linear(num_inputs, settings.width, bias=False)  # uniform on +-1/sqrt(d), as PyTorch has it
        if settings.random_features == "cosine":
            with torch.no_grad():
                first.weight.copy_(settings.frequency * torch.empty_like(first.weight).cauchy_())
        last = nn.ReLU() if settings.random_features == "relu" else Cosine(settings.width)
        self.phi = nn.Sequential(first, last)

    def forward(self, rows: Tensor) -> Tensor:
        return self.phi(self.projected(self.x(rows)))


class DeepRfm(nn.Module):
    """Coordinates standardised by the training rows, then layers. Until `fit` every M is the identity.

    ``double`` throughout: collapsed rows differ by little.
    """

    def __init__(self, num_inputs: int, settings: Settings) -> None:
        super().__init__()
        self.settings = settings
        self.register_buffer("mean", torch.zeros(num_inputs))
        self.register_buffer("scale", torch.ones(num_inputs))
        widths = [num_inputs, *[settings.width] * (settings.depth - 1)]
        for number, width in enumerate(widths, start=1):
            self.add_module(f"layer{number}", RfmLayer(width, settings))
        self.machine: LaplaceMachine | None = None
        self.double().requires_grad_(False)

    @property
    def layers(self) -> list[RfmLayer]:
        """In order."""
        return [self.get_submodule(f"layer{number}") for number in range(1, self.settings.depth + 1)]

    def forward(self, images: Tensor) -> Tensor:
        """Features ``(N, width)`` float64."""
        rows = (images.flatten(1).to(self.mean) - self.mean) * self.scale
        for layer in self.layers:
            rows = layer(rows)
        return rows

    @torch.no_grad()
    def fit(self, images: Tensor, labels: Tensor, num_classes: int) -> None:
        """One kernel machine and one M for each layer, and a last machine on the features, from all training images.

        Args:
            images: ``(N, C, H, W)``, as `forward` takes them. labels: ``(N,)``.
        """
        rows = images.flatten(1).to(self.mean)
        spread = rows.std(dim=0)
        self.mean.copy_(rows.mean(dim=0))
        # A constant coordinate becomes zero.
        self.scale.copy_(torch.where(spread > 0, 1 / torch.where(spread > 0, spread, 1.0), 0.0))
        targets = 2.0 * nn.functional.one_hot(labels, num_classes).to(rows) - 1
        rows = (rows - self.mean) * self.scale
        for layer in self.layers:
            unit = unit_rows(rows)
            if self.settings.agop:
                machine = LaplaceMachine.fitted(unit, targets, self.settings.bandwidth, self.settings.ridge)
                product = gradient_outer_product(machine)
                layer.projected.weight.copy_(matrix_root(product / product.max()))
            rows = layer(rows)
        self.machine = LaplaceMachine.fitted(unit_rows(rows), targets, self.settings.bandwidth, self.settings.ridge)

    def decide(self, features: Tensor) -> Tensor:
        """Outputs ``(n, K)`` of the last machine on features ``(n, width)``, with its targets -1 and 1 at 0 and 1."""
        return (self.machine(unit_rows(features.to(self.mean))) + 1) / 2


@architecture(settings=Settings, layers=("layer*.x", "layer*.projected", "layer*.phi"))
def rfm(image_shape: Sequence[int], settings: Settings) -> nn.Module:
    """Unit rows, the root of the average gradient outer product of a Laplace kernel machine on them, random features;
    once more on these. Places: X, X M^1/2 and Phi of every layer.

    A ridge of 1e-3 as the current public package adds it whatever it is asked for; the paper's code asks for none.
    """
    return DeepRfm(math.prod(image_shape), settings)
