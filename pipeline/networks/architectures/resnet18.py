"""ResNet-18 for images of any size."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from pipeline.networks.architectures.timm import timm_network
from pipeline.networks.pieces import MOST_LINEAR, with_linear_tail
from pipeline.networks.registry import architecture
from pipeline.runtime.settings import knob


@dataclass(frozen=True)
class Settings:
    """Of ResNet-18."""

    linear_tail: int = knob(0, "linear layers without bias after the last other one", ge=0, le=MOST_LINEAR)


@architecture(settings=Settings, takes=("images",))
def resnet18(image_shape: Sequence[int], settings: Settings) -> nn.Module:
    """timm's ResNet-18, d = 512; images under 64 pixels get a 3x3 stem without pooling.

    It starts with the last norm of every block at 1 (He et al. 2016), not at timm's 0: blocks that start as the
    identity would leave an untrained network, the control of ``backbone.epochs=0``, without depth.
    """
    network = timm_network("resnet18", image_shape, "backbone=resnet18", zero_init_last=False)
    if settings.linear_tail:
        network.global_pool = nn.Identity()  # the tail averages
    return with_linear_tail(network, settings.linear_tail, 512)
