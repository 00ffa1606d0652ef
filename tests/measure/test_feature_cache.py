"""Cached features are those of the same network on the same images, or they are made anew."""

import errno
from dataclasses import replace

import pytest
import torch
from torch import nn

from pipeline.data import Split, load_images
from pipeline.measure import feature_cache
from pipeline.measure.feature_cache import FeatureCache
from pipeline.measure.layers import measure_backbone
from pipeline.networks import Backbone
from pipeline.runtime import tensor_files


class Network(nn.Module):
    sign = 1

    def __init__(self):
        super().__init__()
        self.first, self.relu, self.last = nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 4)
        self.passes = 0

    def forward(self, images):
        self.passes += len(images) > 2  # not those of a trial
        return self.sign * self.last(self.relu(self.first(images.flatten(1))))


@pytest.fixture(scope="module")
def images():
    return load_images("digits", classes=[3, 8], samples_per_class=20)


def backbone() -> Backbone:
    torch.manual_seed(0)
    return Backbone(Network(), (1, 8, 8), name="network")


def passes_of(folder, network, images, pooling="average") -> int:
    """Batches that passed the network to get its features, which are checked."""
    network.network.passes = 0
    found = FeatureCache(str(folder), pooling).features(network, images)
    passed = network.network.passes
    with torch.no_grad():
        for name, split in (("train", images.train), ("test", images.test)):
            torch.testing.assert_close(found[name], network.eval()(images.standardise(split.images)))
    return passed


def entry(folder):
    (path,) = folder.glob("*.safetensors")
    return path


def test_a_later_run_finds_the_features_and_says_so_once(images, tmp_path, caplog):
    caplog.set_level("INFO")
    assert passes_of(tmp_path, backbone(), images) == 2
    assert caplog.text == ""
    assert passes_of(tmp_path, backbone(), images) == 0
    (line,) = caplog.messages
    assert line == f"found the features of this backbone in {entry(tmp_path)}: no pass over the images"
    assert sorted(path.name for path in tmp_path.iterdir()) == [entry(tmp_path).name]


def test_anything_that_changes_the_features_changes_the_key(images, tmp_path, monkeypatch):
    assert passes_of(tmp_path, backbone(), images) == 2
    other = backbone()
    with torch.no_grad():
        other.network.first.bias[3] += 1
    assert passes_of(tmp_path, other, images) == 2
    changed = images.train.images.clone()
    changed[-1, 0, 0, 0] += 1
    assert passes_of(tmp_path, backbone(), replace(images, train=Split(changed, images.train.labels))) == 2
    assert passes_of(tmp_path, backbone(), replace(images, test=Split(images.test.images, 1 - images.test.labels))) == 2
    assert passes_of(tmp_path, backbone(), replace(images, std=2 * images.std)) == 2
    assert passes_of(tmp_path, backbone(), images, "flatten") == 2
    with monkeypatch.context() as patched:
        patched.setattr(feature_cache.registry, "signature", lambda _: "a metric more, or another version of one")
        assert passes_of(tmp_path, backbone(), images) == 2
    monkeypatch.setattr(Network, "sign", -1)  # the code, which nothing in the weights or the structure tells
    assert passes_of(tmp_path, backbone(), images) == 2
    assert len(list(tmp_path.glob("*.safetensors"))) == 8


@pytest.mark.parametrize("damage", ["bit", "short", "empty"])
def test_a_damaged_entry_is_named_and_made_anew(damage, images, tmp_path, caplog):
    passes_of(tmp_path, backbone(), images)
    path = entry(tmp_path)
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes({"bit": bytes(content), "short": bytes(content[: len(content) // 2]), "empty": b""}[damage])
    assert passes_of(tmp_path, backbone(), images) == 2
    (line,) = caplog.messages
    assert line.startswith(f"{path} is unreadable: ") and line.endswith("it is made anew")
    assert passes_of(tmp_path, backbone(), images) == 0


def test_layers_are_found_as_they_were_measured_and_features_with_them(images, tmp_path):
    network, cache = backbone(), FeatureCache(str(tmp_path), "average")
    cache.features(network, images)  # an entry without layers does not do
    first = cache.measurement(network, images)
    network.network.passes = 0
    again = FeatureCache(str(tmp_path), "average").measurement(network, images)
    assert network.network.passes == 0 and passes_of(tmp_path, network, images) == 0
    plain = measure_backbone(network, images)
    for found in (first, again):
        assert torch.equal(found.train, plain.train) and torch.equal(found.test, plain.test)
        for at, expected in zip(found.layers, plain.layers, strict=True):
            assert (at.layer, at.tap, at.reasons) == (expected.layer, expected.tap, expected.reasons)
            assert list(at.values) == list(expected.values)
            for name, value in expected.values.items():
                assert torch.equal(at.values[name].nan_to_num(-1.0), value.nan_to_num(-1.0)), name


def test_a_value_that_is_undefined_stays_so(images, tmp_path):
    one_class = replace(images, test=Split(images.test.images[:1], images.test.labels[:1]))
    FeatureCache(str(tmp_path), "average").measurement(backbone(), one_class)
    *_, last = FeatureCache(str(tmp_path), "average").measurement(backbone(), one_class).layers
    assert last.values["test_dnc1"].isnan().all() and "one class" in last.reasons["test_dnc1"]


def test_a_folder_that_cannot_be_written_costs_one_warning(images, tmp_path, caplog, monkeypatch):
    def full(tensors, metadata):
        raise OSError(errno.ENOSPC, "No space left on device")

    blocked = tmp_path / "file"
    blocked.write_text("")
    cache, network = FeatureCache(str(blocked), "average"), backbone()
    for _ in range(2):
        cache.features(network, images)
    assert len(caplog.messages) == 1 and f"features.cache={blocked} cannot be written" in caplog.text
    caplog.clear()
    monkeypatch.setattr(tensor_files, "serialised", full)
    assert passes_of(tmp_path / "cache", network, images) == 2
    (line,) = caplog.messages
    assert "(No space left on device); the run goes on without it" in line
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_folder_whose_name_the_system_refuses_ends_nothing(images, tmp_path, caplog):
    assert passes_of(tmp_path / ("long" * 100), backbone(), images) == 2
    assert [line.rsplit("; ")[-1] for line in caplog.messages] == ["it is made anew", "the run goes on without it"]


def test_without_a_folder_nothing_is_hashed_or_kept(images, monkeypatch):
    monkeypatch.setattr(feature_cache, "_key", None)
    assert set(FeatureCache(None, "average").features(backbone(), images)) == {"train", "test"}
