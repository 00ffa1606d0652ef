"""Mean-field networks of arXiv 2501.19104: golden numbers, stationarity by autograd."""

import pytest
import torch
from deterministic import powers

from pipeline.metrics import dnc1, mean_field_balancedness, mean_field_features, nc1_wm

GOLDEN = {  # n, q, d, p, N_1: ||H|| and NC1_WM for decays 1e-2, 1e-3, 1e-4
    (6, 2, 3, 4, 5): ((0.554405355, 0.923939478, 1.597187904), (0.955588347, 0.657728138, 0.232882538)),
    (6, 3, 4, 4, 20): ((1.392479784, 1.689406660, 2.045700285), (0.130918967, 0.123460745, 0.033487361)),
}


def problem(n: int, q: int, d: int, p: int, neurons: int):
    rows = powers(d, n, 1) / d**0.5
    hidden = torch.tanh(2 * powers(neurons, d, 2) @ rows).T
    labels = torch.arange(q).repeat_interleave(n // q)
    return hidden, labels, torch.eye(q, dtype=torch.float64)[labels], torch.linalg.qr(powers(p, q, 3)).Q


@pytest.mark.parametrize("case", GOLDEN)
def test_golden_stationary_features(case) -> None:
    hidden, labels, targets, weight = problem(*case)
    for decay, norm, collapse in zip((1e-2, 1e-3, 1e-4), *GOLDEN[case], strict=True):
        features = mean_field_features(hidden, targets, weight, decay)
        assert float(features.norm()) == pytest.approx(norm, rel=1e-6)
        assert float(nc1_wm(features, labels, case[1])) == pytest.approx(collapse, rel=1e-6)


def test_the_features_are_those_where_the_gradient_in_a_vanishes() -> None:
    hidden, _, targets, weight = problem(6, 2, 3, 4, 5)
    gamma, decay, scale = 1.3, 1e-2, torch.tensor([1.0, 2.0])
    weight = weight * scale
    features = mean_field_features(hidden, targets, weight, decay, gamma)
    # a = -(gamma / decay) (1/n) sum_i phi_ij W (gamma W^T h_i - y_i) is stationary, and gives these features back.
    neurons = (-gamma / decay / 6 * hidden.T @ (gamma * features @ weight - targets) @ weight.T).requires_grad_()
    torch.testing.assert_close((hidden @ neurons / 5).detach(), features, rtol=1e-9, atol=1e-12)
    loss = (gamma * (hidden @ neurons / 5) @ weight - targets).square().sum() / 12
    (slope,) = torch.autograd.grad(loss + decay / 10 * neurons.square().sum(), neurons)
    assert slope.abs().max() < 1e-14


def test_variation_within_over_total() -> None:
    features, labels = powers(12, 4, 1), torch.arange(3).repeat(4)
    ratio = dnc1(features, labels, 3)
    torch.testing.assert_close(nc1_wm(features, labels, 3), ratio / (1 + ratio), rtol=1e-12, atol=0)
    uneven = torch.tensor([0] * 7 + [1] * 3 + [2] * 2)
    total = (features - features.mean(0)).square().sum()
    within = sum((features[uneven == c] - features[uneven == c].mean(0)).square().sum() for c in range(3))
    torch.testing.assert_close(nc1_wm(features, uneven, 3), within / total, rtol=1e-12, atol=0)
    torch.testing.assert_close(nc1_wm(features + 1e6, uneven, 3), within / total, rtol=1e-8, atol=0)
    assert nc1_wm(torch.ones(4, 2), torch.arange(4) % 2, 2).isnan()


def test_balancedness() -> None:
    weight = powers(4, 2, 3)
    values, vectors = torch.linalg.eigh(3 * weight @ weight.T)
    balanced = (4 * values.clamp(min=0)).sqrt()[:, None] * vectors.T  # four neurons with E a a^T = 3 W W^T
    assert float(mean_field_balancedness(balanced, weight)) < 1e-7
    noisy = torch.cat([balanced, 2 * torch.eye(4, dtype=torch.float64)])
    moments = noisy.T @ noisy / 8
    gram = weight @ weight.T
    best = min(
        (torch.linalg.matrix_norm(moments - c * gram), c) for c in torch.linspace(0, 4, 2001, dtype=torch.float64)
    )[1]
    expected = torch.linalg.matrix_norm(moments - best * gram, ord=2) / torch.linalg.matrix_norm(moments, ord=2)
    assert float(mean_field_balancedness(noisy, weight)) == pytest.approx(float(expected), rel=1e-2)


def test_bad_input_is_told_in_one_sentence() -> None:
    with pytest.raises(ValueError, match="weight must have 3 rows"):
        mean_field_balancedness(powers(5, 3, 1), powers(4, 2, 1))
    with pytest.raises(ValueError, match="decay must be a finite positive number, got 0"):
        mean_field_features(powers(5, 3, 1), powers(5, 2, 1), powers(4, 2, 1), 0)
