"""Which axis of an activation is which is found out, for layouts of every kind, or refused."""

from importlib import import_module

import pytest
import timm
import torch
from torch import Tensor, nn

from pipeline.networks import Backbone
from pipeline.networks.probing import plain_attention
from pipeline.networks.taps import Tap, Taps

IMAGES = torch.randn(5, 3, 32, 32, generator=torch.Generator().manual_seed(0))
SWIN = {"num_classes": 3, "img_size": 32, "depths": (1, 1), "num_heads": (2, 2), "embed_dim": 24}
# Of each family a small model, the layer that is looked at, and the mean that a person who knows the family would take.
FAMILIES = {
    "swin": (lambda: create("swin_transformer.SwinTransformer", window_size=4, **SWIN), "layers.0", (1, 2)),
    "swinv2": (lambda: create("swin_transformer_v2.SwinTransformerV2", window_size=4, **SWIN), "layers.1", (1, 2)),
    "swinv2_cr": (
        lambda: create("swin_transformer_v2_cr.SwinTransformerV2Cr", window_size=4, **SWIN),
        "stages.0.blocks.0",
        (1, 2),
    ),
    "gcvit": (
        lambda: create(
            "gcvit.GlobalContextVit", img_size=64, window_ratio=(16, 16), embed_dim=16, depths=(1, 1), num_heads=(2, 2)
        ),
        "stages.0.blocks.0",
        (1, 2),
    ),
    "volo": (
        lambda: create(
            "volo.VOLO", layers=[1, 1], img_size=64, embed_dims=(16, 32), num_heads=(2, 2), post_layers=None
        ),
        "network.0.0",
        (1, 2),
    ),
    "tiny_vit": (
        lambda: create("tiny_vit.TinyVit", embed_dims=(8, 16), depths=(1, 1), num_heads=(2, 2), window_sizes=(4, 4)),
        "stages.1.blocks.0",
        (1, 2),
    ),
    "sequencer2d": (
        lambda: timm.create_model("sequencer2d_s", layers=(1, 1, 1, 1), img_size=64),
        "stages.0.blocks.0",
        (1, 2),
    ),
    "mambaout": (
        lambda: timm.create_model("mambaout_femto", depths=(1, 1), dims=(16, 24)),
        "stages.0.blocks.0",
        (1, 2),
    ),
    "nest": (lambda: nest(), "levels.0.transformer_encoder.0", (1, 2)),
    "nest level": (lambda: nest(), "levels.1", (2, 3)),
    "convnext": (lambda: timm.create_model("convnext_atto", depths=(1, 1, 1, 1)), "stages.0.blocks.0", (2, 3)),
    "resnet": (lambda: timm.create_model("resnet10t"), "layer1.0", (2, 3)),
    "mixer": (
        lambda: create("mlp_mixer.MlpMixer", img_size=64, patch_size=16, num_blocks=1, embed_dim=16),
        "blocks.0",
        (1,),
    ),
    "pvt": (lambda: timm.create_model("pvt_v2_b0", depths=(1, 1, 1, 1)), "stages.1", (2, 3)),
}


def create(name: str, **settings) -> nn.Module:
    """A model of timm by its class, which takes smaller sizes than the names do."""
    module, _, kind = name.rpartition(".")
    return getattr(import_module(f"timm.models.{module}"), kind)(**settings)


def nest() -> nn.Module:
    return create("nest.Nest", img_size=64, embed_dims=(8, 16, 24), num_heads=(2, 2, 2), depths=(1, 1, 1))


def given(model: nn.Module, layer: str, *args, **kwargs) -> Tensor:
    """What a layer gives, by a plain hook."""
    seen = []
    hook = model.get_submodule(layer).register_forward_hook(lambda module, inputs, output: seen.append(output.clone()))
    with torch.no_grad():
        model.eval()(*args, **kwargs)
    hook.remove()
    return seen[-1]


def read(model: nn.Module, layer: str | Tap, *args, **kwargs) -> Tensor:
    with torch.no_grad(), Taps(model.eval(), {0: layer if isinstance(layer, Tap) else Tap(layer)}) as taps:
        model(*args, **kwargs)
    return taps[0]


@pytest.mark.parametrize("family", FAMILIES)
def test_maps_of_every_family_are_averaged_over_their_positions(family):
    make, layer, positions = FAMILIES[family]
    torch.manual_seed(0)
    model = make()
    images = IMAGES if "swin" in family else torch.randn(3, 3, 64, 64)
    expected = given(model, layer, images).mean(positions)
    torch.testing.assert_close(read(model, layer, images), expected, rtol=1e-5, atol=1e-6)


def test_torchvisions_swin_has_its_channels_last():
    from torchvision.models.swin_transformer import SwinTransformer

    torch.manual_seed(0)
    model = SwinTransformer([4, 4], 16, [1, 1], [2, 2], [4, 4], num_classes=3)
    for layer in ("features.1", "features.1.0", "features.3"):
        torch.testing.assert_close(read(model, layer, IMAGES), given(model, layer, IMAGES).mean((1, 2)))


def test_a_conv1d_has_its_channels_second_whatever_the_length():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv1d(3, 6, 3), nn.ReLU())
    for length in (8, 50):  # 6 channels, and once 6 positions
        signals = torch.randn(4, 3, length)
        torch.testing.assert_close(read(model, "1", signals), model(signals).mean(2))


class Sequence(nn.Module):
    """A transformer over tokens that come samples first, whatever the encoder wants; read by `head`."""

    def __init__(self, head, batch_first: bool):
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=batch_first)
        self.embed, self.encoder = nn.Embedding(20, 8), nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.batch_first, self.head = batch_first, head

    def forward(self, ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        tokens = self.embed(ids)
        tokens = tokens if self.batch_first else tokens.transpose(0, 1)
        padding = None if attention_mask is None else attention_mask == 0
        tokens = self.encoder(tokens, src_key_padding_mask=padding)
        return self.head(tokens if self.batch_first else tokens.transpose(0, 1))


IDS = torch.randint(20, (6, 9), generator=torch.Generator().manual_seed(0))
HEADS = {
    "mean": (lambda tokens: tokens.mean(1), lambda tokens: tokens.mean(1)),
    "first": (lambda tokens: tokens[:, 0], lambda tokens: tokens[:, 0]),
    "last": (lambda tokens: tokens[:, -1], lambda tokens: tokens[:, -1]),
    "without two": (lambda tokens: tokens[:, 2:].amax(1), lambda tokens: tokens[:, 2:].mean(1)),
}


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("layer", ["encoder.layers.0", "encoder.layers.1.linear2", "encoder"])
def test_a_sequence_is_read_at_the_tokens_that_its_head_reads(head, batch_first, layer):
    torch.manual_seed(0)
    model = Sequence(HEADS[head][0], batch_first)
    with plain_attention():
        value = given(model, layer, IDS)
    tokens = value if batch_first else value.transpose(0, 1)
    torch.testing.assert_close(read(model, layer, IDS), HEADS[head][1](tokens), rtol=1e-5, atol=1e-6)


def test_a_mask_of_the_model_leaves_padding_out_of_the_mean():
    torch.manual_seed(0)
    mask = torch.arange(9) < torch.tensor([9, 4, 7, 2, 3, 5])[:, None]

    def masked(tokens: Tensor) -> Tensor:
        return (tokens * mask[: len(tokens), :, None]).sum(1) / mask[: len(tokens), :, None].sum(1)

    model = Sequence(lambda tokens: tokens.mean(1), batch_first=True)
    with plain_attention():
        value = given(model, "encoder.layers.1", IDS, attention_mask=mask.long())
    found = read(model, "encoder.layers.1", IDS, attention_mask=mask.long())
    torch.testing.assert_close(found, masked(value), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("pool", "rows"), [("token", lambda x: x[:, 0]), ("avg", lambda x: x[:, 1:].mean(1))])
def test_a_vision_transformer_is_read_at_the_tokens_that_its_head_reads(pool, rows):
    torch.manual_seed(0)
    model = timm.create_model(
        "vit_tiny_patch16_224", img_size=64, depth=3, num_classes=3, global_pool=pool, fc_norm=False
    )
    images = torch.randn(3, 3, 64, 64)
    torch.testing.assert_close(read(model, "blocks.1", images), rows(given(model, "blocks.1", images)))


@pytest.mark.parametrize("head", ["drawn", "of zeros, as torchvision starts it"])
def test_torchvisions_vision_transformer_is_read_at_its_class_token(head):
    from torchvision.models.vision_transformer import VisionTransformer

    torch.manual_seed(0)
    model = VisionTransformer(32, 8, 2, 2, 16, 32, num_classes=3)
    if head == "drawn":
        model.heads.head.weight.data.normal_()
    assert model.heads.head.weight.any() == (head == "drawn")
    layer = "encoder.layers.encoder_layer_0"
    torch.testing.assert_close(read(model, layer, IMAGES), given(model, layer, IMAGES)[:, 0])


def test_windows_folded_into_the_samples_are_refused():
    model = FAMILIES["swin"][0]()
    with pytest.raises(ValueError, match=r"layers\.0\.blocks\.0\.attn.*rows for each sample.*read=") as error:
        read(model, "layers.0.blocks.0.attn", IMAGES)
    assert "\n" not in str(error.value)


def test_an_axis_that_nothing_tells_apart_is_refused_and_the_option_shown():
    class Fixed(nn.Module):
        """Takes one size only, and hands a square on through a module that says nothing."""

        def __init__(self):
            super().__init__()
            self.flat, self.pass_on, self.head = nn.Linear(16, 25), nn.Identity(), nn.Linear(25, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.pass_on(self.flat(x).unflatten(1, (5, 5))).flatten(1))

    with pytest.raises(ValueError, match=r"nothing tells which axis.*read=\{'pass_on': 'nhwc'\}.*allowed: mean, cls"):
        read(Fixed(), "pass_on", torch.randn(4, 16))
    assert read(Fixed(), Tap("pass_on", read="nlc"), torch.randn(4, 16)).shape == (4, 5)


def test_trying_leaves_buffers_modes_random_states_and_gradients_alone():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(), nn.ReLU()).train()
    before, state = {name: value.clone() for name, value in model.state_dict().items()}, torch.get_rng_state()
    with torch.no_grad(), Taps(model, {0: Tap("3")}):
        torch.set_rng_state(state)
        model.eval()(IMAGES)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_network_that_returns_maps_with_channels_last_has_them_averaged_over_space():
    class Last(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(1, 5, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x).permute(0, 2, 3, 1)

    network, images = Last(), torch.randn(4, 1, 8, 8)
    backbone = Backbone(network, (1, 8, 8), name="own")
    assert backbone.num_features == 5
    torch.testing.assert_close(backbone(images), network(images).mean((1, 2)))


def test_a_network_that_takes_batches_of_one_size_only_is_read_all_the_same():
    class Whole(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            assert len(x) == 5
            return super().forward(x)

    torch.manual_seed(0)
    model = Whole(nn.Conv2d(3, 4, 3), nn.ReLU())
    torch.testing.assert_close(read(model, "1", IMAGES), model(IMAGES).mean((2, 3)))
