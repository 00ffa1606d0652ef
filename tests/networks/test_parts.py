"""The repeated parts of a network are found at any depth, and branches beside one another are none."""

import pytest
import timm
import torch
from torch import Tensor, nn

from pipeline.networks import Backbone

SHAPE = (3, 32, 32)


class Wrapper(nn.Module):
    """A network that holds another one as `attribute`."""

    def __init__(self, attribute: str, network: nn.Module):
        super().__init__()
        self.attribute = attribute
        setattr(self, attribute, network)

    def forward(self, x: Tensor) -> Tensor:
        return getattr(self, self.attribute)(x)


class Tokens(nn.Module):
    """Patches as tokens through a list of layers one level down."""

    def __init__(self, batch_first: bool = True, layers: int = 3):
        super().__init__()
        self.batch_first, self.patches = batch_first, nn.Conv2d(3, 8, 8, 8)
        self.model = nn.TransformerEncoder(
            nn.TransformerEncoderLayer(8, 2, 16, batch_first=batch_first), layers, enable_nested_tensor=False
        )

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2)
        tokens = self.model(tokens.permute(0, 2, 1) if self.batch_first else tokens.permute(2, 0, 1))
        return tokens.mean(1 if self.batch_first else 0)


def blocks(network: nn.Module, shape=SHAPE) -> list[str]:
    torch.manual_seed(0)
    return [name.removeprefix("network.") for name in Backbone(network, shape, name="own").blocks]


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_a_wrapped_network_has_the_layers_that_it_has_by_itself(depth):
    network, prefix = timm.create_model("resnet10t", num_classes=0), ""
    own = blocks(network)
    assert own == [f"layer{stage}.0" for stage in (1, 2, 3, 4)]
    for attribute in ("backbone", "model", "net")[:depth]:
        network, prefix = Wrapper(attribute, network), f"{attribute}.{prefix}"
    assert blocks(network) == [f"{prefix}{name}" for name in own]


@pytest.mark.parametrize("batch_first", [True, False])
def test_the_layers_of_a_transformer_are_found_whatever_axis_its_samples_are_on(batch_first):
    backbone = Backbone(Tokens(batch_first), SHAPE, name="own")
    assert backbone.blocks == tuple(f"network.model.layers.{layer}" for layer in range(3))
    images = torch.randn(2, *SHAPE)
    assert backbone(images).shape == (2, 8)


def test_plain_sequences_are_read_layer_by_layer():
    def stage(width: int, out: int) -> list[nn.Module]:
        return [nn.Conv2d(width, out, 3, padding=1), nn.BatchNorm2d(out), nn.ReLU(inplace=True)]

    plain = nn.Sequential(*stage(3, 4), nn.MaxPool2d(2), *stage(4, 5), nn.Flatten(), nn.Linear(5 * 256, 6))
    assert blocks(plain) == ["2", "6", "8"]
    assert blocks(Wrapper("model", plain)) == ["model.2", "model.6", "model.8"]
    backbone = Backbone(plain, SHAPE, name="own")
    assert backbone.activations == {"network.2": "network.2", "network.6": "network.6"}


def test_vgg_has_a_layer_for_each_of_its_weights():
    from torchvision.models import VGG
    from torchvision.models.vgg import make_layers

    network = VGG(make_layers([4, "M", 8, 8, "M"]), num_classes=3, init_weights=False)
    network.avgpool, network.classifier[0] = nn.AdaptiveAvgPool2d(1), nn.Linear(8, 4096)
    assert blocks(network) == ["features.1", "features.4", "features.6", *(f"classifier.{at}" for at in (1, 4, 6))]


@pytest.mark.parametrize("model", ["mobileone_s0", "mobileone_s1"])
def test_branches_are_no_layers(model):
    network = timm.create_model(model, num_classes=0)
    from timm.models.byobnet import MobileOneBlock

    own = [name for name, part in network.named_modules() if isinstance(part, MobileOneBlock) and "stages" in name]
    assert blocks(network) == own


def test_what_lies_inside_residual_blocks_is_no_layer():
    from torchvision.models.mobilenetv2 import InvertedResidual, mobilenet_v2

    network = mobilenet_v2(width_mult=0.25, num_classes=3)
    own = [f"features.{at}" for at in range(19)]
    assert isinstance(network.features[1], InvertedResidual) and blocks(network) == own


def test_inception_modules_are_layers_and_their_branches_are_none():
    class Branches(nn.Module):
        def __init__(self, width: int):
            super().__init__()
            pair = lambda: nn.Sequential(nn.Conv2d(width, 2, 1), nn.ReLU())  # noqa: E731
            self.first, self.second = nn.Sequential(pair(), nn.Sequential(nn.Conv2d(2, 2, 1), nn.ReLU())), pair()

        def forward(self, x: Tensor) -> Tensor:
            return torch.cat([self.first(x), self.second(x)], 1)

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = Branches(3), Branches(4), Branches(4)

        def forward(self, x: Tensor) -> Tensor:
            return self.c(self.b(self.a(x)))

    assert blocks(Net()) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ("layer1.*", ["layer1.0/pre", "layer1.0/post"]),
        (["network.layer[12].*"], ["layer1.0/pre", "layer1.0/post", "layer2.0/pre", "layer2.0/post"]),
        (["**.bn2:post"], [f"layer{stage}.0.bn2/post" for stage in (1, 2, 3, 4)]),
        (["layer4.*:pre"], ["layer4.0/pre"]),
        (["layer4:post", "layer3.0:post"], ["layer3.0/post", "layer4/post"]),
        (["BasicBlock:post"], [f"layer{stage}.0/post" for stage in (1, 2, 3, 4)]),
    ],
)
def test_layers_are_named_by_hand_with_patterns(layers, expected):
    backbone = Backbone(timm.create_model("resnet10t", num_classes=0), SHAPE, name="own", layers=layers)
    assert [f"{block.removeprefix('network.')}/{side}" for block, side in backbone.taps] == expected


def test_layers_are_named_by_class_and_by_module():
    network = timm.create_model("resnet10t", num_classes=0)
    expected = ("network.layer1.0.conv1", "network.layer4")
    backbone = Backbone(network, SHAPE, name="own", layers=[network.layer1[0].conv1, network.layer4])
    assert backbone.blocks == expected
    by_class = Backbone(network, SHAPE, name="own", layers=type(network.layer1[0])).blocks
    assert by_class == tuple(f"network.layer{stage}.0" for stage in (1, 2, 3, 4))


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (["layr1.*"], r"backbone\.layers: layer pattern 'layr1\.\*' matches no module of this ResNet, did you mean"),
        (["layer1:into"], r"must end in :pre, :post or neither"),
        ([], r"backbone\.layers=\[\] names no layer"),
    ],
)
def test_patterns_that_mean_nothing_are_refused(layers, message):
    with pytest.raises(ValueError, match=message):
        Backbone(timm.create_model("resnet10t", num_classes=0), SHAPE, name="own", layers=layers)


def test_a_layer_named_by_hand_runs_once():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.flat, self.twice, self.idle = nn.Flatten(), nn.Linear(8, 8), nn.Linear(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            return self.twice(self.twice(self.flat(x)))

    for layer, message in (("twice", "twice runs 2 times when own does"), ("idle", "idle does not run when own does")):
        with pytest.raises(ValueError, match=rf"backbone\.layers: {message}; allowed: modules that run once"):
            Backbone(Twice(), (1, 2, 4), name="own", layers=[layer])


def test_how_layers_are_read_is_said_by_pattern():
    network = timm.create_model("vit_tiny_patch16_224", img_size=32, depth=3, num_classes=0)
    backbone = Backbone(network, SHAPE, name="own", read={"blocks.*": "mean", "blocks.2": "cls"})
    assert [tap.read.how for tap in backbone.taps.values()] == ["mean", "mean", "cls"]
    with pytest.raises(ValueError, match=r"backbone\.read=\{norm: \.\.\.\} means no layer that is measured; allowed"):
        Backbone(network, SHAPE, name="own", read={"norm": "cls"})
