"""Backbones: from images to the feature vectors whose collapse is measured, all built and named in one way."""

import difflib
import math
from collections import Counter, OrderedDict
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from pipeline.randomness import generator

NAMES = ("mlp", "resnet20", "resnet18", "timm")

# Below this side length the stride-4 stem of an ImageNet ResNet leaves too small a map.
SMALL_IMAGE = 64


class Backbone(nn.Module):
    """A network as a map from images (N, C, H, W) to feature vectors (N, num_features).

    If the network returns maps (N, d, h, w), the features are their averages over h and w. The network is tried once,
    in evaluation mode on two black images, so that its output and its blocks are known and not guessed.

    Attributes:
        network: the module itself; weights from elsewhere are loaded into it.
        num_features: d.
        blocks: names within this module ("network.layer1.0") of the submodules whose outputs are the backbone's
            layers, in the order of the forward pass. Each runs once per pass and returns a tensor of N rows.

    Raises:
        ValueError: if the network cannot take images of this shape, or returns neither vectors nor maps.
    """

    def __init__(self, network: nn.Module, image_shape: Sequence[int], *, name: str) -> None:
        super().__init__()
        self.network = network
        candidates = _repeated_parts("network", network)
        children = [f"network.{child}" for child, module in network.named_children() if len(list(module.parameters()))]
        features, fired = self._try(torch.zeros(2, *image_shape), name, {*candidates, *children})
        self.num_features = features.shape[1]
        self.blocks = tuple(block for block in fired if block in candidates) or tuple(fired)

    def forward(self, images: Tensor) -> Tensor:
        """Features (N, num_features) of standardised float images (N, C, H, W)."""
        features = self.network(images)
        return features.mean((2, 3)) if features.ndim == 4 else features

    def _try(self, images: Tensor, name: str, candidates: set[str]) -> tuple[Tensor, list[str]]:
        """The features of `images` and the candidates that ran exactly once and gave a tensor, in running order."""
        calls: Counter[str] = Counter()

        def count(block: str, module: nn.Module, args: object, output: object) -> None:
            usable = isinstance(output, Tensor) and output.ndim >= 2 and len(output) == len(images)
            calls[block] += 1 if usable else 2

        hooks = [self.get_submodule(block).register_forward_hook(partial(count, block)) for block in candidates]
        modes = {module: module.training for module in self.modules()}
        try:
            with torch.no_grad():
                features = self.eval()(images)
        except Exception as error:
            raise _unfit(name, images.shape[1:], error) from error
        finally:
            for hook in hooks:
                hook.remove()
            for module, training in modes.items():
                module.training = training
        if not isinstance(features, Tensor) or features.ndim != 2 or len(features) != len(images):
            shape = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
            raise ValueError(f"{name} returns {shape} for 2 images; allowed: vectors (2, d) or maps (2, d, h, w).")
        if not features.isfinite().all() or features.shape[1] == 0:
            raise _unfit(name, images.shape[1:], "nothing is left of the image at its last layer")
        return features, [block for block, number in calls.items() if number == 1]


def _unfit(name: str, image_shape: Sequence[int], reason: object) -> ValueError:
    first_line = next(iter(str(reason).strip().splitlines()), type(reason).__name__).rstrip(".")
    return ValueError(
        f"{name} cannot take images of shape {tuple(image_shape)} ({first_line}); "
        "allowed: images it can take, see data.image_size."
    )


def _repeated_parts(name: str, module: nn.Module) -> list[str]:
    """Names of the blocks a network is stacked from: the elements of its Sequentials and ModuleLists.

    Descends through stages to the innermost stack whose elements are modules with parts of their own, so that a
    `layer1` of four residual blocks counts as four and a (convolution, norm) pair inside a block as none.
    """

    def has_parts(part: nn.Module) -> bool:
        # A child with parameters: a normalisation that carries its activation along is not a block.
        return any(len(list(child.parameters())) for child in part.children())

    def is_stack(part: nn.Module) -> bool:
        return isinstance(part, nn.Sequential | nn.ModuleList) and any(map(has_parts, part.children()))

    wanted = has_parts if is_stack(module) else is_stack
    parts = [(f"{name}.{child}", part) for child, part in module.named_children() if wanted(part)]
    return [block for child, part in parts for block in _repeated_parts(child, part) or [child]]


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


def known_backbones() -> tuple[str, ...]:
    """The names `build_backbone` accepts."""
    return NAMES


def validate_backbone(
    name: str, *, hidden: Sequence[int] = (256, 64), timm_model: str | None = None, pretrained: bool = False
) -> None:
    """Raise ValueError for a backbone `build_backbone` would refuse whatever the images are; builds nothing."""
    if name not in NAMES:
        raise ValueError(f"backbone={name} is not a known backbone; allowed: {', '.join(NAMES)}.")
    if pretrained and name != "timm":
        raise ValueError(f"backbone.pretrained=true, but backbone={name} has no published weights; allowed: timm.")
    if name == "mlp" and (not hidden or any(isinstance(h, bool) or not isinstance(h, int) or h < 1 for h in hidden)):
        raise ValueError(f"backbone.hidden={list(hidden)} is out of range; allowed: one or more integers >= 1.")
    if name == "timm":
        _validate_timm_model(timm_model)


def _validate_timm_model(model: str | None) -> None:
    import timm

    if not model:
        raise ValueError("backbone.model=null names no model; allowed: any name of timm.list_models().")
    if not timm.is_model(model):
        close = difflib.get_close_matches(model, timm.list_models(), n=3)
        hint = f" (did you mean {' or '.join(close)}?)" if close else ""
        raise ValueError(f"backbone.model={model} is not a timm model{hint}; allowed: any name of timm.list_models().")
    architecture, _, tag = model.partition(".")
    tags = [name.partition(".")[2] for name in timm.list_models(f"{architecture}.*", pretrained=True)]
    if tag and tag not in tags:
        raise ValueError(f"backbone.model={model} has an unknown tag; allowed: {', '.join(tags) or 'none'}.")


def build_backbone(
    name: str,
    image_shape: Sequence[int],
    *,
    hidden: Sequence[int] = (256, 64),
    timm_model: str | None = None,
    pretrained: bool = False,
    seed: int = 0,
) -> Backbone:
    """Build a backbone for images of shape (C, H, W); float32, on the CPU, in training mode.

    `mlp`: Flatten, then (Linear with bias, ReLU) for each width in `hidden`; PyTorch's initialisation.
    `resnet20`: `ResNet20`.
    `resnet18`: timm's ResNet-18, d = 512; images under 64 pixels get a 3x3 stem without pooling.
    `timm`: any model of timm by name, with the same small stem if it is one of timm's ResNets and not pretrained
        (pretrained stems stay as they were trained), and built for the size of the images where its size is fixed.

    resnet20 and resnet18 start with the last norm of every block at 1 (He et al. 2016), not at timm's 0: blocks that
    start as the identity would leave an untrained network, the control of `backbone.epochs=0`, without depth. A
    model asked for by its timm name starts as timm has it.

    The weights are a function of `seed` alone; torch's global generator is left as it was.

    Raises:
        ValueError: for unknown or unfit options (see `validate_backbone`), weights that cannot be fetched, or images
            too small for the network.
    """
    validate_backbone(name, hidden=hidden, timm_model=timm_model, pretrained=pretrained)
    label = f"backbone.model={timm_model}" if name == "timm" else f"backbone={name}"
    with torch.random.fork_rng(devices=[]):
        # Only the CPU generator is set: `torch.manual_seed` would reseed every GPU's, which nothing here restores.
        torch.set_rng_state(generator(seed, "backbone/initialisation").get_state())
        if name == "mlp":
            network = _mlp(math.prod(image_shape), hidden)
        elif name == "resnet20":
            network = ResNet20(image_shape[0])
        elif name == "resnet18":
            network = _timm_network("resnet18", image_shape, label, zero_init_last=False)
        else:
            network = _timm_network(timm_model, image_shape, label, pretrained=pretrained)
        return Backbone(network, image_shape, name=label)


def _mlp(num_inputs: int, hidden: Sequence[int]) -> nn.Sequential:
    widths = [num_inputs, *hidden]
    layers = [nn.Sequential(nn.Linear(before, width), nn.ReLU()) for before, width in zip(widths, hidden, strict=False)]
    named = [(f"hidden{number}", layer) for number, layer in enumerate(layers, start=1)]
    return nn.Sequential(OrderedDict([("flatten", nn.Flatten()), *named]))


def _timm_network(
    model: str, image_shape: Sequence[int], label: str, *, pretrained: bool = False, **options: object
) -> nn.Module:
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
            reason = str(error).strip().splitlines()[0].rstrip(".")
            raise ValueError(
                f"backbone.pretrained=true, but the weights of {model} cannot be loaded ({reason}); "
                "allowed: models whose weights can be downloaded or are in the local cache."
            ) from error
        raise _unfit(label, image_shape, error) from error
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
