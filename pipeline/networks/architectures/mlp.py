"""The fully connected network."""

import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from pipeline.networks.pieces import (
    ACTIVATION_NAMES,
    ACTIVATIONS,
    FIXED_NORMS,
    MOST_LINEAR,
    NORMS,
    FixedNorm,
    batch_norm,
    linear_layers,
    started,
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
    init_std: float | None = knob(
        None, "entries of its weights and the classifier's start as N(0, init_std^2), biases as 0; null: as usual", gt=0
    )
    input_norm: str = knob("none", "what brings each row that enters it to one length", choices=FIXED_NORMS)


def check(settings: Settings) -> None:
    """Raise ValueError unless there are hidden layers, of whole widths, and a norm that fits."""
    if not settings.hidden or not all(isinstance(width, int) for width in settings.hidden):
        raise ValueError(
            f"backbone.hidden={shown(settings.hidden)} is out of range; allowed: one or more integers >= 1."
        )
    if settings.norm not in ("none", "batch"):
        raise ValueError(f"backbone.norm={settings.norm} does not go with backbone=mlp; allowed: none, batch.")
    if settings.init_std is not None and settings.init_scale != 1:
        raise ValueError(
            f"backbone.init_std={settings.init_std:g} leaves nothing for backbone.init_scale={settings.init_scale:g} "
            "to scale; allowed: one of them."
        )


@architecture(settings=Settings, check=check)
def mlp(image_shape: Sequence[int], settings: Settings) -> nn.Sequential:
    """Flatten, then for each hidden width Linear, activation and, if asked for, batch norm; then the linear tail.

    PyTorch's initialisation, scaled, or normal entries of one spread. The norm comes last, so that the features of a
    network without a tail are normalised: what theory says of a normalised last layer (`pipeline.theory`) is then about
    it. Recalled of arXiv 2309.04644, not read there.
    """
    widths = [math.prod(image_shape), *settings.hidden]
    pairs = zip(widths, settings.hidden, strict=False)
    layers = [nn.Sequential(*_layer(before, width, settings)) for before, width in pairs]
    named = OrderedDict((f"hidden{number}", layer) for number, layer in enumerate(layers, start=1))
    tail = linear_layers(settings.linear_tail, widths[-1])
    for layer in (part for block in (*layers, *tail.values()) for part in block if isinstance(part, nn.Linear)):
        started(layer, settings.init_scale, settings.init_std)
    first = [] if settings.input_norm == "none" else [("norm", FixedNorm(settings.input_norm))]
    return nn.Sequential(OrderedDict([("flatten", nn.Flatten()), *first]) | named | tail)


def _layer(before: int, width: int, settings: Settings) -> list[nn.Module]:
    linear = nn.Linear(before, width, bias=settings.bias)
    norm = [batch_norm(width, bias=settings.norm_bias)] if settings.norm == "batch" else []
    return [linear, ACTIVATIONS[settings.activation](), *norm]
