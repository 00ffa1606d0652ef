"""Mean-field networks: gradients by autograd, stationary points in closed form, noise that unbalances."""

import math

import pytest
import torch

from pipeline.metrics import mean_field_balancedness, mean_field_features
from pipeline.runs.training.mean_field import CHUNK, PHI, Descent, MeanFieldNetwork

LABELS = torch.arange(2).repeat_interleave(4)
TARGETS = torch.eye(2, dtype=torch.float64)[LABELS]
ROWS = torch.randn(8, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def network(**settings) -> MeanFieldNetwork:
    """Of twelve neurons, in float64."""
    made = MeanFieldNetwork.drawn(3, 12, 5, 4, 2, decay=2e-2, neuron_decay=1e-2, gamma=1.3, **settings)
    for name in ("neurons", "directions", "weight"):
        setattr(made, name, getattr(made, name).double())
    return made


@pytest.mark.parametrize("phi", PHI)
def test_gradients_are_those_of_the_objective_and_of_neurons_times_their_number(phi):
    made = network(phi=phi)
    a, u, weight = (value.clone().requires_grad_() for value in made.moving)
    outputs = 1.3 * (getattr(torch, phi)(ROWS @ u.T) @ a / 12) @ weight
    penalty = 1e-2 * weight.square().sum() + 1e-2 / 24 * (a.square().sum() + u.square().sum())
    objective = (outputs - TARGETS).square().sum() / 16 + penalty
    expected = torch.autograd.grad(objective, (a, u, weight))
    found = made.gradients(ROWS, TARGETS)
    for one, other, times in zip(found, expected, (12, 12, 1), strict=True):
        torch.testing.assert_close(one, times * other)
    assert made.penalty() == pytest.approx(float(penalty.detach()))
    squares = 12 * (expected[0].square().sum() + expected[1].square().sum()) + expected[2].square().sum()
    assert made.gradient_norm(ROWS, TARGETS) == pytest.approx(math.sqrt(squares))


def test_more_rows_than_a_pass_takes_have_the_mean_of_their_gradients():
    times = CHUNK // 8 + 1
    many = network().gradients(ROWS.repeat(times, 1), TARGETS.repeat(times, 1))
    for one, other in zip(many, network().gradients(ROWS, TARGETS), strict=True):
        torch.testing.assert_close(one, other)


def test_w_starts_with_orthonormal_columns_and_stays_where_it_is_frozen():
    made = network(frozen=True)
    start = made.weight.clone()
    torch.testing.assert_close(start.T @ start, torch.eye(2, dtype=torch.float64), rtol=0, atol=1e-6)
    list(Descent(0.5, 3, 8).train(made, ROWS, TARGETS, 0))
    assert torch.equal(made.weight, start) and len(made.moving) == 2


def test_descent_ends_balanced_where_all_is_trained_and_in_closed_form_for_its_directions():
    made = network()
    list(Descent(0.5, 2_500, 8, momentum=0.9).train(made, ROWS, TARGETS, 0))
    assert made.gradient_norm(ROWS, TARGETS) < 1e-7
    exact = mean_field_features(made.hidden(ROWS), TARGETS, made.weight, 1e-2, 1.3)
    torch.testing.assert_close(made.features(ROWS), exact, rtol=1e-4, atol=1e-6)
    moments = made.neurons.T @ made.neurons / 12
    torch.testing.assert_close(1e-2 * moments, 2e-2 * made.weight @ made.weight.T, rtol=1e-4, atol=1e-7)
    assert mean_field_balancedness(made.neurons, made.weight) < 1e-4


def test_noise_spreads_neurons_by_twice_temperature_times_time():
    made = MeanFieldNetwork(torch.zeros(4000, 3), torch.zeros(4000, 2), torch.zeros(3, 2))
    list(Descent(0.1, 50, 8, temperature=0.2).train(made, torch.zeros(8, 2), torch.zeros(8, 2), 0))
    for moved in made.moving[:2]:
        assert moved.square().mean() == pytest.approx(2 * 0.2 * 0.1 * 50, rel=0.05)  # std 0.013 to 0.016
    assert (made.weight == 0).all()


def test_rates_over_epochs():
    rates = {
        name: [Descent(1.0, 10, 8, schedule=name).rate_of(epoch) for epoch in range(10)] for name in ("cosine", "drop")
    }
    assert rates["drop"] == [1.0] * 8 + [0.1] * 2
    assert rates["cosine"][0] == 1 and rates["cosine"][5] == pytest.approx(0.5) and rates["cosine"][9] < 0.03
