"""The fully connected network."""

import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from pipeline.networks.pieces import (
    ACTIVATION_NAMES,
    ACTIVATIONS,
    MOST_LINEAR,
    NORMS,
    batch_norm,
    linear_layers,
    scaled,
)
from pipeline.networks.registry import architecture
from pipeline.runtime.settings import knob, shown


@dataclass(frozen=True)
class Settings:
    """Of the MLP."""

    hidden: list[int] = knob([256, 64], "widths of the MLP's hidden layers; the last is the feature dimension", ge=1)
    norm: str = knob("none", "what normalises after each activation, or block", choices=NORMS)
    norm_bias: bool = knob(True, "whether batch norms have a shift")
    linear_tail: int = knob(0, "linear layers without bias after the last other one", ge=0, le=MOST_LINEAR)
    bias: bool = knob(True, "whether its layers have biases")
    activation: str = knob("relu", "activation", choices=ACTIVATION_NAMES)
    init_scale: float = knob(1.0, "its weights and biases, and the classifier's, start as this times the usual", gt=0)


def check(settings: Settings) -> None:
    """Raise ValueError unless there are hidden layers, of whole widths, and a norm that fits."""
    if not settings.hidden or not all(isinstance(width, int) for width in settings.hidden):
        raise ValueError(
            f"backbone.hidden={shown(settings.hidden)} is out of range; allowed: one or more integers >= 1."
        )
    if settings.norm not in ("none", "batch"):
        raise ValueError(f"backbone.norm={settings.norm} does not go with backbone=mlp; allowed: none, batch.")


@architecture(settings=Settings, check=check)
def mlp(image_shape: Sequence[int], settings: Settings) -> nn.Sequential:
    """Flatten, then for each hidden width Linear, activation and, if asked for, batch norm; then the linear tail.

    PyTorch's initialisation, scaled. The norm comes last, so that the features of a network without a tail are
    normalised: what theory says of a normalised last layer (`pipeline.theory`) is then about it. Recalled of arXiv
    2309.04644, not read there.
    """
    widths = [math.prod(image_shape), *settings.hidden]
    pairs = zip(widths, settings.hidden, strict=False)
    layers = [nn.Sequential(*_layer(before, width, settings)) for before, width in pairs]
    named = OrderedDict((f"hidden{number}", layer) for number, layer in enumerate(layers, start=1))
    tail = linear_layers(settings.linear_tail, widths[-1], settings.init_scale)
    return nn.Sequential(OrderedDict([("flatten", nn.Flatten())]) | named | tail)


def _layer(before: int, width: int, settings: Settings) -> list[nn.Module]:
    linear = scaled(nn.Linear(before, width, bias=settings.bias), settings.init_scale)
    norm = [batch_norm(width, bias=settings.norm_bias)] if settings.norm == "batch" else []
    return [linear, ACTIVATIONS[settings.activation](), *norm]
