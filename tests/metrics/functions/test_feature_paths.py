"""Leaky residual networks: golden numbers of arXiv 2405.17573, identities, and the flow by Runge-Kutta."""

import math

import pytest
import torch
from deterministic import powers, waves
from torch import Tensor

from pipeline.metrics import (
    cost_of_identity,
    estimated_rank,
    hamiltonian,
    kernel_norm,
    kinetic_energy,
    nuclear_stable_rank,
    potential_energy,
    stable_gamma,
    stationarity_residual,
)


def test_golden_costs_of_identity() -> None:
    rows = waves(3, 5, 1).T
    for bias, golden in (
        (False, (6.005703650, 0.600965484, 0.002709965613, 139.258855781)),
        (True, (8.756452863, 0.424810888, 0.007501989789, 32.376178571)),
    ):
        gamma = stable_gamma(rows, bias)
        found = (*cost_of_identity(rows, bias, 0.0), gamma, cost_of_identity(rows, bias, gamma).cost)
        assert [float(value) for value in found] == pytest.approx(golden, rel=1e-6)
        cost, residual = cost_of_identity(rows.abs(), bias)
        assert float(cost) == pytest.approx(3, rel=1e-9) and float(residual) < 1e-12
    assert float(nuclear_stable_rank(rows)) == pytest.approx(1.903882010, rel=1e-6)


def test_golden_costs_of_classes() -> None:
    blocks = torch.kron(torch.eye(3, dtype=torch.float64), torch.ones(1, 4, dtype=torch.float64))
    centred = blocks - blocks.mean(1, keepdim=True)
    found = [float(cost_of_identity(rows.T, bias).cost) for rows in (blocks, centred) for bias in (False, True)]
    assert found == pytest.approx([3, 2.25, 4.5, 4.5], rel=1e-9)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("gamma", [1e-2, 1.0])
def test_the_cost_is_that_of_the_least_weights(bias: bool, gamma: float) -> None:
    """||A||^2_{K + g} is the least of ||W||^2 + ||A - W sigma(A)||^2 / g, here as a system of equations."""
    rows = powers(7, 4, 1)
    gated = torch.nn.functional.pad(rows.relu(), (0, 1), value=1.0) if bias else rows.relu()
    system = torch.cat([gated / gamma**0.5, torch.eye(gated.shape[1], dtype=torch.float64)])
    goal = torch.cat([rows / gamma**0.5, torch.zeros(gated.shape[1], 4, dtype=torch.float64)])
    weight = torch.linalg.lstsq(system, goal).solution
    cost, residual = cost_of_identity(rows, bias, gamma)
    expected = weight.square().sum() + (rows - gated @ weight).square().sum() / gamma
    torch.testing.assert_close(cost, expected, rtol=1e-10, atol=0)
    torch.testing.assert_close(residual, (rows - gated @ weight).norm(), rtol=1e-9, atol=1e-12)


def test_golden_identity_of_the_estimated_rank() -> None:
    """-2H/Lt = ||A||^2 - ||dA/dp / Lt + g B||^2 + g ||B||^2 in the norm of K + g I, for any A and B."""
    depth, gamma = 2.0, 0.01
    rows, momenta = waves(3, 4, 1).T, 0.2 * waves(3, 4, 2).T
    gated = torch.nn.functional.pad(rows.relu(), (0, 1), value=1.0)
    velocity = depth * (gated @ gated.T @ momenta - rows)
    cost = cost_of_identity(rows, True, gamma).cost
    middle = kernel_norm(velocity / depth + gamma * momenta, rows, True, gamma).cost
    last = gamma * momenta.square().sum()
    rank = estimated_rank(rows, momenta, depth)
    assert [float(v) for v in (cost, middle, last)] == pytest.approx(
        [29.926056281, 29.123573766, 0.002303115], rel=1e-6
    )
    assert float(rank) == pytest.approx(0.804785630, rel=1e-6)
    torch.testing.assert_close(cost - middle + last, rank, rtol=1e-10, atol=0)


def test_golden_scalar_network_is_stationary_and_near_its_flow() -> None:
    """1 -> s by equal steps without bias: all w = L (s^(1/L) - 1 + Lt/L), and -2H/Lt near 1 - (log s / Lt)^2."""
    layers, depth, goal = 20, 4.0, 2.0
    growth = goal ** (1 / layers)
    weight = layers * (growth - 1 + depth / layers)
    assert [weight, weight**2 / (2 * depth)] == pytest.approx([4.705298477, 2.767479220], rel=1e-9)
    path = [growth ** torch.full((1, 1), float(number), dtype=torch.float64) for number in range(layers + 1)]
    momenta = [weight / depth / before for before in path[:-1]]  # B_(l-1) = (1 - rho Lt + rho w) B_l = growth B_l
    weights = [torch.full((1, 1), weight, dtype=torch.float64)] * layers
    assert float(stationarity_residual(weights, momenta, path, depth, bias=False)) < 1e-14
    found = [float(estimated_rank(a, b, depth, bias=False)) for a, b in zip(path[:-1], momenta, strict=True)]
    middle = [
        (float(estimated_rank(a, b, depth, bias=False)) + first) / 2
        for a, b, first in zip(path[1:], momenta, found, strict=True)
    ]
    golden = 1 - (math.log(goal) / depth) ** 2
    assert golden == pytest.approx(0.969971687, rel=1e-9)
    assert found == pytest.approx([golden] * layers, abs=0.002)  # O(rho^2)
    assert max(found) - min(found) < 1e-12 and max(abs(value - golden) for value in middle) < 0.05


def flow(rows: Tensor, momenta: Tensor, depth: float, steps: int) -> tuple[list[Tensor], list[Tensor]]:
    """dA/dp = Lt (B K - A), -dB/dp = relu'(A) .* (V^T B) - Lt B, W = Lt B sigma(A)^T with V its first columns."""

    def slopes(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        gated = torch.nn.functional.pad(a.relu(), (0, 1), value=1.0)
        weight = depth * b.T @ gated
        return gated @ weight.T - depth * a, depth * b - (a > 0) * (b @ weight[:, :-1])

    path, along = [rows], [momenta]
    for _ in range(steps):
        a, b, k = path[-1], along[-1], []
        for share in (0, 0.5, 0.5, 1):
            last = k[-1] if k else (0.0, 0.0)
            k.append(slopes(a + share / steps * last[0], b + share / steps * last[1]))
        path.append(a + sum(w * s[0] for w, s in zip((1, 2, 2, 1), k, strict=True)) / (6 * steps))
        along.append(b + sum(w * s[1] for w, s in zip((1, 2, 2, 1), k, strict=True)) / (6 * steps))
    return path, along


def test_golden_flow_keeps_its_hamiltonian_and_balances_its_weights() -> None:
    depth = 3.0
    path, along = flow(1.5 + waves(2, 3, 1).T, 0.1 * (1 + waves(2, 3, 2).T), depth, 500)
    first, last = hamiltonian(path[0], along[0], depth), hamiltonian(path[-1], along[-1], depth)
    assert float(first) == pytest.approx(-1.415434021, rel=1e-6)
    assert float(estimated_rank(path[0], along[0], depth)) == pytest.approx(0.943622681, rel=1e-6)
    torch.testing.assert_close(last, first, rtol=1e-8, atol=0)
    weights = [
        depth * b.T @ torch.nn.functional.pad(a.relu(), (0, 1), value=1.0) for a, b in zip(path, along, strict=True)
    ]
    sizes = [
        float(value) for value in (path[-1].norm(), along[-1].norm(), weights[0].norm() ** 2, weights[-1].norm() ** 2)
    ]
    assert sizes == pytest.approx([9.024460120, 2.467743383, 9.618795418, 17.670844324], rel=1e-6)
    # The paper's ||W_1||^2 = ||W_0||^2 + c int ||b||^2, W's last column b, has c = 2 Lt (printed: Lt).
    biases = torch.stack([weight[:, -1].square().sum() for weight in weights])
    simpson = torch.ones(501, dtype=torch.float64).index_fill_(0, torch.arange(1, 500, 2), 4.0)
    simpson[2:-1:2] = 2.0
    grown = 2 * depth * float((simpson * biases).sum()) / 1500
    assert sizes[3] - sizes[2] == pytest.approx(grown, rel=1e-8)


def test_kinetic_less_potential_energy_is_the_hamiltonian_where_weights_can_be_had_from_rows() -> None:
    depth = 2.0
    rows, momenta = powers(3, 4, 1).abs(), 0.3 * powers(3, 4, 2)  # A >= 0: its rows are combinations of sigma(A)'s
    kernel = rows @ rows.T
    velocity = depth * (kernel @ momenta - rows)
    energies = kinetic_energy(velocity, rows, depth, bias=False), potential_energy(rows, depth, bias=False)
    torch.testing.assert_close(
        energies[0] - energies[1], hamiltonian(rows, momenta, depth, bias=False), rtol=1e-10, atol=0
    )


def test_the_residual_vanishes_where_the_objective_is_stationary() -> None:
    """The penalty lambda rho / (2 Lt) ||W_l||^2 pulls W_l to Lt B_l sigma(A_{l-1})^T: autograd says how far it is."""
    depth, decay, layers = 2.0, 0.1, 3
    rho = 1 / layers
    weights = [(0.3 * powers(4, 5, start)).requires_grad_() for start in (1, 2, 3)]
    path = [powers(6, 4, 4)]
    for weight in weights:
        gated = torch.nn.functional.pad(path[-1].relu(), (0, 1), value=1.0)
        path.append((1 - rho * depth) * path[-1] + rho * gated @ weight.T)
    fit = (path[-1] - powers(6, 4, 5)).square().sum() / 6
    momenta = [-slope / decay for slope in torch.autograd.grad(fit, path[1:], retain_graph=True)]
    slopes = torch.autograd.grad(fit, weights)
    # d objective / dW_l = dfit/dW_l + decay rho / Lt W_l = (decay rho / Lt) (W_l - Lt B_l sigma^T)
    shares = [(s * depth / (decay * rho) + w).norm() / w.norm() for s, w in zip(slopes, weights, strict=True)]
    found = stationarity_residual(weights, momenta, path, depth)
    torch.testing.assert_close(found, torch.stack(shares).max().detach(), rtol=1e-10, atol=0)
    optimal = [
        depth * b.T @ torch.nn.functional.pad(a.relu(), (0, 1), value=1.0) for a, b in zip(path, momenta, strict=False)
    ]
    assert float(stationarity_residual(optimal, momenta, path[:-1], depth)) < 1e-14


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda rows: cost_of_identity(rows, True, -1.0), "gamma must be at least 0 and finite, got -1.0"),
        (lambda rows: hamiltonian(rows, rows[:2], 1.0), "momenta must have the shape of rows"),
        (lambda rows: hamiltonian(rows, rows, 0), "depth must be a finite positive number, got 0"),
        (lambda rows: hamiltonian(rows, rows, "2"), "depth must be a finite positive number, got '2'"),
        (lambda rows: cost_of_identity(rows, True, "small"), "gamma must be at least 0 and finite, got 'small'"),
        (lambda rows: stationarity_residual([rows.numpy()], [rows], [rows], 1.0), "weights must be a floating-point"),
        (lambda rows: cost_of_identity(rows.expand(2, 4, 4), gamma=torch.tensor([0.0, 1.0])), "0 for all members"),
        (lambda rows: cost_of_identity(rows.expand(2, 4, 4), gamma=torch.ones(3)), r"have shape \(2,\), got \(3,\)"),
        (lambda rows: kernel_norm(rows[:2], rows), "matrix must have 4 rows like rows"),
        (lambda rows: estimated_rank(rows, rows, 0), "depth must be a finite positive number, got 0"),
        (lambda rows: hamiltonian(rows, None, 1.0), "momenta must be a floating-point tensor"),
        (lambda rows: stationarity_residual([], [], [], 1.0), "L, L and L or L \\+ 1 layers"),
        (lambda rows: stationarity_residual([rows], [rows], [rows], 1.0), "weights must have shape"),
    ],
)
def test_bad_input_is_told_in_one_sentence(call, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        call(powers(4, 4, 1))


def test_what_is_not_finite_gives_no_number_and_takes_no_other_member_along() -> None:
    rows = torch.stack([powers(5, 4, 1), powers(5, 4, 1)])
    rows[0, 2, 1] = math.nan
    for found in (*cost_of_identity(rows), *cost_of_identity(rows, True, 0.1), stable_gamma(rows)):
        assert found.isnan().tolist() == [True, False]
    assert nuclear_stable_rank(rows).isnan().tolist() == [True, False]
    assert torch.equal(cost_of_identity(rows).cost[1], cost_of_identity(rows[1:]).cost[0])
