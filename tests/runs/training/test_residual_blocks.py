"""Norm, shortcut and ReLU in the same passes: the numbers of each by itself."""

import copy

import pytest
import torch
from timm.models.resnet import BasicBlock, Bottleneck, downsample_conv
from torch import Tensor, nn

from pipeline.networks import build_backbone
from pipeline.runs.training import native_norm
from pipeline.runs.training.channels_last import ChannelsLast
from pipeline.runs.training.native_norm import NativeNorm
from pipeline.runs.training.residual_blocks import fused

pytestmark = pytest.mark.skipif(native_norm.library() is None, reason="no C++ compiler")
LAST = torch.channels_last
SHAPES = [(8, 16, 9, 7), (4, 13, 5, 5), (6, 5, 1, 1), (3, 40, 4, 4)]


def drawn(shape: tuple[int, ...], count: int) -> list[Tensor]:
    source = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=source).contiguous(memory_format=LAST) for _ in range(count)]


def norms_of(network: nn.Module) -> dict[nn.Module, NativeNorm]:
    return {part: NativeNorm(part) for part in network.modules() if isinstance(part, nn.BatchNorm2d)}


def norm_of(channels: int) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(channels)
    nn.init.normal_(norm.weight, 1.0, 0.5, generator=torch.Generator().manual_seed(1))
    norm.weight.data[0] = 0  # of which ReLU hands nothing on
    return norm


def apart(norm: NativeNorm, maps: Tensor, shortcut: Tensor | None) -> Tensor:
    return torch.relu(norm(maps) if shortcut is None else norm(maps) + shortcut)


def together(norm: NativeNorm, maps: Tensor, shortcut: Tensor | None) -> Tensor:
    return norm(maps, rectified=True) if shortcut is None else norm(maps, shortcut=shortcut)


def with_gradients(run, maps: Tensor, shortcut: Tensor | None, gradient: Tensor) -> list[Tensor]:
    """Output and gradients, the latter found twice from one forward pass."""
    norm = norm_of(maps.shape[1])
    inputs = [it.clone().requires_grad_() for it in (maps, shortcut) if it is not None]
    outputs = run(NativeNorm(norm), inputs[0], *inputs[1:] or [None])
    found = [torch.autograd.grad(outputs, [*inputs, *norm.parameters()], gradient, retain_graph=True) for _ in range(2)]
    assert all(map(torch.equal, *found))
    return [outputs.detach(), *found[0]]


@pytest.mark.parametrize("added", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_of_float32_they_are_the_same_bits_as_by_themselves(shape, added):
    maps, shortcut, gradient = drawn(shape, 3)
    maps[0, 0, 0, 0] = 0.0
    found, expected = (with_gradients(run, maps, shortcut if added else None, gradient) for run in (together, apart))
    assert len(found) == 4 + added and all(map(torch.equal, found, expected))
    assert found[0].is_contiguous(memory_format=LAST) and (found[0] == 0).any()


@pytest.mark.parametrize("added", [False, True])
def test_of_bf16_outputs_and_gradients_are_rounded_once(added):
    maps, shortcut, gradient = (it.bfloat16() for it in drawn((8, 21, 6, 6), 3))
    other = shortcut if added else None
    found = with_gradients(together, maps, other, gradient)
    inputs = [it.double().requires_grad_() for it in (maps, other) if it is not None]
    sums = norm_of(21).double()(inputs[0]) + (inputs[1] if added else 0)
    exact = torch.where(found[0] > 0, sums, 0)  # on the side of zero on which the rounded number is
    assert ((sums > 0) == (found[0] > 0)).double().mean() > 0.999
    references = [exact, *torch.autograd.grad(exact, inputs, gradient.double())]
    for value, reference in zip(found[: 2 + added], references, strict=True):
        assert value.dtype == torch.bfloat16
        assert ((value.double() - reference).abs() <= 2**-8 * reference.abs() + 1e-6).all()


def test_what_is_not_a_number_goes_through_as_through_relu():
    maps, shortcut, gradient = drawn((2, 3, 4, 4), 3)
    shortcut[0, 1, 2, 3] = torch.nan
    found, expected = (with_gradients(run, maps, shortcut, gradient) for run in (together, apart))
    assert int(found[0].isnan().sum()) == 1
    for value, reference in zip(found, expected, strict=True):
        torch.testing.assert_close(value, reference, rtol=0, atol=0, equal_nan=True)


def trained_once(network: nn.Module, maps: Tensor, forwards: dict) -> list[Tensor]:
    """Output, gradients and buffers, where modules have other ways to be called."""
    maps = maps.clone().requires_grad_()
    for part, forward in forwards.items():
        part.__dict__["forward"] = forward
    outputs = network(maps)
    gradients = torch.autograd.grad(outputs.square().sum(), [maps, *network.parameters()])
    return [outputs.detach(), *gradients, *network.buffers()]


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (BasicBlock, {}),
        (BasicBlock, {"stride": 2, "downsample": (8, 12, 1, 2)}),
        (Bottleneck, {}),
        (Bottleneck, {"stride": 2, "downsample": (8, 48, 1, 2)}),
    ],
)
def test_a_block_is_to_the_bit_what_its_parts_are(kind, options):
    torch.manual_seed(0)
    narrow = 12 if "downsample" in options else 8 // kind.expansion
    options = {name: downsample_conv(*value) if name == "downsample" else value for name, value in options.items()}
    block = kind(8, narrow, **options).to(memory_format=LAST)
    other, (maps,) = copy.deepcopy(block), drawn((4, 8, 6, 6), 1)
    forwards = fused(block, norms_of(block))
    assert block in forwards
    for value, expected in zip(
        trained_once(block, maps, forwards), trained_once(other, maps, dict(norms_of(other))), strict=True
    ):
        assert torch.equal(value, expected)


def test_resnet20_trains_on_the_same_bits_and_its_stem_and_blocks_are_found():
    network = build_backbone("resnet20", (3, 8, 8))
    other, (images,) = copy.deepcopy(network), drawn((4, 3, 8, 8), 1)
    run, plain = ChannelsLast(network), ChannelsLast(other)
    plain._forwards = dict(norms_of(other))
    assert len(run._forwards) == 21 + 9 + 1  # norms, blocks, the ReLU of the stem
    found, expected = run(images), plain(images)
    assert torch.equal(found, expected)
    for each, features in ((network, found), (other, expected)):
        features.square().sum().backward()
        assert all(parameter.grad is not None for parameter in each.parameters())
    assert all(torch.equal(a.grad, b.grad) for a, b in zip(network.parameters(), other.parameters(), strict=True))
    assert all(map(torch.equal, network.buffers(), other.buffers()))


@pytest.mark.parametrize(
    "name", ["bn1", "act1", "layer1.0.bn1", "layer1.0.drop_block", "layer2.1.bn2", "layer2.1.act2"]
)
def test_who_watches_a_part_that_would_be_passed_by_sees_what_it_makes(name):
    network, (images,) = build_backbone("resnet20", (3, 8, 8)), drawn((4, 3, 8, 8), 1)
    expected, seen = ChannelsLast(copy.deepcopy(network))(images), []
    part = network.network.get_submodule(name)
    part.register_forward_hook(lambda module, inputs, output: seen.append(output.detach().clone()))
    assert torch.equal(ChannelsLast(network)(images), expected)
    (maps,) = seen
    assert bool((maps < 0).any()) == ("act" not in name)


@pytest.mark.parametrize(
    "change",
    [
        lambda block: setattr(block, "act1", nn.GELU()),
        lambda block: setattr(block, "se", nn.Conv2d(8, 8, 1)),
        lambda block: setattr(block, "drop_path", nn.Dropout(0.1)),
        lambda block: setattr(block, "aa", nn.AvgPool2d(1)),
        lambda block: setattr(block, "bn2", nn.GroupNorm(2, 8)),
        lambda block: setattr(block, "forward", lambda maps: maps),
    ],
)
def test_blocks_with_anything_else_in_them_are_left_alone(change):
    block = BasicBlock(8, 8)
    assert block in fused(block, norms_of(block))
    change(block)
    assert block not in fused(block, norms_of(block))
