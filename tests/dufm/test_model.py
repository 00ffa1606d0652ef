"""The DUFM: layers, objective, starting points."""

import pytest
import torch

from pipeline import dufm
from pipeline.dufm import DufmHead, balanced_features, forward, initial_features, initial_weights, layer_taps, objective
from pipeline.runtime.randomness import generator


def generators(members: int, purpose: str = "test") -> list[torch.Generator]:
    return [generator(seed, purpose) for seed in range(members)]


def small_problem(members: int = 3, samples: int = 7) -> tuple[torch.Tensor, list[torch.Tensor], torch.Tensor]:
    features = initial_features(samples, 5, generators(members, "features"))
    weights = initial_weights([5, 6, 4], 3, generators(members, "weights"))
    labels = torch.tensor([0, 0, 0, 1, 2, 2, 0])[:samples]
    return features, weights, labels


@pytest.mark.parametrize("activation", ["relu", "linear"])
def test_forward_follows_the_definition_sample_by_sample(activation):
    features, weights, _ = small_problem()
    layers = forward(features, weights, activation)
    assert [tuple(layer.shape) for layer in layers] == [(3, 7, 5), (3, 7, 6), (3, 7, 4), (3, 7, 3)]
    for member in range(3):
        for sample in range(7):
            column = features[member, sample]
            for layer, weight in enumerate(weights, start=1):
                entering = column.clamp(min=0) if activation == "relu" and layer > 1 else column
                column = weight[member] @ entering
                torch.testing.assert_close(layers[layer][member, sample], column, rtol=1e-13, atol=1e-13)


def test_features_shared_by_all_members_equal_copies_of_them():
    features, weights, _ = small_problem()
    copies = features[:1].expand(3, -1, -1)
    for shared in (features[0], features[:1]):
        for layer, expected in zip(forward(shared, weights), forward(copies, weights), strict=True):
            torch.testing.assert_close(layer, expected, rtol=1e-13, atol=1e-13)


def test_weights_without_a_member_dimension_make_one_member():
    features, weights, _ = small_problem()
    single = forward(features[1], [weight[1] for weight in weights])
    assert single[-1].shape == (1, 7, 3)
    torch.testing.assert_close(single[-1][0], forward(features, weights)[-1][1], rtol=1e-13, atol=1e-13)


def test_taps_are_pre_only_at_layer_one_and_pre_then_post_after():
    features, weights, _ = small_problem()
    layers = forward(features, weights)
    taps = list(layer_taps(features, weights))
    assert [(layer, tap) for layer, tap, _ in taps] == [(1, "pre"), (2, "pre"), (2, "post"), (3, "pre"), (3, "post")]
    for layer, tap, tensor in taps:
        expected = layers[layer - 1] if tap == "pre" else layers[layer - 1].clamp(min=0)
        assert torch.equal(tensor, expected)


def test_objective_is_the_paper_formula_in_columns():
    features, weights, labels = small_problem()
    decays = torch.tensor([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6], [0.7, 0.8, 0.9]], dtype=torch.float64)
    feature_decay = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    value = objective(features, weights, labels, decays, feature_decay)
    for member in range(3):
        hidden = features[member].T
        for layer, weight in enumerate(weights):
            hidden = weight[member] @ (hidden.clamp(min=0) if layer else hidden)
        onehot = torch.zeros(3, 7, dtype=torch.float64)
        onehot[labels, torch.arange(7)] = 1
        fit = torch.linalg.matrix_norm(hidden - onehot) ** 2 / (2 * 7)
        penalty = sum(
            decays[member, layer] / 2 * torch.linalg.matrix_norm(weight[member]) ** 2
            for layer, weight in enumerate(weights)
        )
        feature_penalty = feature_decay[member] / 2 * torch.linalg.matrix_norm(features[member]) ** 2
        torch.testing.assert_close(value.fit[member], fit, rtol=1e-12, atol=0)
        torch.testing.assert_close(value.weight_penalty[member], penalty, rtol=1e-12, atol=0)
        torch.testing.assert_close(value.feature_penalty[member], feature_penalty, rtol=1e-12, atol=0)
        torch.testing.assert_close(value.total[member], fit + penalty + feature_penalty, rtol=1e-12, atol=0)


def test_a_plain_number_is_a_decay_in_full_precision():
    features, weights, labels = small_problem()
    table = torch.full((3, 3), 0.1, dtype=torch.float64)
    plain, exact = (objective(features, weights, labels, decay, table[0, 0] * 3) for decay in (0.1, table))
    assert torch.equal(plain.total, exact.total)
    assert torch.equal(
        objective(features, weights, labels, 0.1, 0.3).feature_penalty, 0.15 * features.square().sum((1, 2))
    )


def test_frozen_features_cost_nothing():
    features, weights, labels = small_problem()
    value = objective(features, weights, labels, 0.1)
    assert torch.equal(value.feature_penalty, torch.zeros(3, dtype=torch.float64))
    assert torch.equal(value.total, value.fit + value.weight_penalty)


def test_objective_at_zero_is_one_half():
    features, weights, labels = small_problem()
    value = objective(features * 0, [weight * 0 for weight in weights], labels, 0.1, 0.1)
    torch.testing.assert_close(value.total, torch.full((3,), 0.5, dtype=torch.float64), rtol=1e-15, atol=0)


@pytest.mark.parametrize("samples", [40, 3])
@pytest.mark.parametrize("widths", [(5, 8), (8, 5), (6, 6)])
def test_balanced_features_balance_the_first_layer(samples, widths):
    narrow = initial_weights(widths, 2, generators(4))[0]
    weight_decay, feature_decay = 3e-3, torch.tensor([1e-3, 2e-3, 5e-3, 1e-4], dtype=torch.float64)
    features, weight = balanced_features(narrow, samples, weight_decay, feature_decay, generators(4, "features"))
    assert features.shape == (4, samples, widths[0])
    gram = feature_decay.view(-1, 1, 1) * features.mT @ features
    torch.testing.assert_close(gram, weight_decay * weight.mT @ weight, rtol=1e-10, atol=1e-15)
    assert gram.diagonal(dim1=1, dim2=2).min() > 0
    assert (torch.linalg.matrix_rank(weight) == min(samples, *widths)).all()


def test_balanced_features_leave_the_weight_alone_where_they_can():
    weight = initial_weights([5, 8], 2, generators(2))[0]
    assert torch.equal(balanced_features(weight, 40, 1e-3, 1e-3, generators(2))[1], weight)


def test_a_member_starts_the_same_in_every_batch():
    alone = [initial_weights([5, 6], 2, [generator(2, "w")]), [initial_features(7, 5, [generator(2, "f")])]]
    batch = [
        initial_weights([5, 6], 2, [generator(seed, "w") for seed in (0, 2, 5)]),
        [initial_features(7, 5, [generator(seed, "f") for seed in (0, 2, 5)])],
    ]
    for tensors, batched in zip(alone, batch, strict=True):
        assert all(torch.equal(one[0], many[1]) for one, many in zip(tensors, batched, strict=True))


def test_initial_weights_have_the_announced_spread():
    weights = initial_weights([400, 300], 200, generators(1), scale=0.5)
    assert weights[0].std().item() == pytest.approx(0.5 / 400**0.5, rel=0.02)
    assert weights[1].std().item() == pytest.approx(0.5 / 300**0.5, rel=0.02)


def test_a_float32_start_is_the_rounded_float64_start():
    double = initial_weights([5, 6], 2, generators(2))
    single = initial_weights([5, 6], 2, generators(2), dtype=torch.float32)
    assert all(torch.equal(a.float(), b) for a, b in zip(double, single, strict=True))


@pytest.mark.parametrize("activation", ["relu", "linear"])
def test_head_module_computes_forward_and_names_its_layers(activation):
    features, weights, _ = small_problem()
    head = DufmHead([weight[2] for weight in weights], activation)
    torch.testing.assert_close(head(features[2]), forward(features, weights, activation)[-1][2], rtol=1e-13, atol=1e-13)
    assert [name for name, _ in head.named_children()] == [
        "linear_1",
        "activation_2",
        "linear_2",
        "activation_3",
        "linear_3",
    ]
    assert all(parameter.requires_grad for parameter in head.parameters())


def test_head_module_does_not_share_memory_with_its_weights():
    _, weights, _ = small_problem()
    head = DufmHead([weight[0] for weight in weights])
    before = weights[0].clone()
    torch.nn.init.zeros_(head.linear_1.weight)
    assert torch.equal(weights[0], before)


def test_streams_differ_between_purposes_and_seeds_and_repeat():
    draws = {key: torch.randn(4, generator=generator(*key)).tolist() for key in [(0, "a"), (0, "b"), (1, "a")]}
    assert len({tuple(draw) for draw in draws.values()}) == 3
    assert draws[0, "a"] == torch.randn(4, generator=generator(0, "a")).tolist()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"activation": "tanh"}, "activation must be one of"),
        ({"labels": torch.tensor([0, 0, 0, 1, 2, 3, 0])}, "labels must lie in 0..2"),
        ({"labels": torch.zeros(7)}, "labels must be int64"),
        ({"weight_decay": torch.tensor([0.1, 0.2])}, "weight_decay must be a number"),
        ({"weight_decay": -0.1}, "weight_decay must be finite and >= 0"),
    ],
)
def test_bad_input_is_named(change, message):
    features, weights, labels = small_problem()
    arguments = {"features": features, "weights": weights, "labels": labels, "weight_decay": 0.1}
    with pytest.raises(ValueError, match=message):
        objective(**(arguments | change))


def test_shapes_that_do_not_chain_are_named():
    features, weights, _ = small_problem()
    with pytest.raises(ValueError, match=r"weights\[0\] must take inputs of width 4"):
        forward(features[..., :4], weights)
    with pytest.raises(ValueError, match="number of members"):
        forward(features[:2], weights)
    with pytest.raises(ValueError, match="seed must be"):
        generator(-1, "x")
    with pytest.raises(ValueError, match="must be positive"):
        dufm.balanced_features(weights[0], 7, 0.1, 0.0, generators(3))
