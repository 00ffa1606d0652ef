"""The fully connected network."""

import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from pipeline.networks.registry import architecture
from pipeline.runtime.settings import knob, shown


@dataclass(frozen=True)
class Settings:
    """Of the MLP."""

    hidden: list[int] = knob([256, 64], "widths of the MLP's hidden layers; the last is the feature dimension", ge=1)


def check(settings: Settings) -> None:
    """Raise ValueError unless there are hidden layers, of whole widths."""
    if not settings.hidden or not all(isinstance(width, int) for width in settings.hidden):
        raise ValueError(
            f"backbone.hidden={shown(settings.hidden)} is out of range; allowed: one or more integers >= 1."
        )


@architecture(settings=Settings, check=check)
def mlp(image_shape: Sequence[int], settings: Settings) -> nn.Sequential:
    """Flatten, then Linear with bias and ReLU for each hidden width; PyTorch's initialisation."""
    widths = [math.prod(image_shape), *settings.hidden]
    layers = [
        nn.Sequential(nn.Linear(before, width), nn.ReLU())
        for before, width in zip(widths, settings.hidden, strict=False)
    ]
    named = [(f"hidden{number}", layer) for number, layer in enumerate(layers, start=1)]
    return nn.Sequential(OrderedDict([("flatten", nn.Flatten()), *named]))
