"""The kernel that adapts to its targets: golden numbers, and its stationarity by another way."""

import pytest
import torch
from deterministic import two_clouds
from torch import Tensor

from pipeline.metrics import adaptive_free_energy, adaptive_kernel, kernel_dnc1, nngp

GOLDEN = {  # (N, d), width: NC1 of NNGP and of the adaptive kernel, trace of Sigma, F
    ((16, 2), 500): (0.014456869, 0.013840970, 1.030617991, 895.714513833),
    ((16, 3), 50): (0.026745014, 0.019823742, 1.147239601, 203.227257061),
}


@pytest.mark.parametrize("case", GOLDEN)
def test_golden_equations_of_state(case) -> None:
    (samples, dim), width = case
    rows, labels = two_clouds(samples, dim)
    targets = 2.0 * labels - 1
    kernel, covariance = adaptive_kernel(rows, targets, width)
    energy = adaptive_free_energy(covariance, rows, targets, width)
    lazy, adapted = (float(kernel_dnc1(own, labels, 2)) for own in (nngp(rows, "erf"), kernel))
    assert (lazy, adapted, float(covariance.trace()), float(energy)) == pytest.approx(GOLDEN[case], rel=1e-6)
    if width == 500:
        assert torch.linalg.eigvalsh(covariance).tolist() == pytest.approx([0.49863287, 0.53198512], rel=1e-6)


def test_sigma_solves_the_self_consistent_equation() -> None:
    """Sigma^-1 = d I + (1/h) grad Tr[A Q1(Sigma)] with A = R - R y y^T R held fixed, not F's gradient."""
    rows, labels = two_clouds(8, 3)
    targets = 2 * labels.double() - 1
    kernel, sigma = adaptive_kernel(rows, targets, 20, ridge=0.05)
    resolvent = torch.linalg.inv(kernel + 0.05 * torch.eye(8, dtype=torch.float64))
    label_term = resolvent - resolvent @ torch.outer(targets, targets) @ resolvent
    inner = rows @ sigma @ rows.T
    scale = (1 + 2 * inner.diagonal()).sqrt()
    ratio = 2 * inner / torch.outer(scale, scale)
    outer = 2 / torch.pi / 128 * label_term / (1 - ratio.square()).sqrt()
    # d ratio_ij = 2 x_i^T dS x_j / (D_i D_j)^(1/2) - ratio_ij (x_i^T dS x_i / D_i + x_j^T dS x_j / D_j)
    gradient = rows.T @ (2 * outer / torch.outer(scale, scale)) @ rows
    gradient -= 2 * rows.T @ torch.diag((outer * ratio).sum(1) / scale.square()) @ rows
    expected = 3 * torch.eye(3, dtype=torch.float64) + gradient / 20
    torch.testing.assert_close(torch.linalg.inv(sigma), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "golden"), [("right", 0.013840970), ("without labels", 0.014457911), ("published", 0.014457162)]
)
def test_public_code_solves_an_equation_that_hardly_feels_the_labels(kind: str, golden: float) -> None:
    """Sigma^-1 = d I + (1/h) grad Tr[A Q1(Sigma)], by damped iteration: A = R - R y y^T R, without its second part, or
    with ridge E E^T for it, where E_ij = y_j - f_i is broadcast from `(N,)` and `(N, 1)`."""
    rows, labels = two_clouds(16, 2)
    targets, eye = 2.0 * labels.double() - 1, torch.eye(16, dtype=torch.float64)

    def kernel_of(sigma: Tensor) -> Tensor:
        inner = rows @ sigma @ rows.T
        scale = (1 + 2 * inner.diagonal()).sqrt()
        return 2 / torch.pi / 128 * torch.arcsin(2 * inner / torch.outer(scale, scale))

    def label_term(kernel: Tensor, resolvent: Tensor) -> Tensor:
        if kind == "without labels":
            return resolvent
        if kind == "right":
            return resolvent - torch.outer(resolvent @ targets, resolvent @ targets)
        apart = targets[None, :] - (kernel @ resolvent @ targets)[:, None]
        return resolvent - 1e-2 * apart @ apart.T

    sigma = eye[:2, :2] / 2
    for _ in range(300 if kind == "right" else 40):
        kernel = kernel_of(sigma)
        held = label_term(kernel, torch.linalg.inv(kernel + 1e-2 * eye))
        free = sigma.clone().requires_grad_()
        (slope,) = torch.autograd.grad((held * kernel_of(free)).sum(), free)
        sigma = sigma / 2 + torch.linalg.inv(2 * eye[:2, :2] + (slope + slope.T) / 2 / 500) / 2
    assert float(kernel_dnc1(kernel_of(sigma), labels, 2)) == pytest.approx(golden, rel=1e-6, abs=1e-9)


def test_a_wide_network_keeps_its_first_kernel() -> None:
    rows, labels = two_clouds(6, 2)
    kernel, sigma = adaptive_kernel(rows, 2.0 * labels - 1, 1e9, weight_variance=1.5, output_variance=1.0)
    torch.testing.assert_close(sigma, 0.75 * torch.eye(2, dtype=torch.float64), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(kernel, nngp(rows, "erf", 1.5), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"width": 0}, "width must be a finite positive number, got 0"),
        ({"width": 5, "ridge": -1.0}, "ridge"),
        ({"width": 5, "targets": torch.ones(6) * 1j}, "one real number per row, got .* torch.complex64"),
        ({"width": "5"}, "width must be a finite positive number, got '5'"),
        ({"width": 5, "targets": torch.ones(3)}, r"targets must have shape \(6,\)"),
        ({"width": 5, "targets": torch.ones(6) / 0}, "targets must be finite numbers, got 6 that are not"),
        ({"width": 5, "rows": torch.full((6, 2), torch.nan)}, "rows must be finite numbers, got 12"),
    ],
)
def test_bad_input_is_told_in_one_sentence(arguments, named: str) -> None:
    rows, labels = two_clouds(6, 2)
    with pytest.raises(ValueError, match=named):
        adaptive_kernel(**{"rows": rows, "targets": 2.0 * labels - 1, **arguments})


@pytest.mark.parametrize("covariance", [torch.eye(3), -torch.eye(2)])
def test_the_free_energy_is_that_of_a_covariance(covariance) -> None:
    rows, labels = two_clouds(6, 2)
    with pytest.raises(ValueError, match="covariance must be a positive definite matrix of 2 rows and columns"):
        adaptive_free_energy(covariance, rows, 2.0 * labels - 1, 5)
