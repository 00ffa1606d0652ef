"""Measuring in one pass equals measuring each layer by hand."""

import pytest
import torch

from pipeline import dufm, metrics
from pipeline.backbones import build_backbone
from pipeline.data import load_images
from pipeline.measuring import backbone_features, measure_backbone, measure_head


@pytest.fixture(scope="module")
def images():
    return load_images("digits", classes=[3, 8], samples_per_class=40)


@pytest.mark.parametrize("name", ["mlp", "resnet20"])
def test_every_block_is_measured_in_the_pass_that_gives_the_features(name, images):
    backbone = build_backbone(name, images.image_shape, hidden=[32, 16])
    features, layers = measure_backbone(backbone, images, images.train)
    assert [layer.layer for layer in layers] == list(backbone.blocks)
    assert torch.equal(features, backbone_features(backbone, images, images.train))
    outputs = {}
    hooks = [
        backbone.get_submodule(block).register_forward_hook(
            lambda module, inputs, output, block=block: outputs.update({block: output.clone()})
        )
        for block in backbone.blocks
    ]
    with torch.no_grad():
        expected = backbone.eval()(images.standardise(images.train.images))
    for hook in hooks:
        hook.remove()
    torch.testing.assert_close(features, expected)
    for layer in layers:
        output = outputs[layer.layer]
        pooled = output.mean(dim=(2, 3)) if output.ndim == 4 else output
        reference = metrics.dnc1(pooled, images.train.labels, 2)
        assert layer.values["dnc1"].item() == pytest.approx(reference.item(), rel=1e-5)
        assert layer.tap == "post"
    last = layers[-1].values["dnc2"].item()
    assert last == pytest.approx(metrics.dnc2(features, images.train.labels, 2).item(), rel=1e-6)


def test_measuring_leaves_the_backbone_in_the_mode_it_was_in(images):
    backbone = build_backbone("resnet20", images.image_shape)
    running_mean = backbone.network.bn1.running_mean.clone()
    for training in (True, False):
        backbone.train(training)
        measure_backbone(backbone, images, images.train)
        assert all(module.training is training for module in backbone.modules())
    assert torch.equal(backbone.network.bn1.running_mean, running_mean)


def test_head_measurements_stand_where_the_record_says_and_equal_the_functions():
    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
    features, labels = draw(12, 5), torch.arange(3).repeat(4)
    weights = [draw(2, 6, 5), draw(2, 7, 6), draw(2, 3, 7)]
    measured = {(at.layer, at.tap): at.values for at in measure_head(features, weights, labels, 3, "relu")}
    assert list(measured) == [("1", "pre"), ("2", "pre"), ("2", "post"), ("3", "pre"), ("3", "post")]
    assert {place for place, values in measured.items() if "dnc3" in values} == {
        ("1", "pre"),
        ("2", "post"),
        ("3", "post"),
    }
    assert {place for place, values in measured.items() if "nc3_duality" in values} == {("3", "post")}
    assert {place for place, values in measured.items() if "balancedness" in values} == {("1", "pre"), ("2", "post")}
    for member in range(2):
        hidden = torch.relu(features @ weights[0][member].T)
        decisions = dufm.forward(features, [weight[member] for weight in weights])[-1][0].argmax(dim=1)
        expected = {
            "dnc1": metrics.dnc1(hidden, labels, 3),
            "dnc2": metrics.dnc2(hidden, labels, 3),
            "dnc3": metrics.dnc3(weights[1][member], hidden, labels, 3),
            "balancedness": metrics.balancedness(weights[1][member], weights[2][member]),
            "nc4": metrics.nc4(hidden, labels, decisions, 3),
        }
        for name, value in expected.items():
            assert measured["2", "post"][name][member].item() == pytest.approx(value.item(), rel=1e-12)


def test_what_is_undefined_comes_with_its_reason():
    labels = torch.arange(2).repeat(3)
    dead = [torch.zeros(1, 4, 3, dtype=torch.float64), torch.ones(1, 2, 4, dtype=torch.float64)]
    features = torch.randn(6, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    first, *_, last = measure_head(features, dead, labels, 2, "relu")
    assert torch.isnan(last.values["dnc1"]).all() and "coincide" in last.reasons["dnc1"]
    assert torch.isnan(first.values["dnc3"]).all() and "dnc3" in first.reasons and "dnc1" not in first.reasons
