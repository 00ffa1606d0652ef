"""A pass hands on every image once, reads conv maps by the stated rule, and gives the features of a plain pass."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from pipeline.data import Split, load_images
from pipeline.measure import extraction
from pipeline.measure.extraction import backbone_features, readings, run_over
from pipeline.networks import Backbone

SHAPE = (1, 8, 8)


class Views(nn.Module):
    """Reads its map by `view`, which only the usual arrangement of channels allows."""

    def __init__(self):
        super().__init__()
        self.conv, self.relu = nn.Conv2d(1, 3, 3, padding=1), nn.ReLU()
        self.last = nn.Linear(3 * 64, 5)

    def forward(self, images):
        maps = self.relu(self.conv(images))
        return self.last(maps.view(len(maps), -1))


def convolutions() -> Backbone:
    torch.manual_seed(0)
    stage = [nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True)]
    return Backbone(nn.Sequential(*stage, nn.Conv2d(4, 6, 3), nn.ReLU()), SHAPE, name="convolutions")


@pytest.fixture(scope="module")
def images():
    return load_images("digits", classes=[3, 8], samples_per_class=40)


@pytest.mark.parametrize("network", ["convolutions", "views"])
def test_features_are_those_of_a_plain_pass_to_a_millionth(network, images):
    backbone = convolutions() if network == "convolutions" else Backbone(Views(), SHAPE, name="views")
    with torch.no_grad():
        expected = backbone.eval()(images.standardise(images.train.images))
    found = backbone_features(backbone, images, images.train)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6 * float(expected.abs().max()))


def test_convolutions_hand_on_their_maps_channels_last_also_from_grey_images(images):
    backbone, seen = convolutions(), []
    last = backbone.network[3]
    hook = last.register_forward_hook(
        lambda module, inputs, output: seen.append(output.is_contiguous(memory_format=torch.channels_last))
    )
    backbone_features(backbone, images, images.train)
    hook.remove()
    assert seen == [False, True, True]  # the trial as it is, the trial channels last, the one batch
    assert last.weight.is_contiguous()


def test_blocks_hold_every_image_once_in_order(images, monkeypatch):
    monkeypatch.setattr(extraction, "EVAL_BATCH", 16)
    monkeypatch.setattr(extraction, "BLOCK_IMAGES", 32)
    blocks = []
    features = run_over(convolutions(), images, images.train, listen=blocks.append)
    assert [len(block.labels) for block in blocks] == [32, 32, 16]
    assert torch.equal(torch.cat([block.labels for block in blocks]), images.train.labels)
    assert torch.equal(torch.cat([block.features for block in blocks]), features)


def test_maps_are_averaged_or_flattened(images):
    backbone, found = convolutions(), {}
    for pooling in ("average", "flatten"):
        run_over(backbone, images, images.test, pooling, lambda block, way=pooling: found.update({way: block.rows}))
        sizes = {place: width for place, (_, width, _) in readings(backbone, pooling).items()}
        assert sizes == {place: rows.values.shape[1] for place, rows in found[pooling].items()}
    assert found["flatten"]["network.2", "post"].values.shape[1] == 4 * 6 * 6
    for place, flat in found["flatten"].items():
        pooled = found["average"][place].values
        maps = flat.values.unflatten(1, (pooled.shape[1], -1))
        torch.testing.assert_close(maps.mean(dim=2), pooled)


def test_units_are_counted_before_they_are_averaged(images):
    backbone, blocks = convolutions(), []
    run_over(backbone, images, images.train, listen=blocks.append)
    with torch.no_grad():
        maps = backbone.network[:3].eval()(images.standardise(images.train.images))
    share = blocks[0].rows["network.2", "post"].active.sum() / (len(maps) * 4)
    assert share.item() == pytest.approx((maps != 0).double().mean().item()) and share < 1


def test_a_network_that_makes_nan_of_an_image_is_passed_through(images):
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(1, 4, 3)

        def forward(self, x):
            return self.conv(x / x.std((1, 2, 3), keepdim=True)).mean((2, 3))

    dark = replace(images, train=Split(torch.zeros_like(images.train.images), images.train.labels))
    assert backbone_features(Backbone(Scaled(), SHAPE, name="scaled"), dark, dark.train).isnan().all()
