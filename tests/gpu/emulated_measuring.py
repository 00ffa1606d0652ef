"""Measuring on a device: the numbers are those of the CPU, formulas are worked out there, and the host waits rarely."""

import pytest
import torch
from emulated_cuda import seen
from torch import Tensor, nn

from pipeline import CollapseTracker, dufm
from pipeline.data import ImageData, Split
from pipeline.dufm.descent import Descent
from pipeline.measure import extraction
from pipeline.measure.heads import measure_head
from pipeline.measure.layers import measure_backbone
from pipeline.metrics import CollapseMetrics, dnc1, layer_metrics
from pipeline.networks import Backbone
from pipeline.runtime import devices
from pipeline.runtime.randomness import generator

pytestmark = pytest.mark.gpu

WAITS_OF_A_PASS = 12
"""Six for a split: its order and its augmentation (none), whether samples have labels, statistics, what the second look
takes of them, and what it comes to."""
WAITS_OF_A_PLACE = 5
"""Of a head, all members at once: statistics, where they lead the second look, and what that came to."""


def close(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert list(found) == list(expected)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-12, atol=1e-14, equal_nan=True, msg=name)


def random_images(count: int) -> ImageData:
    draw = torch.Generator().manual_seed(count)
    pixels = torch.randint(0, 256, (2, count, 1, 6, 6), generator=draw, dtype=torch.uint8)
    labels = torch.randint(0, 3, (2, count), generator=draw)
    splits = [Split(*of_split) for of_split in zip(pixels, labels, strict=True)]
    return ImageData.from_splits("random", *splits, ("a", "b", "c"))


def small(depth: int, images: ImageData) -> Backbone:
    torch.manual_seed(0)
    layers = [nn.Flatten(), nn.Linear(36, 5), nn.ReLU()]
    layers += [part for _ in range(depth - 1) for part in (nn.Linear(5, 5), nn.ReLU())]
    return Backbone(nn.Sequential(*layers), images.image_shape, name="small").eval()


def waits_of_a_pass(depth: int, images: ImageData) -> int:
    backbone, there = small(depth, images).to("cuda"), images.to("cuda")
    seen.clear()
    measure_backbone(backbone, there, lambda rows: rows[:, :3])
    assert not any("svd" in name or "eig" in name or "qr" in name for name in seen.launches)
    return seen.waits.total()


def test_a_network_measures_the_same_on_a_device():
    images = random_images(70)
    backbone = small(2, images)
    expected = measure_backbone(backbone, images, lambda rows: rows[:, :3])
    found = measure_backbone(backbone.to("cuda"), images.to("cuda"), lambda rows: rows[:, :3])
    assert found.train.is_cuda
    for own, other in zip(found.layers, expected.layers, strict=True):
        close(own.values, other.values)
        assert own.reasons == other.reasons


def test_how_often_the_host_waits_for_a_pass_depends_on_neither_places_nor_batches(monkeypatch):
    few = waits_of_a_pass(1, random_images(20))
    assert few <= WAITS_OF_A_PASS, seen.waits
    monkeypatch.setattr(extraction, "EVAL_BATCH", 16)
    assert waits_of_a_pass(4, random_images(90)) == few, seen.waits


def head(members: int = 10) -> tuple[Tensor, list[Tensor], Tensor]:
    weights = dufm.initial_weights([16] * 4, 2, [generator(seed, "weights") for seed in range(members)])
    features = dufm.initial_features(40, 16, [generator(seed, "features") for seed in range(members)])
    return features, weights, torch.arange(2).repeat_interleave(20)


def test_a_head_measures_the_same_on_a_device_for_little():
    features, weights, labels = head()
    expected = list(measure_head(features, weights, labels, 2, "relu"))
    there = features.cuda(), [weight.cuda() for weight in weights], labels.cuda()
    seen.clear()
    found = list(measure_head(*there, 2, "relu"))
    assert seen.waits.total() <= WAITS_OF_A_PLACE * len(found), seen.waits
    measuring = seen.kernels
    for own, other in zip(found, expected, strict=True):
        close(own.values, other.values)
    # A tenth of the descent between two stops of the default schedule's last decade, 1e5 steps with ten stops.
    descent = Descent(*there, num_classes=2, lr=0.1, weight_decay=5e-4, feature_decay=5e-4)
    seen.clear()
    descent._steps._step()
    assert 10 * measuring <= 20_000 * seen.kernels


def test_a_descent_waits_when_it_looks_for_diverged_members_and_not_in_between():
    features, weights, labels = head(2)
    there = features.cuda(), [weight.cuda() for weight in weights], labels.cuda()
    descent = Descent(*there, num_classes=2, lr=0.1, weight_decay=5e-4, feature_decay=5e-4)
    descent.advance(50)
    assert descent._steps._graph is not None
    seen.clear()
    descent.advance(450)
    assert seen.waits.total() <= 2, seen.waits


def test_rows_on_a_device_give_the_values_of_the_cpu():
    draw = torch.Generator().manual_seed(1)
    features, labels = torch.randn(2, 60, 5, generator=draw), torch.arange(60) % 3
    weight, decisions = torch.randn(3, 5, generator=draw), torch.randint(0, 3, (60,), generator=draw)
    families = ["core", "spectrum", "cosine", "kernels"]
    rest = {"families": families, "min_samples": 2}
    expected = layer_metrics(features[0], labels, 3, weight, decisions=decisions, nearest=True, **rest)
    there = {"weight": weight.cuda(), "decisions": decisions.cuda()}
    close(layer_metrics(features[0].cuda(), labels.cuda(), 3, nearest=True, **there, **rest), expected)
    close({"dnc1": dnc1(features.cuda(), labels.cuda(), 3)}, {"dnc1": dnc1(features, labels, 3)})
    streamed = CollapseMetrics(3, 5, metrics=["dnc1", "cdnv", "nc4", "ncm_accuracy", "dnc3"]).to("cuda")
    for rows in (slice(0, 25), slice(25, 60)):
        streamed.update(features[0, rows].cuda(), labels[rows].cuda())
    for rows in (slice(0, 25), slice(25, 60)):
        streamed.look_again(features[0, rows].cuda(), labels[rows].cuda(), decisions[rows].cuda())
    found = streamed.compute(weight=weight.cuda())
    for name, value in found.items():
        torch.testing.assert_close(value, expected[name], rtol=1e-10, atol=1e-12, msg=name)


@pytest.fixture
def without_float64(monkeypatch):
    """The device is one like Apple's."""
    monkeypatch.setattr(seen, "float64", False)
    monkeypatch.setattr(devices, "WITHOUT_FLOAT64", {"cuda"})


def test_rows_of_a_device_without_float64_are_measured_on_the_cpu(without_float64):
    draw = torch.Generator().manual_seed(2)
    inputs, labels = torch.randn(20, 1, 8, 8, generator=draw), torch.arange(20) % 2
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))
    places, families = ["0", "1", "3:pre"], ["core", "elements", "similarity", "spectrum"]
    expected = CollapseTracker(model, 2, places, families=families).measure([(inputs, labels)])
    found = CollapseTracker(model.to("cuda"), 2, places, families=families).measure([(inputs, labels)])
    assert found.value.to_numpy() == pytest.approx(expected.value.to_numpy(), rel=1e-10, abs=1e-12, nan_ok=True)
    rows = inputs.flatten(1)
    close({"dnc1": dnc1(rows.cuda(), labels.cuda(), 2)}, {"dnc1": dnc1(rows, labels, 2)})
    streamed = CollapseMetrics(2, 64).to("cuda")
    streamed.update(rows.cuda(), labels.cuda())
    torch.testing.assert_close(streamed.compute()["dnc1"], dnc1(rows, labels, 2))
