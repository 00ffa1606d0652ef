"""The look at the path through a leaky residual network: rows of all layers, and gradients of the fit by them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pipeline.data import ImageData
from pipeline.measure.extraction import Place
from pipeline.metrics.engine.leaky_path import LayerOfPath, LeakyPath
from pipeline.networks import Backbone
from pipeline.networks.architectures.residual_mlp import ResidualMLP
from pipeline.runtime.modes import evaluating

CHUNK = 4096
"""Rows in a pass."""
SHOWN = 8
"""Singular values of a layer that are recorded, at most."""


@dataclass(frozen=True)
class Fitting:
    """What a leaky network minimises: a fit, the mean over rows, plus lambda/(2 Lt) sum_l rho_l ||W_l||^2.

    fit: of features `(n, d)` and labels `(n,)`, a scalar; decay: lambda, above 0.
    """

    fit: Callable[[Tensor, Tensor], Tensor]
    decay: float


def is_leaky(backbone: Backbone) -> bool:
    """Whether it is the network of the paper: leaky, of one ReLU layer per block, without norms."""
    network = backbone.network
    if not isinstance(network, ResidualMLP):
        return False
    own = network.settings
    return own.leak > 0 and own.norm == "none" and own.block_layers == 1 and own.activation == "relu"


def path_bytes(backbone: Backbone, rows: int) -> int:
    """What the path of so many rows and its momenta take, float64."""
    own = backbone.network.settings
    return 8 * (2 * own.depth + 1) * rows * own.width


def leaky_layers(backbone: Backbone, images: ImageData, fitting: Fitting) -> dict[Place, LayerOfPath]:
    """Every block of a leaky network with the path of all training rows through it, in eval mode."""
    network, split = backbone.network, images.train
    device, total = next(backbone.parameters()).device, len(images.train)
    rows, momenta = [], []
    with torch.inference_mode(False), torch.enable_grad(), evaluating(backbone):
        for start in range(0, total, CHUNK):
            part = slice(start, start + CHUNK)
            seen = images.standardise(split.images[part].to(device))
            features, path = _pass(backbone, network, seen)
            fit = len(seen) / total * fitting.fit(features, split.targets[part].to(device))
            slopes = torch.autograd.grad(fit, path[1:])
            rows.append(torch.stack([value.detach().double() for value in path]))
            momenta.append(torch.stack([-slope.double() / fitting.decay for slope in slopes]))
    path = LeakyPath(
        torch.cat(rows, 1), torch.cat(momenta, 1), _weights(network), network.rho.double(), network.settings.leak
    )
    return {(f"network.blocks.{at}", "post"): LayerOfPath(path, at + 1) for at in range(network.settings.depth)}


def flow_inputs(layers: Mapping[Place, LayerOfPath], place: Place) -> dict[str, object]:
    """What formulas take of a place: its layer, and with the last one the whole path."""
    found = layers.get(place)
    ends = found is not None and found.layer == len(found.path.steps)
    return {"leaky": found, "trajectory": found.path if ends else None}


def more_values(layers: Mapping[Place, LayerOfPath], place: Place) -> dict[str, Tensor]:
    """Singular values after the first, as ``path_value/k=2``."""
    found = layers.get(place)
    if found is None:
        return {}
    named = {"path_value": found.row_values, "weight_value": found.weight_values}
    return {
        f"{name}/k={number}": value
        for name, values in named.items()
        for number, value in enumerate(values[1:SHOWN], start=2)
    }


def _pass(backbone: Backbone, network: ResidualMLP, inputs: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Features, and A_0 .. A_L, of which the graph holds."""
    path: list[Tensor] = []

    def enter(module: nn.Module, args: tuple) -> None:
        path.append(args[0])

    def leave(module: nn.Module, args: tuple, output: Tensor) -> Tensor:
        output = output if output.requires_grad else output.detach().requires_grad_()
        path.append(output)
        return output

    with ExitStack() as hooks:
        hooks.callback(network.blocks[0].register_forward_pre_hook(enter).remove)
        for block in network.blocks:
            hooks.callback(block.register_forward_hook(leave).remove)
        return backbone(inputs), path


def _weights(network: ResidualMLP) -> Tensor:
    found = []
    for block in network.blocks:
        bias = [] if block.outer.bias is None else [block.outer.bias[:, None]]
        found.append(torch.cat([block.outer.weight, *bias], 1).detach().double())
    return torch.stack(found)
