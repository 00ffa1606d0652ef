import sys
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

from pipeline.networks import Backbone, build_backbone, known_backbones, validate_backbone

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


def test_the_five_backbones_are_known():
    assert known_backbones() == ("mlp", "resnet20", "resnet18", "timm", "custom")


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
        (
            {"name": "alexnet"},
            r"backbone=alexnet is not a known backbone; allowed: mlp, resnet20, resnet18, timm, custom\.",
        ),
        ({"name": "mlp", "hidden": []}, r"backbone\.hidden=\[\] is out of range"),
        ({"name": "mlp", "hidden": [8, 0]}, r"backbone\.hidden=\[8, 0\] is out of range"),
        ({"name": "mlp", "pretrained": True}, r"backbone\.pretrained=true, but backbone=mlp has no published"),
        ({"name": "timm"}, r"backbone\.model=null names no model"),
        ({"name": "timm", "timm_model": "resnet81"}, r"backbone\.model=resnet81 .*did you mean .*resnet"),
        ({"name": "timm", "timm_model": "resnet18.none"}, r"unknown tag; allowed: a1_in1k"),
        ({"name": "custom"}, r"backbone\._target_=null names no network; allowed: package\.module\.Class"),
        ({"name": "mlp", "target": "a.B"}, r"backbone\._target_=a\.B, but backbone=mlp .*; allowed: backbone=custom\."),
        (
            {"name": "mlp", "kwargs": {"a": 1}},
            r"backbone\.kwargs=\{'a': 1\}, but backbone=mlp .*allowed: backbone=custom",
        ),
        ({"name": "custom", "target": "resnet18"}, r"_target_=resnet18 is not a dotted path; allowed: package\.module"),
        ({"name": "custom", "target": "torchvision..x"}, r"_target_=torchvision\.\.x is not a dotted path"),
        (
            {"name": "custom", "target": "torchvison.models.resnet18"},
            r"no module torchvison \(did you mean torchvision",
        ),
        ({"name": "custom", "target": "torchvision.model.resnet18"}, r"torchvision has no model \(did you mean models"),
        ({"name": "custom", "target": "torchvision.models.resnet81"}, r"has no resnet81 \(did you mean .*resnet18"),
        (
            {"name": "custom", "target": "math.sqroot"},
            r"_target_=math\.sqroot: math has no sqroot \(did you mean .*sqrt.*\?\)",
        ),
        ({"name": "custom", "target": "math.pi"}, r"_target_=math\.pi is a float; allowed: a class derived"),
        ({"name": "custom", "target": "torch.nn"}, r"_target_=torch\.nn is a module; allowed: a class derived"),
        (
            {"name": "custom", "target": "torch.nn.Linear", "kwargs": {1: 2}},
            r"kwargs=\{1: 2\} does not name its values",
        ),
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
        ({"name": "timm", "timm_model": "resnet10t"}, CIFAR, "act2", 4),
        (
            {"name": "custom", "target": "torchvision.models.resnet18"},
            CIFAR,
            "relu",
            8,
        ),  # one relu per block, run twice
        ({"name": "timm", "timm_model": "vit_tiny_patch16_224"}, CIFAR, "", 0),  # they end in a sum
        ({"name": "timm", "timm_model": "convnext_atto"}, CIFAR, "", 0),
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
        build_backbone("custom", DIGIT, target="torch.nn.Flatten")


MODULE = """
import torch
from torch import nn

class Net(nn.Module):
    class Inner(nn.Linear):
        def __init__(self):
            super().__init__(8, 3)

    def __init__(self, width=3, dtype=None):
        super().__init__()
        self.blocks = nn.Sequential(nn.Flatten(), nn.Linear(64, width, dtype=dtype), nn.ReLU())

    def forward(self, x):
        return self.blocks(x)

class Half(Net):
    def __init__(self):
        super().__init__(dtype=torch.float16)
        self.eval()

class Late(Net):
    def __init__(self):
        from {helper} import WIDTH
        super().__init__(WIDTH)

def function():
    raise AssertionError("was called")

def annotated() -> Net:
    return Net(5)

def text() -> str:
    raise AssertionError("was called")

class NoNetwork:
    def __init__(self):
        raise AssertionError("was called")

class Text(nn.Module):
    def __new__(cls):
        return "no network"

class Leaves(nn.Module):
    def __init__(self):
        raise SystemExit(3)

class Fails(nn.Module):
    def __init__(self):
        raise RuntimeError("first line\\nsecond line")

network = Net()
"""


@pytest.fixture
def own_module(tmp_path, monkeypatch):
    """The name of a module in the working directory, which is not on the path, as in the console script."""
    name = f"own_{tmp_path.name}".replace("-", "_")
    (tmp_path / f"{name}.py").write_text(MODULE.replace("{helper}", f"{name}_helper"))
    (tmp_path / f"{name}_helper.py").write_text("WIDTH = 7")
    (tmp_path / f"{name}_broken.py").write_text("import no_such_package")
    (tmp_path / f"{name}_syntax.py").write_text("def")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [entry for entry in sys.path if entry not in ("", str(Path.cwd()))])
    return name


def test_a_class_in_the_working_directory_is_built_with_its_arguments(own_module):
    path = list(sys.path)
    validate_backbone("custom", target=f"{own_module}.Net", kwargs={"width": 5})
    backbone = build_backbone("custom", DIGIT, target=f"{own_module}.Net", kwargs={"width": 5})
    assert backbone(images(DIGIT)).shape == (3, 5)
    assert backbone.blocks == ("network.blocks",)
    assert backbone.activations == {"network.blocks": "network.blocks.2"}
    assert backbone.name == f"backbone._target_={own_module}.Net"
    assert sys.path == path


def test_a_class_may_import_from_the_working_directory_when_it_is_called(own_module):
    assert build_backbone("custom", DIGIT, target=f"{own_module}.Late").num_features == 7


def test_a_class_within_a_class_and_a_function_annotated_to_return_a_network_can_be_named(own_module):
    assert build_backbone("custom", CIFAR, target="torchvision.models.resnet18").num_features == 1000
    assert build_backbone("custom", DIGIT, target=f"{own_module}.annotated").num_features == 5
    assert isinstance(build_backbone("custom", (8,), target=f"{own_module}.Net.Inner").network, nn.Linear)


def test_a_custom_network_is_built_in_float32_and_training_mode_like_the_others(own_module):
    backbone = build_backbone("custom", DIGIT, target=f"{own_module}.Half")
    assert all(parameter.dtype == torch.float32 for parameter in backbone.parameters())
    assert all(module.training for module in backbone.modules())


def test_the_weights_of_a_custom_network_are_a_function_of_the_seed_alone(own_module):
    def weights(seed):
        return build_backbone("custom", DIGIT, target=f"{own_module}.Net", seed=seed).network.blocks[1].weight

    before = torch.get_rng_state()
    assert torch.equal(weights(1), weights(1)) and not torch.equal(weights(1), weights(2))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("rest", "kwargs", "message"),
    [
        (
            "_broken.Net",
            {},
            r"own_\w+_broken cannot be imported \(ModuleNotFoundError: No module named 'no_such_package'",
        ),
        ("_syntax.Net", {}, r"own_\w+_syntax cannot be imported \(SyntaxError: "),
        (
            ".Nett",
            {},
            r"own_\w+ has no Nett \(did you mean Net\?\); allowed: a class .* in it\.",
        ),
        (".network", {}, r"own_\w+\.network is a Net; allowed: a class derived"),
        (".function", {}, r"own_\w+\.function is a function; allowed: a class derived .* or a function annotated"),
        (".text", {}, r"own_\w+\.text is a function; allowed: a class derived"),
        (
            ".NoNetwork",
            {},
            r"own_\w+\.NoNetwork is a class not derived from it \(NoNetwork\); allowed: a class",
        ),
        (".Text", {}, r"own_\w+\.Text gives a str; allowed: .* torch\.nn\.Module\."),
        (".Leaves", {}, r"cannot be built with backbone\.kwargs=\{\} \(SystemExit: 3\); allowed: the arguments"),
        (
            ".Fails",
            {},
            r"cannot be built with backbone\.kwargs=\{\} \(RuntimeError: first line\); allowed: the arguments",
        ),
        (
            ".Net",
            {"wide": 3},
            r"with backbone\.kwargs=\{'wide': 3\} \(TypeError: .*unexpected keyword argument 'wide'\)",
        ),
    ],
)
def test_a_custom_network_that_cannot_be_had_is_refused_in_one_sentence(own_module, rest, kwargs, message):
    with pytest.raises(ValueError, match=message) as error:
        build_backbone("custom", DIGIT, target=f"{own_module}{rest}", kwargs=kwargs)
    assert "\n" not in str(error.value) and str(error.value).startswith(f"backbone._target_={own_module}{rest}")
    assert str(error.value).endswith(".")


def test_the_configuration_of_custom_names_both_settings():
    text = (Path(__file__).parents[2] / "conf" / "backbone" / "custom.yaml").read_text()
    assert yaml.safe_load(text) == {"name": "custom", "_target_": None, "kwargs": None, "epochs": 20}
