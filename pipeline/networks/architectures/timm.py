"""Any model of timm."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from pipeline.networks.errors import check_kwargs, unfit
from pipeline.networks.registry import architecture
from pipeline.runtime.settings import knob
from pipeline.runtime.suggestions import did_you_mean
from pipeline.runtime.text import first_line

# Below this side length the stride-4 stem of an ImageNet ResNet leaves too small a map.
SMALL_IMAGE = 64


@dataclass(frozen=True)
class Settings:
    """Of timm's models."""

    model: str | None = knob(None, "timm model name")
    pretrained: bool = knob(False, "load timm's pretrained weights (needs network or cache)", structure=False)
    kwargs: Any = knob(None, "its arguments, {name: value, ...}")


def check(settings: Settings) -> None:
    """Raise ValueError unless timm knows the model (and the tag of its weights)."""
    import timm

    model = settings.model
    check_kwargs(settings.kwargs)
    if not model:
        raise ValueError("backbone.model=null names no model; allowed: any name of timm.list_models().")
    if not timm.is_model(model):
        hint = did_you_mean(model, timm.list_models(), most=3)
        raise ValueError(f"backbone.model={model} is not a timm model{hint}; allowed: any name of timm.list_models().")
    architecture, _, tag = model.partition(".")
    tags = [name.partition(".")[2] for name in timm.list_models(f"{architecture}.*", pretrained=True)]
    if tag and tag not in tags:
        raise ValueError(f"backbone.model={model} has an unknown tag; allowed: {', '.join(tags) or 'none'}.")


@architecture(
    settings=Settings, check=check, label=lambda settings: f"backbone.model={settings.model}", takes=("images",)
)
def timm(image_shape: Sequence[int], settings: Settings) -> nn.Module:
    """Any model of timm by name, which starts as timm has it.

    ResNets get a small stem for small images, unless they are pretrained: those stems stay as they were trained. Models
    of a fixed size are built for the size of the images.
    """
    more = {"pretrained": settings.pretrained} | dict(settings.kwargs or {})
    return timm_network(settings.model, image_shape, f"backbone.model={settings.model}", **more)


def timm_network(
    model: str, image_shape: Sequence[int], label: str, *, pretrained: bool = False, **options: object
) -> nn.Module:
    """A model of timm without its classifier, built for images of this shape.

    Pretrained weights are timm's business: it fetches them from the Hugging Face hub over TLS, as safetensors where
    there are any and otherwise as a pickle of which only tensors are read (`weights_only`). The hub's client compares
    the length of a file with the one announced; no checksum of ours is compared. Only names that timm's registry
    knows get here, not repositories (`hf-hub:...`) or folders (`local-dir:...`).
    """
    import timm
    from timm.models.resnet import ResNet

    channels, height, width = image_shape
    config = timm.get_pretrained_cfg(model)
    if config is not None and config.fixed_input_size:
        options["img_size"] = (height, width)
    try:
        network = timm.create_model(model, pretrained=pretrained, num_classes=0, in_chans=channels, **options)
    except Exception as error:
        if pretrained:
            raise ValueError(
                f"backbone.pretrained=true, but the weights of {model} cannot be loaded ({first_line(error)}); "
                "allowed: models whose weights can be downloaded or are in the local cache."
            ) from error
        raise unfit(label, image_shape, error) from error
    if isinstance(network, ResNet) and min(height, width) < SMALL_IMAGE and not pretrained:
        _use_small_stem(network, channels)
    return network


def _use_small_stem(network: nn.Module, channels: int) -> None:
    """Let a timm ResNet see small images at full resolution: stride 1 and no pooling before the first block."""
    if isinstance(network.conv1, nn.Sequential):  # the three 3x3 convolutions of a "deep" stem
        network.conv1[0].stride = (1, 1)
    else:
        network.conv1 = nn.Conv2d(channels, network.conv1.out_channels, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
    network.maxpool = nn.Identity()
