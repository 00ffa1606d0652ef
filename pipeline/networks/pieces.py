"""Pieces that networks by options are made of: activations, norms to a fixed length, linear tails."""

from collections import OrderedDict
from collections.abc import Callable

import torch
from torch import Tensor, nn

EPSILON = 1e-24
"""Added to a variance before its root; only rows of zeros notice."""


class Erf(nn.Module):
    """The error function, entry by entry."""

    def forward(self, values: Tensor) -> Tensor:
        return torch.erf(values)


ACTIVATION_NAMES = ("relu", "gelu", "tanh", "erf", "linear")
"""All values that `backbone.activation` takes; by themselves, because ``--help`` needs no PyTorch for them."""
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = dict(
    zip(ACTIVATION_NAMES, (nn.ReLU, nn.GELU, nn.Tanh, Erf, nn.Identity), strict=True)
)
NORMS = ("none", "batch", "layer", "rms")
"""All values that `backbone.norm` takes; each network takes some of them."""
FIXED_NORMS = ("none", "layer", "rms")
"""Those without parameters."""
MOST_LINEAR = 8


class FixedNorm(nn.Module):
    """Rows ``(n, d)`` of length sqrt(d), without parameters: their mean removed first ("layer"), or not ("rms")."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, rows: Tensor) -> Tensor:
        if self.kind == "layer":
            rows = rows - rows.mean(dim=-1, keepdim=True)
        return rows * (rows.square().mean(dim=-1, keepdim=True) + EPSILON).rsqrt()

    def extra_repr(self) -> str:
        return self.kind


def batch_norm(width: int, *, bias: bool) -> nn.BatchNorm1d:
    """A batch norm of vectors with a gain, and with a shift or without one."""
    norm = nn.BatchNorm1d(width)
    if not bias:
        norm.bias = None
    return norm


def linear_layers(count: int, width: int) -> "OrderedDict[str, nn.Module]":
    """``linear1`` .. of one width, without biases and with nothing between them."""
    layers = [nn.Sequential(nn.Linear(width, width, bias=False)) for _ in range(count)]
    return OrderedDict((f"linear{number}", layer) for number, layer in enumerate(layers, start=1))


def with_linear_tail(body: nn.Module, count: int, width: int) -> nn.Module:
    """A network of maps (N, width, h, w), averaged over space and passed through linear layers; itself without any."""
    if count == 0:
        return body
    pooled = OrderedDict([("body", body), ("pool", nn.AdaptiveAvgPool2d(1)), ("flatten", nn.Flatten())])
    return nn.Sequential(pooled | linear_layers(count, width))


@torch.no_grad()
def started(layer: nn.Linear, scale: float, std: float | None = None) -> nn.Linear:
    """The layer itself, its weight and bias multiplied; or with ``std`` its weight drawn as N(0, std^2), its bias 0."""
    for parameter in layer.parameters():
        parameter.mul_(scale if std is None else 0.0)
    if std is not None:
        layer.weight.normal_(std=std)
    return layer
