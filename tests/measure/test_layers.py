"""Measuring in one pass equals measuring each layer by hand."""

import math
from dataclasses import replace

import pytest
import torch

from pipeline import dufm, metrics
from pipeline.data import Split, load_images
from pipeline.measure import extraction
from pipeline.measure import layers as measuring
from pipeline.measure.extraction import backbone_features
from pipeline.measure.heads import measure_head
from pipeline.measure.layers import measure_backbone, state_bytes
from pipeline.metrics.engine.plan import Plan
from pipeline.metrics.engine.settings import MeasureSettings
from pipeline.networks import Backbone, build_backbone

ALL = MeasureSettings(families=("all",))


@pytest.fixture(scope="module")
def images():
    return load_images("digits", classes=[3, 8], samples_per_class=40)


def layers_by_hand(backbone, batch) -> dict[tuple[str, str], torch.Tensor]:
    """What every block puts out, and what its last ReLU gets, pooled; read with plain hooks and clones."""
    seen = {}

    def pooled(value):
        return value.mean(dim=(2, 3)).clone() if value.ndim == 4 else value.clone()

    hooks = []
    for block in backbone.blocks:
        relus = [m for m in backbone.get_submodule(block).modules() if isinstance(m, torch.nn.ReLU)]
        hooks.append(
            relus[-1].register_forward_pre_hook(
                lambda module, inputs, block=block: seen.update({(block, "pre"): pooled(inputs[0])})
            )
        )
        hooks.append(
            backbone.get_submodule(block).register_forward_hook(
                lambda module, inputs, output, block=block: seen.update({(block, "post"): pooled(output)})
            )
        )
    with torch.no_grad():
        seen["features"] = backbone.eval()(batch)
    for hook in hooks:
        hook.remove()
    return seen


@pytest.mark.parametrize(("name", "settings"), [("mlp", {"hidden": [32, 16]}), ("resnet20", {})])
def test_every_block_is_measured_before_and_after_its_activation_on_both_splits(name, settings, images):
    backbone = build_backbone(name, images.image_shape, **settings)
    decide = torch.nn.Linear(backbone.num_features, 2)
    measured = measure_backbone(backbone, images, decide)
    assert [(at.layer, at.tap) for at in measured.layers] == [
        (block, tap) for block in backbone.blocks for tap in ("pre", "post")
    ]
    assert torch.equal(measured.train, backbone_features(backbone, images, images.train))
    train, test = (layers_by_hand(backbone, images.standardise(split.images)) for split in (images.train, images.test))
    for found, expected in ((measured.train, train["features"]), (measured.test, test["features"])):
        # Float32 rounding is relative to the terms of a sum: to the largest feature, not to each.
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))
    for layer in measured.layers:
        own, other = train[layer.layer, layer.tap].double(), test[layer.layer, layer.tap].double()
        means = torch.stack([own[images.train.labels == c].mean(dim=0) for c in (0, 1)])
        value = {name: value.item() for name, value in layer.values.items()}
        expected = {
            "dnc1": metrics.dnc1(own, images.train.labels, 2).item(),
            "test_dnc1": metrics.dnc1(other, images.test.labels, 2).item(),
            "dnc2": metrics.dnc2(own, images.train.labels, 2).item(),
            "test_dnc2": metrics.dnc2(other, images.test.labels, 2).item(),
        }
        for split, rows, inputs in (("", own, train), ("test_", other, test)):
            labels = images.test.labels if split else images.train.labels
            nearest = torch.cdist(rows, means).argmin(dim=1)
            decisions = decide(inputs["features"]).argmax(dim=1)
            expected[f"{split}ncm_accuracy"] = (nearest == labels).double().mean().item()
            expected[f"{split}nc4"] = (nearest != decisions).double().mean().item()
        for metric, number in expected.items():
            assert value[metric] == pytest.approx(number, rel=1e-5), (layer.layer, layer.tap, metric)
        assert layer.reasons == {}


def test_what_enters_a_shared_activation_last_is_the_pre_activation():
    class Block(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = torch.nn.Linear(6, 6), torch.nn.Linear(6, 6)
            self.relu = torch.nn.ReLU(inplace=True)

        def forward(self, x):
            return self.relu(self.second(self.relu(self.first(x))))

    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 6), Block(), Block())
    images = load_images("digits", classes=[3, 8], samples_per_class=40)
    backbone = Backbone(network, images.image_shape, name="shared")
    layers = {(at.layer, at.tap): at.values for at in measure_backbone(backbone, images).layers}
    with torch.no_grad():
        hidden = network[2](network[:2](images.standardise(images.train.images)))
        entering = network[3].second(torch.relu(network[3].first(hidden)))
    labels = images.train.labels
    assert layers["network.3", "pre"]["dnc1"].item() == pytest.approx(
        metrics.dnc1(entering, labels, 2).item(), rel=1e-5
    )
    after = metrics.dnc1(torch.relu(entering), labels, 2).item()
    assert layers["network.3", "post"]["dnc1"].item() == pytest.approx(after, rel=1e-5)


def test_every_registered_metric_stands_where_it_can_be_had_and_its_twin_where_it_depends_on_the_split(images):
    known = metrics.metrics()
    of_rows = {name for name, metric in known.items() if metric.of_rows}
    beyond = {*metrics.registry.BEYOND_A_LAYER, "foreign_neco"}
    of_layer = {name for name, metric in known.items() if not set(metric.takes) & beyond}
    features = {name for name in of_layer if not set(known[name].takes) & set(metrics.registry.OF_WEIGHTS)}
    needing_decisions = {"nc4", "accuracy", "f1", "true_positive_rate"}
    backbone = build_backbone("mlp", images.image_shape, hidden=[8])
    for decide, lacking in ((None, needing_decisions), (lambda rows: rows[:, :2], set())):
        for at in measure_backbone(backbone, images, decide, settings=ALL).layers:
            names = features - lacking
            whole = {name for name in at.values if "/class=" not in name}
            found = {name for name in whole if metrics.registry.base_name(name) in of_layer}
            assert found == names | {f"test_{name}" for name in names}
    test = torch.randn(6, 5), torch.arange(6) % 2
    weights = [torch.randn(1, 4, 5), torch.randn(1, 2, 4)]
    first, _, last = measure_head(torch.randn(8, 5), weights, torch.arange(8) % 2, 2, "linear", test, settings=ALL)
    measured = {name for name in (*first.values, *last.values) if "/class=" not in name}
    assert measured == of_layer | {f"test_{name}" for name in of_rows & of_layer}


def test_the_bytes_of_a_state_are_those_that_are_held(images):
    plan = Plan.full(metrics.registry.OF_WEIGHTS, ALL)
    found = plan.first_look(torch.randn(50, 7), torch.arange(50) % 3, 3)
    means = (found, *found.views.values())
    held = sum(it.anchors.nbytes + it.drifts.nbytes for it in means) + sum(it.nbytes for it in found.extras.values())
    assert state_bytes([7], 3, ALL) == 2 * held > state_bytes([7], 3)
    assert state_bytes([7, 9], 3) == state_bytes([7], 3) + state_bytes([9], 3)


def test_a_class_without_test_images_is_undefined_and_says_so(images):
    keep = images.test.labels == 0
    one_class = replace(images, test=Split(images.test.images[keep], images.test.labels[keep]))
    layers = measure_backbone(build_backbone("mlp", images.image_shape, hidden=[8]), one_class).layers
    for at in layers:
        assert at.values["test_dnc1"].isnan() and "one class" in at.reasons["test_dnc1"]
        assert at.values["dnc1"].isfinite() and 0 <= at.values["test_ncm_accuracy"] <= 1


def test_measuring_leaves_the_backbone_in_the_mode_it_was_in(images):
    backbone = build_backbone("resnet20", images.image_shape)
    running_mean = backbone.network.bn1.running_mean.clone()
    for training in (True, False):
        backbone.train(training)
        measure_backbone(backbone, images)
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


@pytest.mark.parametrize(("activation", "layers"), [("linear", ["2"]), ("relu", [])])
def test_a_head_is_certified_before_its_last_weight_if_nothing_stands_between(activation, layers):
    generator = torch.Generator().manual_seed(0)
    weights = [torch.randn(2, *shape, generator=generator).double() for shape in ((4, 4), (3, 4), (3, 3))]
    features, labels = torch.randn(12, 4, generator=generator).double(), torch.arange(12) % 3
    measured = measure_head(
        features, weights, labels, 3, activation, settings=MeasureSettings(families=("core", "tail"))
    )
    assert [at.layer for at in measured if "within_bound" in at.values] == layers


def test_what_is_undefined_comes_with_its_reason():
    labels = torch.arange(2).repeat(3)
    dead = [torch.zeros(1, 4, 3, dtype=torch.float64), torch.ones(1, 2, 4, dtype=torch.float64)]
    features = torch.randn(6, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    first, *_, last = measure_head(features, dead, labels, 2, "relu")
    assert torch.isnan(last.values["dnc1"]).all() and "coincide" in last.reasons["dnc1"]
    assert torch.isnan(first.values["dnc3"]).all() and "dnc3" in first.reasons and "dnc1" not in first.reasons


def test_the_test_split_of_a_head_is_measured_with_the_means_of_the_training_split():
    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
    features, labels = draw(12, 5), torch.arange(3).repeat(4)
    test, test_labels = draw(9, 5) + 1, torch.arange(3).repeat(3)
    weights = [draw(2, 6, 5), draw(2, 3, 6)]
    measured = {
        (at.layer, at.tap): at.values for at in measure_head(features, weights, labels, 3, "relu", (test, test_labels))
    }
    for member in range(2):
        own, other = (torch.relu(rows @ weights[0][member].T) for rows in (features, test))
        values = {name: value[member].item() for name, value in measured["2", "post"].items()}
        assert values["test_dnc1"] == pytest.approx(metrics.dnc1(other, test_labels, 3).item())
        assert values["test_dnc3"] == pytest.approx(metrics.dnc3(weights[1][member], other, test_labels, 3).item())
        means = torch.stack([own[labels == c].mean(dim=0) for c in range(3)])
        nearest = torch.cdist(other, means).argmin(dim=1)
        decided = (other @ weights[1][member].T).argmax(dim=1)
        assert values["test_ncm_accuracy"] == pytest.approx((nearest == test_labels).double().mean().item())
        assert values["test_nc4"] == pytest.approx((nearest != decided).double().mean().item())
        assert "test_rank_weight" not in values and "rank_weight" in values


@pytest.mark.parametrize("pooling", ["average", "flatten"])
def test_rows_that_are_kept_and_a_second_pass_give_the_same_bits(pooling, images, monkeypatch):
    backbone = Backbone(
        torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.ReLU(), torch.nn.Conv2d(4, 6, 3)),
        images.image_shape,
        name="convolutions",
    )
    monkeypatch.setattr(extraction, "EVAL_BATCH", 16)
    monkeypatch.setattr(extraction, "BLOCK_IMAGES", 32)
    batches = math.ceil(len(images.train) / 16) + math.ceil(len(images.test) / 16)
    found = []
    for budget, passes in ((measuring.KEPT_BYTES, 1), (0, 2)):
        monkeypatch.setattr(measuring, "KEPT_BYTES", budget)
        seen = []
        hook = backbone.network.register_forward_hook(lambda module, inputs, output: seen.append(len(output)))  # noqa: B023
        found.append(measure_backbone(backbone, images, lambda features: features[:, :2], pooling))
        hook.remove()
        assert len([number for number in seen if number > 2]) == passes * batches  # two images at most in a trial
    one, two = found
    assert torch.equal(one.train, two.train) and torch.equal(one.test, two.test)
    for at, other in zip(one.layers, two.layers, strict=True):
        assert {name: value.item().hex() for name, value in at.values.items()} == {
            name: value.item().hex() for name, value in other.values.items()
        }


def test_every_metric_of_the_features_equals_that_with_a_covariance(images):
    backbone = build_backbone("mlp", images.image_shape, hidden=[32, 16])
    measured = measure_backbone(backbone, images)
    streamed = metrics.CollapseMetrics(2, 16)
    streamed.update(measured.train, images.train.labels)
    for name, value in streamed.compute().items():
        assert measured.layers[-1].values[name].item() == pytest.approx(value.item(), rel=1e-10, abs=0), name


def test_every_position_of_a_map_is_a_row_in_both_looks(images, monkeypatch):
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.ReLU(), torch.nn.Conv2d(4, 5, 3), torch.nn.ReLU())
    backbone = Backbone(network, images.image_shape, name="own", read={"1": "positions"})
    with torch.no_grad():
        rows = network[:2](images.standardise(images.train.images)).permute(0, 2, 3, 1).reshape(-1, 4)
    labels = images.train.labels.repeat_interleave(36)
    for kept in (measuring.KEPT_BYTES, 0):
        monkeypatch.setattr(measuring, "KEPT_BYTES", kept)
        (at,) = [at for at in measure_backbone(backbone, images).layers if (at.layer, at.tap) == ("network.1", "post")]
        assert at.values["dnc1"].item() == pytest.approx(metrics.dnc1(rows, labels, 2).item(), rel=1e-5)
        expected = metrics.ncm_accuracy(rows, labels, rows, labels, 2).item()
        assert at.values["ncm_accuracy"].item() == pytest.approx(expected, abs=1e-3)
        assert at.values["active_units"].item() == pytest.approx((rows != 0).double().mean().item())


def test_the_share_of_active_units_of_a_map_is_that_of_its_units(images):
    backbone = build_backbone("resnet20", images.image_shape)
    found = {(at.layer, at.tap): at.values["active_units"].item() for at in measure_backbone(backbone, images).layers}
    seen = []
    hook = backbone.network.layer3[2].register_forward_hook(lambda module, inputs, output: seen.append(output))
    with torch.no_grad():
        backbone.eval()(images.standardise(images.train.images))
    hook.remove()
    expected = (seen[0] != 0).double().mean().item()
    assert found["network.layer3.2", "post"] == pytest.approx(expected, abs=1e-3) and expected < 0.9
