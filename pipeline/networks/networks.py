"""The networks that are known by name: MLP, CIFAR ResNet-20 and timm's models."""

from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor, nn

from pipeline.networks.messages import first_line, unfit
from pipeline.runtime.suggestions import did_you_mean

# Below this side length the stride-4 stem of an ImageNet ResNet leaves too small a map.
SMALL_IMAGE = 64


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


def mlp(num_inputs: int, hidden: Sequence[int]) -> nn.Sequential:
    """Flatten, then Linear and ReLU for each hidden width."""
    widths = [num_inputs, *hidden]
    layers = [nn.Sequential(nn.Linear(before, width), nn.ReLU()) for before, width in zip(widths, hidden, strict=False)]
    named = [(f"hidden{number}", layer) for number, layer in enumerate(layers, start=1)]
    return nn.Sequential(OrderedDict([("flatten", nn.Flatten()), *named]))


def validate_timm_model(model: str | None) -> None:
    """Raise ValueError unless timm knows the model (and the tag of its weights)."""
    import timm

    if not model:
        raise ValueError("backbone.model=null names no model; allowed: any name of timm.list_models().")
    if not timm.is_model(model):
        hint = did_you_mean(model, timm.list_models(), most=3)
        raise ValueError(f"backbone.model={model} is not a timm model{hint}; allowed: any name of timm.list_models().")
    architecture, _, tag = model.partition(".")
    tags = [name.partition(".")[2] for name in timm.list_models(f"{architecture}.*", pretrained=True)]
    if tag and tag not in tags:
        raise ValueError(f"backbone.model={model} has an unknown tag; allowed: {', '.join(tags) or 'none'}.")


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
