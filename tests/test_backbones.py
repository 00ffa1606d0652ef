import pytest
import torch
from torch import nn

from pipeline.backbones import Backbone, build_backbone, known_backbones, validate_backbone

DIGIT, CIFAR = (1, 8, 8), (3, 32, 32)
# One of each kind: small stem, deep small stem, patches of fixed number, stages within stages, no stacks at all.
TIMM_MODELS = {
    "resnet10t": (512, 4),
    "vit_tiny_patch16_224": (192, 12),
    "convnext_atto": (320, 12),
    "regnetx_002": (368, 5),
}


def images(shape, count=3) -> torch.Tensor:
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(0))


def count_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def outputs_of_blocks(backbone: Backbone, batch: torch.Tensor) -> dict[str, torch.Tensor]:
    seen = {}
    modules = dict(backbone.named_modules())
    hooks = [
        modules[block].register_forward_hook(lambda _m, _a, output, block=block: seen.update({block: output}))
        for block in backbone.blocks
    ]
    backbone(batch)
    for hook in hooks:
        hook.remove()
    return seen


def check_blocks(backbone: Backbone, batch: torch.Tensor) -> None:
    seen = outputs_of_blocks(backbone, batch)
    assert tuple(seen) == backbone.blocks  # every block ran, in the order given
    assert all(isinstance(output, torch.Tensor) and len(output) == len(batch) for output in seen.values())


def test_the_four_backbones_are_known():
    assert known_backbones() == ("mlp", "resnet20", "resnet18", "timm")


@pytest.mark.parametrize("shape", [DIGIT, CIFAR])
@pytest.mark.parametrize(("name", "width", "num_blocks"), [("mlp", 64, 2), ("resnet20", 64, 9), ("resnet18", 512, 8)])
def test_features_and_blocks_on_digits_and_cifar_sized_images(name, width, num_blocks, shape):
    backbone = build_backbone(name, shape)
    features = backbone(images(shape))
    assert features.shape == (3, width) and backbone.num_features == width
    assert len(backbone.blocks) == num_blocks
    check_blocks(backbone, images(shape))
    features.sum().backward()
    assert all(parameter.grad is not None for parameter in backbone.parameters())


@pytest.mark.parametrize("model", TIMM_MODELS)
def test_timm_models_give_vectors_and_name_their_blocks(model):
    width, num_blocks = TIMM_MODELS[model]
    backbone = build_backbone("timm", CIFAR, timm_model=model)
    assert backbone(images(CIFAR)).shape == (3, width)
    assert (backbone.num_features, len(backbone.blocks)) == (width, num_blocks)
    check_blocks(backbone, images(CIFAR))


def test_the_mlp_is_linear_and_relu_with_biases():
    backbone = build_backbone("mlp", DIGIT, hidden=[5, 3])
    first, second = backbone.get_submodule("network.hidden1.0"), backbone.get_submodule("network.hidden2.0")
    batch = images(DIGIT)
    expected = ((batch.flatten(1) @ first.weight.T + first.bias).relu() @ second.weight.T + second.bias).relu()
    torch.testing.assert_close(backbone(batch), expected)
    assert backbone.blocks == ("network.hidden1", "network.hidden2") and backbone.num_features == 3


def test_resnet20_has_the_parameters_of_the_paper_plus_its_projection_shortcuts():
    backbone = build_backbone("resnet20", CIFAR)
    convolutions = [m for m in backbone.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
    assert len(convolutions) == 19  # and the linear classifier makes 20
    with_classifier = count_parameters(backbone) + 64 * 10 + 10
    projections = (16 * 32 + 2 * 32) + (32 * 64 + 2 * 64)
    assert with_classifier == 269_722 + projections  # 0.27 M, He et al. 2016, table 6


def test_resnet18_has_the_parameters_of_torchvisions_but_for_its_stem():
    from torchvision.models import resnet18

    reference = resnet18()
    rest = count_parameters(reference) - count_parameters(reference.fc) - count_parameters(reference.conv1)
    assert count_parameters(build_backbone("resnet18", CIFAR)) == rest + 64 * 3 * 3 * 3


def sizes_of_maps(backbone, shape) -> list[int]:
    return [output.shape[-1] for output in outputs_of_blocks(backbone, images(shape)).values()]


def test_small_images_reach_the_first_block_at_full_resolution():
    assert sizes_of_maps(build_backbone("resnet18", CIFAR), CIFAR) == [32, 32, 16, 16, 8, 8, 4, 4]
    assert sizes_of_maps(build_backbone("timm", CIFAR, timm_model="resnet10t"), CIFAR) == [32, 16, 8, 4]
    assert sizes_of_maps(build_backbone("resnet20", CIFAR), CIFAR) == [32] * 3 + [16] * 3 + [8] * 3


def test_large_images_keep_the_stem_with_stride_four():
    assert sizes_of_maps(build_backbone("resnet18", (3, 64, 64)), (3, 64, 64)) == [16, 16, 8, 8, 4, 4, 2, 2]


@pytest.mark.parametrize("name", ["resnet20", "resnet18"])
def test_no_residual_branch_starts_at_zero(name):
    norms = [m for m in build_backbone(name, CIFAR).modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms and all((norm.weight == 1).all() for norm in norms)


@pytest.mark.parametrize(
    "options", [{"name": "mlp"}, {"name": "resnet20"}, {"name": "timm", "timm_model": "resnet10t"}]
)
def test_the_weights_are_a_function_of_the_seed_alone(options):
    def weights(seed):
        return list(build_backbone(image_shape=DIGIT, seed=seed, **options).state_dict().values())

    torch.manual_seed(0)
    first = weights(7)
    torch.manual_seed(1)
    again, other = weights(7), weights(8)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


def test_building_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    build_backbone("resnet20", DIGIT)
    assert torch.equal(torch.get_rng_state(), before)


def test_building_leaves_running_statistics_and_training_mode_as_made():
    backbone = build_backbone("resnet20", DIGIT)
    assert all(module.training for module in backbone.modules())
    norms = [m for m in backbone.modules() if isinstance(m, nn.BatchNorm2d)]
    assert all((norm.running_mean == 0).all() and norm.num_batches_tracked == 0 for norm in norms)


def test_maps_are_averaged_over_their_positions():
    convolution = nn.Conv2d(1, 4, 3)
    backbone = Backbone(convolution, DIGIT, name="own")
    batch = images(DIGIT)
    torch.testing.assert_close(backbone(batch), convolution(batch).mean((2, 3)))
    assert backbone.num_features == 4


def test_a_block_that_runs_twice_is_not_a_layer():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.flatten, self.once, self.twice = nn.Flatten(), nn.Linear(64, 4), nn.Linear(4, 4)

        def forward(self, x):
            return self.twice(self.twice(self.once(self.flatten(x))))

    assert Backbone(Twice(), DIGIT, name="own").blocks == ("network.once",)


@pytest.mark.parametrize("model", ["vit_tiny_patch16_224", "convnext_atto"])
def test_images_too_small_for_a_model_are_refused_in_one_sentence(model):
    with pytest.raises(ValueError, match=rf"backbone\.model={model} cannot take images of shape \(1, 8, 8\)") as error:
        build_backbone("timm", DIGIT, timm_model=model)
    assert "data.image_size" in str(error.value) and "\n" not in str(error.value)


def test_an_output_that_is_neither_vectors_nor_maps_is_refused():
    with pytest.raises(ValueError, match=r"own returns \(2, 1, 64\) for 2 images; allowed: vectors"):
        Backbone(nn.Flatten(2), DIGIT, name="own")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "alexnet"}, r"backbone=alexnet is not a known backbone; allowed: mlp, resnet20, resnet18, timm\."),
        ({"name": "mlp", "hidden": []}, r"backbone\.hidden=\[\] is out of range"),
        ({"name": "mlp", "hidden": [8, 0]}, r"backbone\.hidden=\[8, 0\] is out of range"),
        ({"name": "mlp", "pretrained": True}, r"backbone\.pretrained=true, but backbone=mlp has no published"),
        ({"name": "timm"}, r"backbone\.model=null names no model"),
        ({"name": "timm", "timm_model": "resnet81"}, r"backbone\.model=resnet81 .*did you mean .*resnet"),
        ({"name": "timm", "timm_model": "resnet18.none"}, r"unknown tag; allowed: a1_in1k"),
    ],
)
def test_bad_options_are_refused_in_one_sentence(options, message):
    for call in (validate_backbone, lambda name, **rest: build_backbone(name, DIGIT, **rest)):
        with pytest.raises(ValueError, match=message) as error:
            call(**options)
        assert "\n" not in str(error.value)


def test_weights_that_cannot_be_fetched_are_one_sentence(monkeypatch):
    def fail(*args, **kwargs):
        raise OSError("no network\nmore")

    monkeypatch.setattr("timm.create_model", fail)
    with pytest.raises(ValueError, match=r"weights of resnet18 cannot be loaded \(no network\); allowed") as error:
        build_backbone("timm", CIFAR, timm_model="resnet18", pretrained=True)
    assert "\n" not in str(error.value)
