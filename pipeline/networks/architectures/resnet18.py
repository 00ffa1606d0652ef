"""ResNet-18 for images of any size."""

from collections.abc import Sequence

from torch import nn

from pipeline.networks.architectures.timm import timm_network
from pipeline.networks.registry import architecture


@architecture(takes=("images",))
def resnet18(image_shape: Sequence[int], settings: None) -> nn.Module:
    """timm's ResNet-18, d = 512; images under 64 pixels get a 3x3 stem without pooling.

    It starts with the last norm of every block at 1 (He et al. 2016), not at timm's 0: blocks that start as the
    identity would leave an untrained network, the control of ``backbone.epochs=0``, without depth.
    """
    return timm_network("resnet18", image_shape, "backbone=resnet18", zero_init_last=False)
