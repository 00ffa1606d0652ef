"""ResNet-20, the residual network made for CIFAR-10."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from pipeline.networks.pieces import MOST_LINEAR, with_linear_tail
from pipeline.networks.registry import architecture
from pipeline.runtime.settings import knob


class ResNet20(nn.Module):
    """The ResNet for 32x32 images of He et al. 2016, section 4.2: nine basic blocks, 16 to 64 channels, d = 64.

    A 3x3 stem without pooling, three stages of three blocks, the second and third at half the resolution. Where the
    shape changes the shortcut is a 1x1 convolution (their option B): 271,824 parameters.
    """

    def __init__(self, in_channels: int) -> None:
        from timm.models.resnet import BasicBlock, downsample_conv

        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.act1 = nn.ReLU()

        def stage(before: int, channels: int, stride: int) -> nn.Sequential:
            shortcut = downsample_conv(before, channels, kernel_size=1, stride=stride) if stride > 1 else None
            first = BasicBlock(before, channels, stride, shortcut)
            return nn.Sequential(first, BasicBlock(channels, channels), BasicBlock(channels, channels))

        self.layer1 = stage(16, 16, 1)
        self.layer2 = stage(16, 32, 2)
        self.layer3 = stage(32, 64, 2)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """Maps (N, 64, H/4, W/4)."""
        return self.layer3(self.layer2(self.layer1(self.act1(self.bn1(self.conv1(images))))))


@dataclass(frozen=True)
class Settings:
    """Of ResNet-20."""

    linear_tail: int = knob(0, "linear layers without bias after the last other one", ge=0, le=MOST_LINEAR)


@architecture(settings=Settings, takes=("images",))
def resnet20(image_shape: Sequence[int], settings: Settings) -> nn.Module:
    """`ResNet20` for the channels of the images, and a linear tail behind the average of its maps if asked for.

    It starts with the last norm of every block at 1 (He et al. 2016): blocks that start as the identity would leave an
    untrained network, the control of ``backbone.epochs=0``, without depth.
    """
    return with_linear_tail(ResNet20(image_shape[0]), settings.linear_tail, 64)
