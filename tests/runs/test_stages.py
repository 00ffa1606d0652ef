"""Stages find what they left for the same settings, and nothing that was made with others."""

import pytest
import torch
from configurations import PLAIN, configured
from torch import nn

from pipeline.config import Config
from pipeline.data import load_images
from pipeline.measure.feature_cache import FeatureCache
from pipeline.networks import Backbone
from pipeline.runs import stages
from pipeline.runs.inputs import prepare
from pipeline.runs.protocols import perform, protocol_names
from pipeline.runs.run import Run
from pipeline.runs.sections import NetworkSection
from pipeline.runtime.errors import RunError

SMALL = PLAIN | {
    "data.classes": [0, 1],
    "data.samples_per_class": 10,
    "backbone.hidden": [8, 4],
    "backbone.epochs": 1,
    "head.depth": 2,
    "head.width": 4,
    "descent.steps": 10,
    "descent.seeds": 1,
}


def attempt(folder, protocol: str, **changes) -> Run:
    """One start of a protocol in a folder."""
    changed = {key.replace("__", "."): value for key, value in changes.items()}
    config = configured(SMALL | {"protocol.name": protocol} | changed)
    run = Run.start(config, prepare(config), folder)
    perform(run)
    return run


def last_steps(run: Run) -> dict[str, int]:
    return {row.stage: row.step for row in run.record.rows}


OF_THEIR_OWN = {"leaky", "mean_field"}
"""Protocols that train networks of their own, by their own settings: tests/runs/protocols has what is asked here."""


@pytest.mark.parametrize("protocol", sorted(set(protocol_names()) - OF_THEIR_OWN))
def test_the_same_settings_find_every_stage_and_record_the_same(protocol, tmp_path, caplog):
    caplog.set_level("INFO")
    first = attempt(tmp_path, protocol)
    assert "not repeated" not in caplog.text
    again = attempt(tmp_path, protocol)
    assert repr(again.record.rows) == repr(first.record.rows)
    kept = list(tmp_path.rglob("*.safetensors"))
    uses = first.protocol.uses
    assert bool(kept) == bool(uses["network"] or uses["head"])  # what trains nothing is computed once more
    assert caplog.text.count("this stage is not repeated") == len(kept)
    assert "is not used" not in caplog.text


@pytest.mark.parametrize("protocol", ["dufm", "frozen_features", "fixed_head"])
def test_a_descent_of_other_length_is_not_taken_for_the_kept_one(protocol, tmp_path):
    attempt(tmp_path, protocol)
    again, alone = (attempt(folder, protocol, descent__steps=20) for folder in (tmp_path, tmp_path / "alone"))
    assert last_steps(again)["dufm" if protocol == "fixed_head" else "head"] == 20
    # A backbone that was trained under the head of before would have been measured under it.
    assert repr(again.record.rows) == repr(alone.record.rows)


def test_another_head_leaves_a_frozen_backbone_as_it_is(tmp_path, caplog):
    caplog.set_level("INFO")
    attempt(tmp_path, "frozen_features")
    again = attempt(tmp_path, "frozen_features", head__depth=3)
    assert "backbone.safetensors: this stage is not repeated" in caplog.text
    assert "head.safetensors is not used: kept by another version or under other settings" in caplog.text
    assert {row.layer for row in again.record.rows if row.stage == "head"} == {"", "1", "2", "3"}


class Tied(nn.Module):
    """Two layers that share a weight, and a state that is no tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(64, 64), nn.Linear(64, 64)
        self.second.weight = self.first.weight

    def forward(self, images):
        return self.second(self.first(images.flatten(1)).relu())

    def get_extra_state(self):
        return {"note": "text"}

    def set_extra_state(self, state):
        pass


@pytest.mark.parametrize("protocol", ["frozen_features", "end_to_end"])
def test_a_network_with_tied_weights_and_other_state_is_kept_and_found(protocol, tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.runs.inputs.build_backbone", build_tied)
    first, again = (attempt(tmp_path, protocol) for _ in range(2))
    network = again.inputs.backbone.network
    assert network.first.weight is network.second.weight
    assert torch.equal(network.first.weight, first.inputs.backbone.network.first.weight)


def build_tied(name, image_shape, **request):
    return Backbone(Tied(), image_shape, name="backbone=tied")


class Normed(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Flatten(), nn.Linear(64, 4), nn.BatchNorm1d(4), nn.ReLU())


@pytest.mark.parametrize("batch_size", [1, 19])
def test_a_batch_of_one_image_that_a_norm_cannot_take_is_named(batch_size, tmp_path, monkeypatch):
    normed = Backbone(Normed(), (1, 8, 8), name="normed")
    monkeypatch.setattr("pipeline.runs.inputs.build_backbone", lambda *_, **__: normed)
    with pytest.raises(RunError, match=rf"^backbone.batch_size={batch_size} leaves a batch of one of the 20 training"):
        attempt(tmp_path, "end_to_end", backbone__batch_size=batch_size)


def test_a_fixed_head_over_a_diverging_backbone_says_so(tmp_path):
    with pytest.raises(RunError, match=r"optimizer\.lr"):
        attempt(tmp_path, "fixed_head", optimizer__lr=1e6, backbone__epochs=5)


def test_a_later_head_on_the_same_backbone_finds_its_features_and_layers(tmp_path, caplog):
    caplog.set_level("INFO")
    cache = str(tmp_path / "cache")
    attempt(tmp_path / "trained", "frozen_features", features__cache=cache)
    given = {"backbone__checkpoint": str(tmp_path / "trained/checkpoints/backbone.safetensors"), "backbone__epochs": 0}
    deeper = {**given, "head__depth": 3}
    alone = attempt(tmp_path / "alone", "frozen_features", **deeper)
    assert "found the features" not in caplog.text
    attempt(tmp_path / "first", "frozen_features", **given, features__cache=cache)
    assert caplog.text.count("found the features") == 1  # not the layers, which the training measured with a classifier
    second = attempt(tmp_path / "second", "frozen_features", **deeper, features__cache=cache)
    assert caplog.text.count("found the features") == 3
    assert repr(second.record.rows) == repr(alone.record.rows)


class Scaled(nn.Module):
    """Convolutions of images in units of their own spread, which an image of one colour has none of."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)

    def forward(self, images):
        return self.conv(images / images.std((1, 2, 3), keepdim=True)).relu().mean((2, 3))


@pytest.mark.parametrize(("protocol", "epochs"), [("frozen_features", 1), ("frozen_features", 0), ("end_to_end", 1)])
def test_features_that_are_nan_before_any_training_are_told_without_advice_on_training(
    protocol, epochs, tmp_path, monkeypatch
):
    monkeypatch.setattr("pipeline.runs.inputs.build_backbone", lambda *_, **__: Backbone(Scaled(), (1, 8, 8), name="s"))

    def one_colour(*arguments, **settings):
        images = load_images(*arguments, **settings)
        images.train.images[3] = 255
        return images

    monkeypatch.setattr("pipeline.runs.inputs.load_images", one_colour)
    message = r"features of 1 train image\(s\) hold NaN or infinity, first of image 3;"
    with pytest.raises(RunError, match=message) as error:
        attempt(tmp_path, protocol, backbone__epochs=epochs)
    assert "optimizer.lr" not in str(error.value) and "nothing was trained" in str(error.value)


class Loaded(nn.Module):
    """Has its statistics from somewhere else."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4)
        self.norm.running_mean.fill_(5.0)
        self.norm.running_var.fill_(100.0)
        self.norm.num_batches_tracked.fill_(1000)

    def forward(self, images):
        return self.norm(self.conv(images)).relu()


def test_no_epochs_keep_the_statistics_that_a_network_brings(tmp_path, monkeypatch):
    network = Backbone(Loaded(), (1, 8, 8), name="loaded")
    before = {name: value.clone() for name, value in network.state_dict().items()}
    monkeypatch.setattr("pipeline.runs.inputs.build_backbone", lambda *_, **__: network)
    run = attempt(tmp_path, "frozen_features", backbone__epochs=0)
    after = run.inputs.backbone.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_what_is_read_of_every_layer_is_logged_and_kept(tmp_path, caplog):
    caplog.set_level("INFO")
    run = attempt(tmp_path, "frozen_features", backbone__name="resnet20", backbone__hidden=[256, 64])
    assert "reading network.layer1.0 .. network.layer1.2 (3): mean of 8 x 8 positions" in caplog.text
    reads = NetworkSection().summary(run)["backbone_reads"]
    assert [(read["layer"], read["tap"]) for read in reads] == list(run.inputs.backbone.taps)
    assert reads[-1]["read"] == "mean of 2 x 2 positions, channels on axis 1 of (N, 64, 2, 2)"


class Stop(Exception):
    """Raised where a test has seen enough."""


@pytest.mark.parametrize("protocol", ["end_to_end", "frozen_features"])
def test_what_is_measured_without_training_is_on_the_device_of_the_run(protocol, tmp_path, monkeypatch):
    """Also if nothing before it has gone there: given weights are not calibrated."""

    def look(owner, module, *arguments):
        assert {tensor.device.type for tensor in module.parameters()} == {"meta"}
        raise Stop

    monkeypatch.setattr(Config, "device", torch.device("meta"))
    monkeypatch.setattr(Run, "resident", property(lambda run: run.inputs.images))  # whose labels are looked at
    monkeypatch.setattr(stages, "settle_norms", lambda run: None)
    monkeypatch.setattr(stages, "say_what_is_read", lambda run: None)
    monkeypatch.setattr(stages, "measure_training", look)
    monkeypatch.setattr(FeatureCache, "measurement", look)
    with pytest.raises(Stop):
        attempt(tmp_path, protocol, backbone__epochs=0)
