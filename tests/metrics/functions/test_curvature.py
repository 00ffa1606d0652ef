"""Spectra of layers: golden values of arXiv 2404.06106 at linear collapse, autograd elsewhere."""

import pytest
import torch
from deterministic import powers

from pipeline.metrics import LayerCurvature, balancedness

# K, n, L, decays of the weights, of the features, width: loss and output, outliers of each layer
EQUAL = (3, 40, 5, (1e-2,) * 5, 1e-2, 8)
OTHER = (3, 4, 3, (1e-2, 2e-2, 5e-3), 3e-2, 5)


def collapsed(classes, samples, depth, decays, feature_decay, width, output):
    """Linear layers and features at the collapsed optimum, scaled as theory says: decay s^2 alike for all factors."""
    energy = (1 - output) * output
    turns = [torch.linalg.qr(powers(width, width, start)).Q[:, :classes] for start in range(depth)]
    turns.append(torch.eye(classes, dtype=torch.float64))
    weights = [
        (energy / (classes * decay)) ** 0.5 * turns[layer + 1] @ turns[layer].T for layer, decay in enumerate(decays)
    ]
    labels = torch.arange(classes).repeat_interleave(samples)
    features = (energy / (classes * samples * feature_decay)) ** 0.5 * turns[0].T[labels]
    return features, weights, labels


@pytest.mark.parametrize(
    ("case", "output", "outliers", "of_weights"),
    [
        (EQUAL, 0.9422774667, [0.163242570] * 5, 1.813021414),
        (OTHER, 0.9424852433, [0.163868422, 0.327736845, 0.081934211], None),
    ],
)
def test_golden_outliers_of_linear_collapse(case, output, outliers, of_weights) -> None:
    classes, decays = case[0], case[3]
    features, weights, labels = collapsed(*case, output)
    for layer, outlier in enumerate(outliers, start=1):
        found = LayerCurvature(features, weights, layer, labels, "linear")
        values = found.eigenvalues(classes**2 + 2)
        assert values.tolist() == pytest.approx([outlier] * 9 + [0, 0], rel=1e-6, abs=1e-12)
        pairs = found.alignment()
        torch.testing.assert_close(pairs.hessian, torch.ones(3, 3).double(), rtol=1e-9, atol=0)
        torch.testing.assert_close(pairs.gradient, torch.eye(3).double() / 3, rtol=1e-7, atol=1e-12)
        torch.testing.assert_close(found.gradient, -decays[layer - 1] * weights[layer - 1], rtol=1e-7, atol=1e-9)
        expected = output * (1 - output) / (classes * decays[layer - 1])
        assert found.weight_eigenvalues()[:classes].tolist() == pytest.approx([expected] * classes, rel=1e-6)
        if of_weights is not None:
            assert expected == pytest.approx(of_weights, rel=1e-6)
        summary = [float(value) for value in found.summary()]
        assert summary == pytest.approx([outlier, 1, 0, 1, 1], rel=1e-6, abs=1e-12)
        parts = found.parts()
        assert parts.of_class.tolist() == pytest.approx([outlier] * 3, rel=1e-6)
        assert parts.cross.tolist() == pytest.approx([outlier] * 6 + [0] * 3, rel=1e-6, abs=1e-12)
        assert float(parts.within.max()) < 1e-12
    assert float(balancedness(weights[0], (decays[1] / decays[0]) ** 0.5 * weights[1])) < 1e-12


def loss_of(features, weights, labels, activation, loss):
    hidden = features
    for number, weight in enumerate(weights):
        hidden = (hidden.relu() if number and activation == "relu" else hidden) @ weight.T
    if loss == "mse":
        return (hidden - torch.eye(3, dtype=torch.float64)[labels]).square().sum() / (2 * len(labels))
    return torch.nn.functional.cross_entropy(hidden, labels)


@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
@pytest.mark.parametrize("activation", ["relu", "linear"])
@pytest.mark.parametrize("layer", [1, 2, 3])
def test_spectra_are_those_of_autograd(monkeypatch, loss: str, activation: str, layer: int) -> None:
    features, labels = powers(7, 4, 1), torch.tensor([0, 1, 2, 0, 1, 2, 1])
    weights = [powers(5, 4, 2), powers(4, 5, 3), powers(3, 4, 4)]

    def of_layer(matrix):
        return loss_of(features, [*weights[: layer - 1], matrix, *weights[layer:]], labels, activation, loss)

    own = weights[layer - 1]
    hessian = torch.autograd.functional.hessian(of_layer, own).reshape(own.numel(), own.numel())
    slope = torch.autograd.functional.jacobian(of_layer, own)
    found = LayerCurvature(features, weights, layer, labels, activation, loss)
    torch.testing.assert_close(found.gradient, slope, rtol=1e-9, atol=1e-12)
    direction = torch.cos(own * 3)
    torch.testing.assert_close(
        found.apply(direction).reshape(-1), hessian @ direction.reshape(-1), rtol=1e-9, atol=1e-12
    )
    values = torch.linalg.eigvalsh(hessian).flip(0)
    torch.testing.assert_close(found.eigenvalues(6), values[:6], rtol=1e-8, atol=1e-12)
    monkeypatch.setattr("pipeline.metrics.functions.curvature.GRAM_LIMIT", 1)
    torch.testing.assert_close(found.eigenvalues(6), values[:6], rtol=1e-6, atol=1e-10)
    pairs = found.alignment()
    leaving = features
    for number, weight in enumerate(weights[:layer], start=1):
        leaving = leaving @ weight.T
        leaving = leaving.relu() if activation == "relu" and number < 3 else leaving
    first = leaving[labels == 2].mean(0)
    vector = torch.outer(first, found.entering[labels == 0].mean(0)).reshape(-1)
    curved = hessian @ vector
    assert float(pairs.hessian[2, 0]) == pytest.approx(
        float((vector @ curved) ** 2 / (vector @ vector * (curved @ curved)))
    )
    assert float(pairs.gradient[2, 0]) == pytest.approx(
        float((vector @ slope.reshape(-1)) ** 2 / (vector @ vector * slope.square().sum())), rel=1e-7, abs=1e-12
    )


@pytest.mark.parametrize("activation", ["relu", "linear"])
def test_the_share_of_the_gradient_is_that_of_a_projection(activation: str) -> None:
    features, labels = powers(7, 4, 1) + 2, torch.tensor([0, 1, 2, 0, 1, 2, 1])  # means in nearly one direction
    found = LayerCurvature(features, [powers(5, 4, 2), powers(4, 5, 3), powers(3, 4, 4)], 2, labels, activation)
    means = [
        torch.stack([rows[labels == label].mean(0) for label in range(3)]) for rows in (found.leaving, found.entering)
    ]
    pairs = torch.einsum("ki,kj->kij", *means).flatten(1).T
    slope = found.gradient.flatten()
    inside = pairs @ torch.linalg.lstsq(pairs, slope[:, None], driver="gelsd").solution[:, 0]
    share = float(found.summary().gradient)
    assert share == pytest.approx(float(inside.square().sum() / slope.square().sum()), rel=1e-6)
    assert 0 <= share <= 1 + 1e-9


def test_the_parts_add_up_to_the_whole() -> None:
    labels = torch.arange(3).repeat(4)
    found = LayerCurvature(powers(12, 4, 1), [powers(5, 4, 2), powers(3, 5, 3)], 1, labels)
    parts = found.parts()
    total = sum(part.sum() for part in parts)
    torch.testing.assert_close(total, found.eigenvalues(20).sum(), rtol=1e-10, atol=0)
    assert parts.within.max() > 0.01


def test_the_full_hessian_at_collapse_has_the_values_that_theory_says() -> None:
    """K = 3, n = 4, L = 2, decays 1e-2, d = 4, class-merged: (lambda ((L+1)q - (L-1)p)/p) x 6, ..., 0 x 12."""
    decay, output = 1e-2, None
    low, high = 0.5, 1.0  # the larger root of (1-q) q^{1/3} = K (n lambda^3)^{1/3}
    for _ in range(200):
        output = (low + high) / 2
        low, high = (
            (output, high) if (1 - output) * output ** (1 / 3) > 3 * (4 * decay**3) ** (1 / 3) else (low, output)
        )
    features, weights, _ = collapsed(3, 4, 2, (decay,) * 2, decay, 4, output)
    sizes = [weights[0].numel(), weights[1].numel()]

    def objective(point):
        first, last, means = point.split([*sizes, 12])
        outputs = means.view(3, 4) @ first.view(4, 4).T @ last.view(3, 4).T
        fit = (outputs - torch.eye(3, dtype=torch.float64)).square().sum() / 6
        penalty = first.square().sum() + last.square().sum() + 4 * means.square().sum()
        return fit + decay / 2 * penalty

    at = torch.cat([weights[0].reshape(-1), weights[1].reshape(-1), features[::4].reshape(-1)])
    hessian = torch.autograd.functional.hessian(objective, at)
    scale = torch.cat([torch.ones(sum(sizes)), torch.full((12,), 0.5)]).double()  # features of equal decay
    values = torch.linalg.eigvalsh(scale[:, None] * hessian * scale).flip(0)
    expected = [0.619625082] * 3 + [0.579625082] * 6 + [0.02] * 18 + [0.01] + [0.0] * 12
    assert values.tolist() == pytest.approx(expected, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"layer": 3}, r"layer must be in 1..2, got 3"),
        ({"loss": "hinge"}, "loss must be one of mse, cross_entropy, got 'hinge'"),
        ({"activation": "gelu"}, "activation must be one of relu, linear"),
        ({"weights": [powers(5, 3, 2)]}, r"W_1 must have shape \(out, 4\)"),
        ({"labels": torch.arange(6)}, r"labels must lie in 0..2"),
    ],
)
def test_bad_input_is_told_in_one_sentence(arguments, named: str) -> None:
    whole = {"features": powers(6, 4, 1), "weights": [powers(5, 4, 2), powers(3, 5, 3)], "layer": 1}
    with pytest.raises(ValueError, match=named):
        LayerCurvature(**{**whole, "labels": torch.arange(6) % 3, **arguments})
    with pytest.raises(ValueError, match="as many samples of each class"):
        LayerCurvature(**whole, labels=torch.tensor([0, 0, 0, 1, 1, 2])).parts()
