"""Backbones by name: checked and built in one way."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from pipeline.networks.backbone import Backbone
from pipeline.networks.custom import custom_network, validate_custom
from pipeline.networks.networks import ResNet20, mlp, timm_network, validate_timm_model
from pipeline.runtime.randomness import generator

NAMES = ("mlp", "resnet20", "resnet18", "timm", "custom")


def known_backbones() -> tuple[str, ...]:
    """The names `build_backbone` accepts."""
    return NAMES


def validate_backbone(
    name: str,
    *,
    hidden: Sequence[int] = (256, 64),
    timm_model: str | None = None,
    pretrained: bool = False,
    target: str | None = None,
    kwargs: Mapping[str, Any] | None = None,
) -> None:
    """Raise ValueError for a backbone `build_backbone` would refuse whatever the images are.

    Builds nothing, but imports the module that `target` names.
    """
    if name not in NAMES:
        raise ValueError(f"backbone={name} is not a known backbone; allowed: {', '.join(NAMES)}.")
    if pretrained and name != "timm":
        raise ValueError(f"backbone.pretrained=true, but backbone={name} has no published weights; allowed: timm.")
    if name == "mlp" and (not hidden or any(isinstance(h, bool) or not isinstance(h, int) or h < 1 for h in hidden)):
        raise ValueError(f"backbone.hidden={list(hidden)} is out of range; allowed: one or more integers >= 1.")
    if name == "timm":
        validate_timm_model(timm_model)
    validate_custom(name, target, kwargs or {})


def build_backbone(
    name: str,
    image_shape: Sequence[int],
    *,
    hidden: Sequence[int] = (256, 64),
    timm_model: str | None = None,
    pretrained: bool = False,
    target: str | None = None,
    kwargs: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> Backbone:
    """Build a backbone for images of shape (C, H, W); float32, on the CPU, in training mode.

    `mlp`: Flatten, then (Linear with bias, ReLU) for each width in `hidden`; PyTorch's initialisation.
    `resnet20`: `ResNet20`.
    `resnet18`: timm's ResNet-18, d = 512; images under 64 pixels get a 3x3 stem without pooling.
    `timm`: any model of timm by name, with the same small stem if it is one of timm's ResNets and not pretrained
        (pretrained stems stay as they were trained), and built for the size of the images where its size is fixed.
    `custom`: an object of the class at the dotted path `target`, which has to derive from torch.nn.Module, made with
        the arguments `kwargs`; modules in the working directory can be named too.

    resnet20 and resnet18 start with the last norm of every block at 1 (He et al. 2016), not at timm's 0: blocks that
    start as the identity would leave an untrained network, the control of `backbone.epochs=0`, without depth. A
    model asked for by its timm name starts as timm has it.

    The weights are a function of `seed` alone; torch's global generator is left as it was.

    Raises:
        ValueError: for unknown or unfit options (see `validate_backbone`), weights that cannot be fetched, images too
            small for the network, or a custom network that cannot be built or used.
    """
    validate_backbone(name, hidden=hidden, timm_model=timm_model, pretrained=pretrained, target=target, kwargs=kwargs)
    labels = {"timm": f"backbone.model={timm_model}", "custom": f"backbone._target_={target}"}
    label = labels.get(name, f"backbone={name}")
    with torch.random.fork_rng(devices=[]):
        # Only the CPU generator is set: `torch.manual_seed` would reseed every GPU's, which nothing here restores.
        torch.set_rng_state(generator(seed, "backbone/initialisation").get_state())
        if name == "mlp":
            network = mlp(math.prod(image_shape), hidden)
        elif name == "resnet20":
            network = ResNet20(image_shape[0])
        elif name == "resnet18":
            network = timm_network("resnet18", image_shape, label, zero_init_last=False)
        elif name == "timm":
            network = timm_network(timm_model, image_shape, label, pretrained=pretrained)
        else:
            network = custom_network(target, kwargs or {})
        return Backbone(network, image_shape, name=label)
