"""Transformers on patches: what they compute, what they see, where they start, and what is refused."""

import pytest
import torch

from pipeline.networks import build_backbone


def built(**settings):
    net = build_backbone("patch_transformer", (2, 4, 6), width=5, patch=2, **settings)
    return net.double().eval().requires_grad_(False)


def normalised(row):
    row = row - row.mean()
    return row / row.norm() * len(row) ** 0.5


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_features_are_those_of_a_loop_over_tokens(activation):
    net = built(depth=2, activation=activation, init_scale=2.0)
    network, act = net.network, getattr(torch, activation)
    images = torch.randn(3, 2, 4, 6, dtype=torch.float64)
    for image, found in zip(images, net(images), strict=True):
        cut = [image[:, top : top + 2, left : left + 2].flatten() for top in (0, 2) for left in (0, 2, 4)]
        rows = [
            normalised(network.embedding.weight @ entries + place)
            for entries, place in zip(cut, network.positions, strict=True)
        ]
        for block in network.blocks:
            seen = []
            for row in rows:
                scores = torch.stack([row @ block.scores.weight @ other for other in rows]) / 5**0.5
                mean = sum(share * other for share, other in zip(scores.softmax(0), rows, strict=True))
                seen.append(normalised(row + block.values.weight @ mean))
            rows = [normalised(row + block.outer.weight @ act(row)) for row in seen]
        assert torch.allclose(found, normalised(sum(rows) / len(rows)), rtol=1e-9, atol=1e-12)
        assert float(found.norm()) == pytest.approx(5**0.5)


def test_blocks_are_places_read_over_tokens_and_the_start_is_as_small_as_said():
    net = build_backbone("patch_transformer", (1, 8, 8), depth=3, width=64, patch=4)
    assert net.blocks == tuple(f"network.blocks.{number}" for number in range(3)) and net.num_features == 64
    assert net.network.positions.shape == (4, 64)
    assert net.taps["network.blocks.0", "post"].layout.channel == 2
    for layer in (net.network.blocks[1].scores, net.network.blocks[1].values, net.network.blocks[1].outer):
        assert layer.bias is None and float(layer.weight.detach().std()) == pytest.approx((64 * 3) ** -0.5, rel=0.05)


def test_patches_that_do_not_fit_are_refused():
    with pytest.raises(
        ValueError, match=r"backbone.patch=4 does not divide images of 4 x 6 .* allowed: a divisor of 2"
    ):
        build_backbone("patch_transformer", (1, 4, 6), patch=4)
