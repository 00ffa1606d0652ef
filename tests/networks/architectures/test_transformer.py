"""A causal transformer: what a position sees, and that every position is a row."""

import pytest
import torch

from pipeline.networks import build_backbone
from pipeline.networks.architectures.transformer import CausalAttention
from pipeline.networks.taps import Taps
from pipeline.networks.token_backbone import counted


def built(**settings):
    return build_backbone("transformer", (6, 11), tokens=True, width=8, depth=2, heads=2, **settings).eval()


def test_positions_see_themselves_and_those_before_them():
    net = built(init_scale=20.0).requires_grad_(False)
    tokens = torch.randint(11, (3, 6))
    other = tokens.clone()
    other[:, 4] = (tokens[:, 4] + 1) % 11
    before, after = net(tokens), net(other)
    assert before[:, :4].equal(after[:, :4])
    assert (before[:, 4:] != after[:, 4:]).any(-1).all()


def test_attention_is_the_softmax_of_causal_scores():
    attention = CausalAttention(6, 2).requires_grad_(False)
    rows = torch.randn(2, 5, 6)
    query, key, value = attention.inputs(rows).split(6, dim=-1)
    heads = []
    for part in (slice(0, 3), slice(3, 6)):
        known = torch.nn.functional.scaled_dot_product_attention(
            query[..., part], key[..., part], value[..., part], is_causal=True
        )
        heads.append(known)
    assert torch.allclose(attention(rows), attention.output(torch.cat(heads, -1)), atol=1e-6)


def test_blocks_are_places_and_their_positions_rows():
    net = built()
    assert net.blocks == ("network.blocks.0", "network.blocks.1") and net.num_features == 8
    seen = {}
    tokens = torch.randint(11, (3, 6))
    with torch.no_grad(), Taps(net, net.taps, seen.__setitem__):
        features = net(tokens)
    assert features.shape == (3, 6, 8)
    assert all(rows.values.shape == (18, 8) for rows in seen.values())
    last = seen["network.blocks.1", "post"].values
    assert torch.allclose(net.network.norm(last), features.flatten(0, 1), atol=1e-6)
    net.try_training()
    assert build_backbone("transformer", (6, 11), tokens=True, layers=["blocks.*.mlp.act"]).num_features == 64


def test_positions_without_a_label_do_not_count():
    features, labels = torch.randn(2, 3, 4), torch.tensor([[0, 1, -1], [2, -1, -1]])
    rows, known = counted(features, labels)
    assert known.tolist() == [0, 1, 2] and rows.equal(features.flatten(0, 1)[[0, 1, 3]])
    assert counted(features[0], labels[0])[0] is not None


def test_heads_that_do_not_divide_the_width_are_refused():
    with pytest.raises(ValueError, match=r"backbone.heads=3 does not divide backbone.width=8"):
        build_backbone("transformer", (6, 11), tokens=True, width=8, heads=3)
