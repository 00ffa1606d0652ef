"""Networks of the user's own, from modules in the working directory."""

import sys
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

from pipeline.networks import build_backbone, validate_backbone

DIGIT, CIFAR = (1, 8, 8), (3, 32, 32)
CONF = Path(__file__).parents[3] / "conf" / "backbone"


def images(shape, count=3) -> torch.Tensor:
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(0))


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
    validate_backbone("custom", _target_=f"{own_module}.Net", kwargs={"width": 5})
    backbone = build_backbone("custom", DIGIT, _target_=f"{own_module}.Net", kwargs={"width": 5})
    assert backbone(images(DIGIT)).shape == (3, 5)
    assert backbone.blocks == ("network.blocks",)
    assert backbone.activations == {"network.blocks": "network.blocks.2"}
    assert backbone.name == f"backbone._target_={own_module}.Net"
    assert sys.path == path


def test_a_class_may_import_from_the_working_directory_when_it_is_called(own_module):
    assert build_backbone("custom", DIGIT, _target_=f"{own_module}.Late").num_features == 7


def test_a_class_within_a_class_and_a_function_annotated_to_return_a_network_can_be_named(own_module):
    assert build_backbone("custom", CIFAR, _target_="torchvision.models.resnet18").num_features == 1000
    assert build_backbone("custom", DIGIT, _target_=f"{own_module}.annotated").num_features == 5
    assert isinstance(build_backbone("custom", (8,), _target_=f"{own_module}.Net.Inner").network, nn.Linear)


def test_a_custom_network_is_built_in_float32_and_training_mode_like_the_others(own_module):
    backbone = build_backbone("custom", DIGIT, _target_=f"{own_module}.Half")
    assert all(parameter.dtype == torch.float32 for parameter in backbone.parameters())
    assert all(module.training for module in backbone.modules())


def test_the_weights_of_a_custom_network_are_a_function_of_the_seed_alone(own_module):
    def weights(seed):
        return build_backbone("custom", DIGIT, _target_=f"{own_module}.Net", seed=seed).network.blocks[1].weight

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
        build_backbone("custom", DIGIT, _target_=f"{own_module}{rest}", kwargs=kwargs)
    assert "\n" not in str(error.value) and str(error.value).startswith(f"backbone._target_={own_module}{rest}")
    assert str(error.value).endswith(".")


def test_the_configuration_of_custom_names_both_settings():
    text = (CONF / "custom.yaml").read_text()
    assert yaml.safe_load(text) == {"name": "custom", "_target_": None, "kwargs": None, "epochs": 20}
