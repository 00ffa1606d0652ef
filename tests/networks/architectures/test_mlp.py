import pytest
import torch
from torch import nn

from pipeline.networks import build_backbone
from pipeline.runtime.randomness import generator

DIGIT = (1, 8, 8)


def images(shape, count=3) -> torch.Tensor:
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(0))


def test_the_mlp_is_linear_and_relu_with_biases():
    backbone = build_backbone("mlp", DIGIT, hidden=[5, 3])
    first, second = backbone.get_submodule("network.hidden1.0"), backbone.get_submodule("network.hidden2.0")
    batch = images(DIGIT)
    expected = ((batch.flatten(1) @ first.weight.T + first.bias).relu() @ second.weight.T + second.bias).relu()
    torch.testing.assert_close(backbone(batch), expected)
    assert backbone.blocks == ("network.hidden1", "network.hidden2") and backbone.num_features == 3


def test_defaults_build_what_was_built_before_there_were_options():
    found = build_backbone("mlp", (1, 3, 3), hidden=[5, 4], seed=7).network
    with torch.random.fork_rng(devices=[]):
        torch.set_rng_state(generator(7, "backbone/initialisation").get_state())
        known = [nn.Linear(9, 5), nn.Linear(5, 4)]
    assert [name for name, _ in found.named_children()] == ["flatten", "hidden1", "hidden2"]
    for number, layer in enumerate(known, start=1):
        own = found.get_submodule(f"hidden{number}")
        assert own[0].weight.equal(layer.weight) and own[0].bias.equal(layer.bias)
        assert [type(part) for part in own] == [nn.Linear, nn.ReLU]


def test_a_normalised_last_layer_has_the_length_of_its_gain():
    net = build_backbone("mlp", (1, 3, 3), hidden=[5, 4], norm="batch", norm_bias=False, bias=False)
    assert all(name.endswith("weight") for name, _ in net.named_parameters())
    norm = net.network.hidden2[-1]
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([1.0, 2.0, 0.5, 1.5]))
        norm.eps = 1e-30
        found = net.double().train()(torch.randn(40, 1, 3, 3, dtype=torch.float64))
    assert found.square().sum(1).mean() == pytest.approx(7.5, rel=1e-12)


def test_a_tail_is_linear_without_biases_and_each_of_it_is_a_place():
    net = build_backbone("mlp", (1, 3, 3), hidden=[5, 4], linear_tail=3, init_scale=2.0, seed=1)
    assert net.blocks[2:] == ("network.linear1", "network.linear2", "network.linear3") and net.num_features == 4
    rows = torch.randn(6, 1, 3, 3)
    product = torch.linalg.multi_dot([net.get_submodule(block)[0].weight for block in reversed(net.blocks[2:])])
    features = net.network[:3](rows)
    assert torch.allclose(net(rows), features @ product.mT, atol=1e-6)
    plain = build_backbone("mlp", (1, 3, 3), hidden=[5, 4], linear_tail=3, seed=1)
    assert all(own.equal(2 * other) for own, other in zip(net.parameters(), plain.parameters(), strict=True))


def test_norms_of_other_networks_are_refused():
    with pytest.raises(ValueError, match=r"backbone.norm=rms does not go with backbone=mlp; allowed: none, batch"):
        build_backbone("mlp", (1, 3, 3), norm="rms")
    with pytest.raises(ValueError, match="linear_tail=9"):
        build_backbone("mlp", (1, 3, 3), linear_tail=9)


def test_normal_entries_have_the_spread_that_is_asked_for_and_biases_are_zero():
    net = build_backbone("mlp", (1, 20, 20), hidden=[300, 200], linear_tail=1, init_std=1e-3, seed=2)
    spreads = {name: float(value.detach().std()) for name, value in net.named_parameters() if name.endswith("weight")}
    # of 40,000 entries or more: the standard error of a spread is below .4 %
    assert list(spreads.values()) == pytest.approx([1e-3] * 3, rel=0.02)
    assert all(not value.any() for name, value in net.named_parameters() if name.endswith("bias"))
    with pytest.raises(ValueError, match=r"backbone.init_std=0.001 leaves nothing for backbone.init_scale=8 to scale"):
        build_backbone("mlp", (1, 3, 3), init_std=1e-3, init_scale=8.0)


def test_a_norm_before_the_first_layer_takes_the_length_of_rows_away():
    net = build_backbone("mlp", (12, 1, 1), hidden=[5], input_norm="rms", seed=1)
    rows = torch.randn(4, 12, 1, 1)
    torch.testing.assert_close(net(rows), net(7 * rows))
    unit = rows.flatten(1) * 12**0.5 / rows.flatten(1).norm(dim=1, keepdim=True)
    plain = build_backbone("mlp", (12, 1, 1), hidden=[5], seed=1)
    torch.testing.assert_close(net(rows), plain(unit.view_as(rows)))
    assert net.blocks == plain.blocks
