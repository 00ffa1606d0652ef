"""Backbones by name: checked and built in one way."""

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import torch

from pipeline.networks.backbone import Backbone, Read
from pipeline.networks.patterns import Pattern
from pipeline.networks.registry import architectures, owners
from pipeline.networks.token_backbone import TokenBackbone
from pipeline.runtime.randomness import generator
from pipeline.runtime.sections import own_settings


def structural_settings(name: str) -> tuple[str, ...]:
    """Names of the settings of a backbone's own that say which network it is, not with which weights it starts."""
    own = architectures()[name].settings
    return tuple(entry.name for entry in fields(own) if entry.metadata.get("structure", True)) if own else ()


def validate_backbone(name: str, **settings: Any) -> None:
    """Raise ValueError for a backbone `build_backbone` would refuse whatever the images are; builds nothing."""
    _own(name, settings)


def build_backbone(
    name: str,
    image_shape: Sequence[int],
    *,
    seed: int = 0,
    layers: Sequence[Pattern] | Pattern | None = None,
    read: Read | None = None,
    tokens: bool = False,
    **settings: Any,
) -> Backbone:
    """Build a backbone for images of shape (C, H, W); float32, on the CPU, in training mode.

    The weights are a function of `seed` alone; torch's global generator is left as it was.

    Args:
        name: one of `known_backbones()`; each is described in `pipeline.networks.architectures`.
        tokens: whether it takes windows of tokens, of shape (T, V): T positions of V tokens.
        layers, read: what is measured and how it is read, see `Backbone`.
        settings: the backbone's own settings by name; those of other backbones may be given at their defaults.

    Raises:
        ValueError: for unknown or unfit settings (see `validate_backbone`), weights that cannot be fetched, images too
            small for the network, or a custom network that cannot be built or used.
    """
    own, made = _own(name, settings), architectures()[name]
    with torch.random.fork_rng(devices=[]):
        # Only the CPU generator is set: `torch.manual_seed` would reseed every GPU's, which nothing here restores.
        torch.set_rng_state(generator(seed, "backbone/initialisation").get_state())
        network = made.build(image_shape, own)
        label = made.label(own) if made.label else f"backbone={name}"
        kind = TokenBackbone if tokens else Backbone
        return kind(network, image_shape, name=label, layers=layers or made.layers, read=read)


def _own(name: str, settings: dict[str, Any]) -> Any:
    if name not in architectures():
        raise ValueError(f"backbone={name} is not a known backbone; allowed: {', '.join(architectures())}.")
    own = own_settings("backbone", name, owners(), settings)
    architectures()[name].check(own)
    return own
