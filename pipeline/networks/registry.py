"""Backbones that are known by name: a file in `pipeline/networks/architectures` with a function under `@architecture`.

    @architecture()
    def perceptron(image_shape: Sequence[int], settings: None) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(image_shape), 64))

The function is named like its file, and that is what the backbone is called. Settings of its own are a dataclass of
`knob` fields, passed to `@architecture` as ``settings``: they become keys of the section ``backbone`` and keywords of
`build_backbone`, and the function gets an instance.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from torch import nn

from pipeline.networks.settings import ARCHITECTURES
from pipeline.runtime.discovery import registered


def _nothing_to_object(settings: Any) -> None:
    """The check of an architecture whose settings go together in any way."""


@dataclass(frozen=True)
class Architecture:
    """A registered backbone.

    name: of its file.
    build: makes the network for images of shape (C, H, W), float32 on the CPU in training mode. Random numbers come
        from torch's global generator, which is set and restored around it. Raises ValueError for images that are too
        small, say.
    settings: dataclass of its own settings, if it has any. Those whose `knob` says ``structure=False`` choose what the
        network starts with; all others say which network it is.
    check: raises ValueError for settings that cannot be used whatever the images are; builds nothing.
    label: how messages call a network with these settings; None for ``backbone=<name>``.
    takes: what it can be given, see `pipeline.data.ImageData.kind`.
    layers: its layers, by patterns, where they are not to be found by trying.
    """

    name: str
    build: Callable[[Sequence[int], Any], nn.Module]
    settings: type | None = None
    check: Callable[[Any], None] = _nothing_to_object
    label: Callable[[Any], str] | None = None
    takes: tuple[str, ...] = ("images", "vectors")
    layers: tuple[str, ...] | None = None


def architecture(
    *,
    settings: type | None = None,
    check: Callable[[Any], None] = _nothing_to_object,
    label: Callable[[Any], str] | None = None,
    takes: tuple[str, ...] = ("images", "vectors"),
    layers: tuple[str, ...] | None = None,
) -> Callable[[Callable[[Sequence[int], Any], nn.Module]], Architecture]:
    """Decorator of the function that builds a network; for the arguments see `Architecture`."""

    def register(build: Callable[[Sequence[int], Any], nn.Module]) -> Architecture:
        return Architecture(build.__module__.rpartition(".")[2], build, settings, check, label, takes, layers)

    return register


@cache
def architectures() -> dict[str, Architecture]:
    """All registered backbones by name."""
    return registered(ARCHITECTURES, Architecture)


def owners() -> dict[str, type | None]:
    """Backbone -> the dataclass of its own settings, None if it has none."""
    return {name: made.settings for name, made in architectures().items()}
