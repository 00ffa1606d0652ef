"""Residual MLPs: what they compute, their steps, and what is refused."""

import pytest
import torch
from torch import nn

from pipeline.networks import build_backbone
from pipeline.networks.architectures.residual_mlp import ADAPT_EVERY, STEPS, Settings, initial_steps


def built(width=6, **settings):
    return build_backbone("residual_mlp", (1, 2, 3), width=width, **settings).double().eval().requires_grad_(False)


@pytest.fixture
def images():
    return torch.randn(5, 1, 2, 3, dtype=torch.float64)


@pytest.mark.parametrize("norm", ["layer", "rms", "none"])
@pytest.mark.parametrize("block_layers", [1, 2])
@pytest.mark.parametrize("skip", [True, False])
def test_a_block_is_the_norm_of_what_enters_and_its_change(norm, block_layers, skip, images):
    net = built(depth=3, norm=norm, block_layers=block_layers, skip=skip, activation="tanh")

    def normalised(rows):
        if norm == "none":
            return rows
        rows = rows - rows.mean(1, keepdim=True) if norm == "layer" else rows
        return rows / rows.norm(dim=1, keepdim=True) * 6**0.5

    rows = normalised(images.flatten(1))
    for block in net.network.blocks:
        inside = rows if block_layers == 1 else rows @ block.inner.weight.mT + block.inner.bias
        change = inside.tanh() @ block.outer.weight.mT + block.outer.bias
        rows = normalised(rows * skip + change)
    assert torch.allclose(net(images), rows, rtol=1e-9, atol=1e-12)
    if norm != "none":
        assert torch.allclose(net(images).norm(dim=1), torch.full((5,), 6**0.5, dtype=torch.float64), rtol=1e-8)


@pytest.mark.parametrize("steps", STEPS)
def test_a_leaky_network_is_the_discretised_flow(steps, images):
    net = built(depth=5, leak=2.0, steps=steps)
    rho, rows = net.network.rho, images.flatten(1)
    assert rho.dtype == torch.float64 and float(rho.sum()) == pytest.approx(1, abs=1e-15)
    for step, block in zip(rho, net.network.blocks, strict=True):
        rows = (1 - 2 * step) * rows + step * (rows.relu() @ block.outer.weight.mT + block.outer.bias)
    assert torch.allclose(net(images), rows)
    shares = net.network.penalty_shares()
    assert shares["blocks.4.outer.weight"] == float(rho[4]) / 2 and len(shares) == 10


def test_irregular_steps_follow_the_formula():
    found = initial_steps(Settings(depth=4, leak=1.0, steps="irregular", irregularity=0.8))
    shape = torch.tensor([1 + 0.8 * (0.25 - abs(place / 4 - 0.5)) for place in (1, 2, 3, 4)], dtype=torch.float64)
    assert torch.allclose(found, shape / shape.sum(), rtol=1e-14)


def test_adaptive_steps_turn_against_the_relative_speed(images):
    net = built(depth=4, leak=1.5, steps="adaptive", norm="none").train()
    rho = net.network.rho.clone()
    for _ in range(ADAPT_EVERY - 1):
        net(images)
    assert net.network.rho.equal(rho)
    rows, speeds = images.flatten(1), []
    for step, block in zip(rho, net.network.blocks, strict=True):
        before, rows = rows, block(rows, step)
        speeds.append(float((rows - before).norm() / rows.norm() / step))
    net(images)
    slow = torch.tensor(speeds, dtype=torch.float64).reciprocal()
    expected = slow / slow.sum()
    if float(expected.max()) * 1.5 < 0.99:
        assert torch.allclose(net.network.rho, expected)
    assert float(net.network.rho.sum()) == pytest.approx(1) and float(net.network.rho.max()) * 1.5 <= 0.9901
    assert not net.network.rho.equal(rho)


def test_a_pass_has_the_gradient_of_the_steps_it_was_made_with(images):
    net = built(depth=4, leak=1.5, steps="adaptive").train().requires_grad_(True)
    for _ in range(ADAPT_EVERY):
        features = net(images)
    rho = net.network.rho.clone()
    [gradient] = torch.autograd.grad(features.sum(), [net.network.blocks[0].outer.weight])
    net.network.rho.copy_(initial_steps(Settings(depth=4, leak=1.5)))
    [known] = torch.autograd.grad(net.eval()(images).sum(), [net.network.blocks[0].outer.weight])
    assert not rho.equal(net.network.rho) and torch.allclose(gradient, known)


def test_blocks_are_places_and_the_start_is_as_small_as_said():
    net = build_backbone("residual_mlp", (1, 8, 8), depth=4, width=64, norm="layer", bias=False)
    assert net.blocks == tuple(f"network.blocks.{number}" for number in range(4)) and net.num_features == 64
    assert [name for name, _ in net.named_parameters()] == [f"network.blocks.{n}.outer.weight" for n in range(4)]
    weight = net.network.blocks[0].outer.weight
    assert float(weight.detach().std()) == pytest.approx((64 * 4) ** -0.5, rel=0.05)
    wider = build_backbone("residual_mlp", (1, 8, 8), depth=1, width=10, init_scale=3.0)
    assert isinstance(wider.network.embedding, nn.Linear) and wider.num_features == 10


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"norm": "batch"}, "backbone.norm=batch does not go with backbone=residual_mlp; allowed: none, layer, rms"),
        ({"leak": 5.0}, "backbone.leak=5 with backbone.depth=5 .* allowed: below 1, i.e. backbone.depth > 5"),
        ({"leak": 4.95, "steps": "irregular"}, "backbone.depth > 5"),
        ({"leak": 1.0, "skip": False}, "backbone.skip=true"),
        ({"steps": "adaptive"}, "backbone.leak > 0"),
        ({"block_layers": 3}, "backbone.block_layers=3"),
    ],
)
def test_what_makes_no_network_is_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        build_backbone("residual_mlp", (1, 2, 3), **settings)
