from collections import OrderedDict
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

from pipeline.networks import Backbone, build_backbone, known_backbones, validate_backbone

DIGIT, CIFAR = (1, 8, 8), (3, 32, 32)
CONF = Path(__file__).parents[2] / "conf" / "backbone"
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


@pytest.mark.parametrize("name", known_backbones())
def test_every_backbone_has_its_configuration(name):
    assert yaml.safe_load((CONF / f"{name}.yaml").read_text())["name"] == name


def test_every_configuration_has_its_backbone():
    names = {file.stem: yaml.safe_load(file.read_text())["name"] for file in CONF.glob("*.yaml")}
    assert {stem for stem, name in names.items() if stem == name} == set(known_backbones()) == set(names.values())


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
    backbone = build_backbone("timm", CIFAR, model=model)
    assert backbone(images(CIFAR)).shape == (3, width)
    assert (backbone.num_features, len(backbone.blocks)) == (width, num_blocks)
    check_blocks(backbone, images(CIFAR))


def sizes_of_maps(backbone, shape) -> list[int]:
    return [output.shape[-1] for output in outputs_of_blocks(backbone, images(shape)).values()]


def test_small_images_reach_the_first_block_at_full_resolution():
    assert sizes_of_maps(build_backbone("resnet18", CIFAR), CIFAR) == [32, 32, 16, 16, 8, 8, 4, 4]
    assert sizes_of_maps(build_backbone("timm", CIFAR, model="resnet10t"), CIFAR) == [32, 16, 8, 4]
    assert sizes_of_maps(build_backbone("resnet20", CIFAR), CIFAR) == [32] * 3 + [16] * 3 + [8] * 3


def test_large_images_keep_the_stem_with_stride_four():
    assert sizes_of_maps(build_backbone("resnet18", (3, 64, 64)), (3, 64, 64)) == [16, 16, 8, 8, 4, 4, 2, 2]


@pytest.mark.parametrize("name", ["resnet20", "resnet18"])
def test_no_residual_branch_starts_at_zero(name):
    norms = [m for m in build_backbone(name, CIFAR).modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms and all((norm.weight == 1).all() for norm in norms)


@pytest.mark.parametrize("options", [{"name": "mlp"}, {"name": "resnet20"}, {"name": "timm", "model": "resnet10t"}])
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


def test_an_output_that_is_neither_vectors_nor_maps_is_refused():
    with pytest.raises(ValueError, match=r"own returns \(2, 1, 64\) for 2 images; allowed: vectors"):
        Backbone(nn.Flatten(2), DIGIT, name="own")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"name": "alexnet"},
            r"backbone=alexnet is not a known backbone; allowed: .*mlp.*\.",
        ),
        ({"name": "mlp", "hidden": []}, r"backbone\.hidden=\[\] is out of range"),
        ({"name": "mlp", "hidden": [8, 0]}, r"backbone\.hidden=\[8,0\] is out of range"),
        (
            {"name": "mlp", "pretrained": True},
            r"pretrained=true belongs to backbone=timm, but backbone=mlp is chosen; allowed: .*=false, or",
        ),
        ({"name": "timm"}, r"backbone\.model=null names no model"),
        ({"name": "timm", "model": "resnet81"}, r"backbone\.model=resnet81 .*did you mean .*resnet"),
        ({"name": "timm", "model": "resnet18.none"}, r"unknown tag; allowed: a1_in1k"),
        ({"name": "custom"}, r"backbone\._target_=null names no network; allowed: package\.module\.Class"),
        (
            {"name": "mlp", "_target_": "a.B"},
            r"_target_=a\.B belongs to backbone=custom, but backbone=mlp is chosen",
        ),
        (
            {"name": "mlp", "kwargs": {"a": 1}},
            r"kwargs=\{'a': 1\} belongs to backbone=custom\|timm.*allowed: .*kwargs=null, or backbone=custom or ",
        ),
        (
            {"name": "custom", "_target_": "resnet18"},
            r"_target_=resnet18 is not a dotted path; allowed: package\.module",
        ),
        ({"name": "custom", "_target_": "torchvision..x"}, r"_target_=torchvision\.\.x is not a dotted path"),
        (
            {"name": "custom", "_target_": "torchvison.models.resnet18"},
            r"no module torchvison \(did you mean torchvision",
        ),
        (
            {"name": "custom", "_target_": "torchvision.model.resnet18"},
            r"torchvision has no model \(did you mean models",
        ),
        ({"name": "custom", "_target_": "torchvision.models.resnet81"}, r"has no resnet81 \(did you mean .*resnet18"),
        (
            {"name": "custom", "_target_": "math.sqroot"},
            r"_target_=math\.sqroot: math has no sqroot \(did you mean .*sqrt.*\?\)",
        ),
        ({"name": "custom", "_target_": "math.pi"}, r"_target_=math\.pi is a float; allowed: a class derived"),
        ({"name": "custom", "_target_": "torch.nn"}, r"_target_=torch\.nn is a module; allowed: a class derived"),
        (
            {"name": "custom", "_target_": "torch.nn.Linear", "kwargs": {1: 2}},
            r"kwargs=\{1: 2\} does not name its values",
        ),
    ],
)
def test_bad_options_are_refused_in_one_sentence(options, message):
    for call in (validate_backbone, lambda name, **rest: build_backbone(name, DIGIT, **rest)):
        with pytest.raises(ValueError, match=message) as error:
            call(**options)
        assert "\n" not in str(error.value)


class Own(nn.Module):
    """Flatten, a linear layer, then whatever `finish` makes of its output (N, 4)."""

    def __init__(self, finish=lambda x: x):
        super().__init__()
        self.flatten, self.linear, self.finish = nn.Flatten(), nn.Linear(64, 4), finish

    def forward(self, x):
        return self.finish(self.linear(self.flatten(x)))


def block_ending_in(*ends: nn.Module) -> Backbone:
    """One block: a linear layer and what follows it."""
    block = nn.Sequential(
        OrderedDict([("linear", nn.Linear(64, 4)), *((f"end{i}", end) for i, end in enumerate(ends))])
    )
    return Backbone(nn.Sequential(OrderedDict(flatten=nn.Flatten(), block=block)), DIGIT, name="own")


def inputs_and_outputs(backbone: Backbone, block: str, batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """What last entered the activation module of a block, and what left the block."""
    seen = {}
    entered, left = backbone.get_submodule(backbone.activations[block]), backbone.get_submodule(block)
    hooks = [
        entered.register_forward_pre_hook(lambda _m, args: seen.setdefault("all", []).append(args[0].clone())),
        left.register_forward_hook(lambda _m, _a, output: seen.update(pre=seen["all"][-1], post=output.clone())),
    ]
    backbone.eval()(batch)
    for hook in hooks:
        hook.remove()
    return seen["pre"], seen["post"]


@pytest.mark.parametrize(
    ("options", "shape", "ending", "count"),
    [
        ({"name": "mlp"}, DIGIT, "1", 2),
        ({"name": "resnet20"}, CIFAR, "act2", 9),
        ({"name": "resnet18"}, CIFAR, "act2", 8),
        ({"name": "timm", "model": "resnet10t"}, CIFAR, "act2", 4),
        (
            {"name": "custom", "_target_": "torchvision.models.resnet18"},
            CIFAR,
            "relu",
            8,
        ),  # one relu per block, run twice
        ({"name": "timm", "model": "vit_tiny_patch16_224"}, CIFAR, "", 0),  # they end in a sum
        ({"name": "timm", "model": "convnext_atto"}, CIFAR, "", 0),
    ],
)
def test_the_activation_that_ends_a_block_turns_its_pre_activation_into_its_output(options, shape, ending, count):
    backbone = build_backbone(image_shape=shape, **options)
    assert len(backbone.activations) == count
    assert backbone.activations == {block: f"{block}.{ending}" for block in backbone.blocks[:count]}
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)  # timm's blocks start as the identity, which has no negative pre-activations
    for block in backbone.activations:
        before, after = inputs_and_outputs(backbone, block, images(shape))
        torch.testing.assert_close(after, before.relu(), rtol=0, atol=0)
        assert (before < 0).any()


class Bent(nn.Module):
    def forward(self, x):
        return x * x.sigmoid() + x.sin()


@pytest.mark.parametrize(
    "activation",
    [
        nn.ReLU(),
        nn.ReLU(inplace=True),
        nn.GELU(),
        nn.Tanh(),
        nn.PReLU(),
        nn.PReLU(4),
        nn.Hardtanh(),
        nn.RReLU(),
        Bent(),
    ],
    ids=repr,
)
@pytest.mark.parametrize("after", [[], [nn.Identity()], [nn.Dropout()], [nn.Flatten()]], ids=repr)
def test_an_activation_ends_a_block_whatever_passes_its_output_on(activation, after):
    assert block_ending_in(activation, *after).activations == {"network.block": "network.block.end0"}


@pytest.mark.parametrize(
    "ends",
    [
        [nn.Identity()],
        [nn.Dropout()],
        [nn.Flatten()],
        [nn.Softmax(1)],
        [nn.Softmax(0)],
        [nn.LogSoftmax(1)],
        [nn.LayerNorm(4, elementwise_affine=False)],
        [nn.BatchNorm1d(4, affine=False)],
        [nn.ReLU(), nn.LayerNorm(4)],
        [nn.ReLU(), nn.Linear(4, 4)],
    ],
    ids=repr,
)
def test_what_does_not_bend_each_number_by_itself_is_no_activation(ends):
    assert block_ending_in(*ends).activations == {}


def test_an_activation_to_which_something_is_added_in_place_does_not_end_its_block():
    class Added(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear, self.act = nn.Linear(64, 64), nn.ReLU()

        def forward(self, x):
            out = self.act(self.linear(x))
            out += x
            return out

    network = nn.Sequential(nn.Flatten(), nn.Sequential(Added(), Added()))
    backbone = Backbone(network, DIGIT, name="own")
    assert backbone.blocks == ("network.1.0", "network.1.1") and backbone.activations == {}


def test_an_activation_shared_by_all_blocks_ends_each_of_them():
    act = nn.ReLU()
    network = nn.Sequential(nn.Flatten(), *(nn.Sequential(nn.Linear(64, 64), act) for _ in range(3)))
    backbone = Backbone(network, DIGIT, name="own")
    assert backbone.activations == {f"network.{i}": f"network.{i}.1" for i in (1, 2, 3)}
    for block in backbone.blocks:
        before, after = inputs_and_outputs(backbone, block, images(DIGIT))
        torch.testing.assert_close(after, before.relu(), rtol=0, atol=0)


def test_a_network_without_parts_is_its_own_only_layer():
    backbone = Backbone(nn.Conv2d(1, 4, 3), DIGIT, name="own")
    assert backbone.blocks == ("network",) and backbone.activations == {}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("maps", [False, True])
def test_features_come_in_the_dtype_of_the_images_whatever_the_network_computes_in(dtype, maps):
    network = Own(lambda x: x.to(dtype)[..., None, None].expand(-1, -1, 2, 3) if maps else x.to(dtype))
    features = Backbone(network, DIGIT, name="own")(images(DIGIT))
    assert features.shape == (3, 4) and features.dtype == torch.float32
    torch.testing.assert_close(features, network.linear(images(DIGIT).flatten(1)).to(dtype).float())


def test_a_backbone_in_double_precision_stays_so():
    assert build_backbone("resnet20", DIGIT).double()(images(DIGIT).double()).dtype == torch.float64


@pytest.mark.parametrize(
    ("finish", "message"),
    [
        (lambda x: x[:, None], r"own returns \(2, 1, 4\) for 2 images; allowed: vectors \(2, d\) or maps"),
        (lambda x: x[0], r"own returns \(4,\) for 2 images"),
        (lambda x: x[:1], r"own returns \(1, 4\) for 2 images"),
        (lambda x: (x, x), r"own returns a tuple for 2 images"),
        (lambda x: {"out": x}, r"own returns a dict for 2 images"),
        (lambda x: None, r"own returns a NoneType for 2 images"),
        (
            lambda x: x.argmax(1, keepdim=True),
            r"own returns \(2, 1\) of int64 for 2 images; .*floating-point numbers\.",
        ),
        (lambda x: x > 0, r"own returns \(2, 4\) of bool for 2 images"),
        (lambda x: x[:, :0], r"own cannot take images of shape \(1, 8, 8\) \(nothing is left of the image"),
        (lambda x: x / 0, r"own cannot take images of shape \(1, 8, 8\) \(its output is NaN or infinite\)"),
    ],
)
def test_an_output_that_is_no_features_is_refused_in_one_sentence(finish, message):
    with pytest.raises(ValueError, match=message) as error:
        Backbone(Own(finish), DIGIT, name="own")
    assert "\n" not in str(error.value)


def test_a_network_that_scales_images_by_their_spread_is_taken():
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 4), Own(lambda x: x))
    network[2].forward = lambda x: x / x.std(1, keepdim=True)
    assert Backbone(network, DIGIT, name="own").num_features == 4


def test_a_network_without_parameters_is_refused():
    with pytest.raises(
        ValueError, match=r"^backbone\._target_=torch\.nn\.Flatten has no parameters; allowed: networks"
    ):
        build_backbone("custom", DIGIT, _target_="torch.nn.Flatten")


class Trained(nn.Module):
    """Gives in training mode what `finish` makes of its features, and something random before that."""

    def __init__(self, finish):
        super().__init__()
        self.flatten, self.norm, self.linear = nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, 4)
        self.drop, self.finish = nn.Dropout(), finish

    def forward(self, x):
        x = self.drop(self.linear(self.norm(self.flatten(x))))
        return self.finish(x) if self.training else x


def added_in_place(x):
    bent = x.sigmoid()
    bent += 1  # the gradient of a sigmoid is made of what it gave
    return bent


@pytest.mark.parametrize(
    ("finish", "message"),
    [
        (lambda x: (x, x), r"own returns a tuple for 2 images while it trains; allowed: vectors \(2, d\) or maps"),
        (lambda x: {"out": x}, r"own returns a dict for 2 images while it trains"),
        (lambda x: x[:, :2], r"own returns 2 features while it trains and 4 otherwise; allowed: the same"),
        (added_in_place, r"own cannot be trained: it fails .*modified by an inplace operation.*backbone\.epochs=0"),
        (lambda x: x.missing, r"own cannot be trained: it fails on 2 images in training mode \(.*missing"),
    ],
)
def test_a_network_that_does_something_else_in_training_mode_is_refused_in_one_sentence(finish, message):
    backbone = Backbone(Trained(finish), DIGIT, name="own")
    with pytest.raises(ValueError, match=message) as error:
        backbone.try_training()
    assert "\n" not in str(error.value)


def test_trying_a_training_leaves_no_trace():
    backbone = Backbone(Trained(lambda x: x), DIGIT, name="own")
    backbone.network.drop.eval()
    before, state = {name: value.clone() for name, value in backbone.state_dict().items()}, torch.get_rng_state()
    backbone.try_training()
    assert all(torch.equal(before[name], value) for name, value in backbone.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert all(parameter.grad is None for parameter in backbone.parameters())
    assert backbone.training and not backbone.network.drop.training
