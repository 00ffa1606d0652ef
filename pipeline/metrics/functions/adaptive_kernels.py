"""The kernel that a wide erf network of two layers adapts to its targets ("equations of state").

Source: Kothapalli & Tirer, arXiv 2406.02105, after Seroussi, Naveh & Ringel (2023) [structure read, formula derived].
Their public code multiplies the label term by the ridge where 1 / ridge^2 is right, so that its kernel does not feel
the labels: published figures of it are no target.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from pipeline.metrics.engine.checks import check_matrix, check_number
from pipeline.runtime.devices import where_float64_is

# Of the free energy's slope, per unit of width: the kernel is then right to about its square root of precision.
TOLERANCE = 1e-9
MAX_STEPS = 2000


class AdaptiveKernel(NamedTuple):
    """What `adaptive_kernel` finds.

    Attributes:
        kernel: Q1(Sigma), `(N, N)`.
        covariance: Sigma, of the first layer's weights, `(d, d)`.
    """

    kernel: Tensor
    covariance: Tensor


@where_float64_is
def adaptive_kernel(
    rows: Tensor,
    targets: Tensor,
    width: float,
    weight_variance: float = 1.0,
    output_variance: float = 1 / 128,
    ridge: float = 1e-2,
) -> AdaptiveKernel:
    """Feature kernel of an erf network of finite width that has seen its targets, and its weights' covariance.

    Sigma is where F (`adaptive_free_energy`) is least; width to infinity gives Sigma = weight_variance / d I, the NNGP.

    Args:
        rows: samples `(N, d)`.
        targets: `(N,)`, e.g. -1 and +1.
        width: h, of the hidden layer.
        weight_variance: sigma_w^2 of the first layer, entries of variance sigma_w^2 / d.
        output_variance: sigma_a^2, factor of the kernel.
        ridge: sigma^2, variance of the noise.

    Raises:
        ValueError: for malformed rows or targets, and such that are not finite, numbers that are not positive, and a
            search that did not end.
    """
    check_matrix("rows", rows, "(N, d)")
    _check_problem(rows, targets, width, weight_variance, output_variance, ridge)
    points, goals = rows.detach().cpu().double(), targets.detach().cpu().double()
    dim = points.shape[1]
    below = torch.tril_indices(dim, dim)
    unit = math.sqrt(weight_variance / dim)

    def factor(parameters: np.ndarray) -> tuple[Tensor, Tensor]:
        free = torch.from_numpy(parameters).clone().requires_grad_()
        return free, unit * torch.zeros(dim, dim, dtype=torch.float64).index_put(tuple(below), free)

    def slope(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        free, lower = factor(parameters)
        value = _free_energy(lower, points, goals, width, weight_variance, output_variance, ridge) / width
        (gradient,) = torch.autograd.grad(value, free)
        return float(value.detach()), gradient.numpy()

    start = torch.eye(dim, dtype=torch.float64)[tuple(below)].numpy()
    options = {"maxiter": MAX_STEPS, "maxfun": 4 * MAX_STEPS, "gtol": TOLERANCE, "ftol": 0.0, "maxcor": 30}
    found = minimize(slope, start, jac=True, method="L-BFGS-B", options=options)
    left = float(np.abs(slope(found.x)[1]).max())
    if not left <= 1e3 * TOLERANCE:
        raise ValueError(f"no adaptive kernel was found: the free energy's slope is {left:.1e} per unit of width.")
    lower = factor(found.x)[1].detach()
    kernel = _erf_kernel(points @ lower, output_variance)
    return AdaptiveKernel(kernel.to(rows.device), (lower @ lower.mT).to(rows.device))


@where_float64_is
def adaptive_free_energy(
    covariance: Tensor,
    rows: Tensor,
    targets: Tensor,
    width: float,
    weight_variance: float = 1.0,
    output_variance: float = 1 / 128,
    ridge: float = 1e-2,
) -> Tensor:
    """F(Sigma), `()`, for a positive definite Sigma `(d, d)`; arguments as in `adaptive_kernel`.

    h/2 [(d / sigma_w^2) tr Sigma - log det Sigma] + 1/2 y^T (Q1 + ridge I)^-1 y + 1/2 log det(Q1 + ridge I). Its
    stationary points solve Sigma^-1 = (d / sigma_w^2) I + (1/h) grad Tr[A Q1(Sigma)], A = R - R y y^T R held fixed.
    """
    check_matrix("rows", rows, "(N, d)")
    _check_problem(rows, targets, width, weight_variance, output_variance, ridge)
    check_matrix("covariance", covariance, "(d, d)")
    lower, failed = torch.linalg.cholesky_ex(covariance.double()) if _is_square(covariance, rows) else (covariance, 1)
    if failed:
        raise ValueError(f"covariance must be a positive definite matrix of {rows.shape[1]} rows and columns.")
    scalars = width, weight_variance, output_variance, ridge
    return _free_energy(lower, rows.double(), targets.double(), *scalars)


def _free_energy(
    lower: Tensor, rows: Tensor, targets: Tensor, width: float, weight: float, output: float, ridge: float
) -> Tensor:
    """F of Sigma = lower lower^T."""
    noisy = _erf_kernel(rows @ lower, output) + ridge * torch.eye(len(rows), dtype=rows.dtype, device=rows.device)
    root = torch.linalg.cholesky(noisy)
    whitened = torch.linalg.solve_triangular(root, targets[:, None], upper=False)
    fit = whitened.square().sum() / 2 + root.diagonal().log().sum()
    log_det = 2 * lower.diagonal().abs().log().sum()
    return width / 2 * (rows.shape[1] / weight * lower.square().sum() - log_det) + fit


def _erf_kernel(preactivations: Tensor, output_variance: float) -> Tensor:
    """sigma_a^2 (2/pi) arcsin(2 S_ij / sqrt((1 + 2 S_ii)(1 + 2 S_jj))), S the Gram matrix of the rows given."""
    inner = preactivations @ preactivations.mT
    scale = (1 + 2 * inner.diagonal()).sqrt()
    return output_variance * 2 / math.pi * torch.arcsin(2 * inner / (scale[:, None] * scale))


def _is_square(covariance: Tensor, rows: Tensor) -> bool:
    return covariance.shape == (rows.shape[1], rows.shape[1])


def _check_problem(rows: Tensor, targets: Tensor, *numbers: float) -> None:
    if rows.ndim != 2 or not len(rows):
        raise ValueError(f"rows must have shape (N, d), N at least 1, got {tuple(rows.shape)}.")
    if not isinstance(targets, Tensor) or targets.is_complex() or targets.shape != rows.shape[:1]:
        shape = f"{tuple(targets.shape)} {targets.dtype}" if isinstance(targets, Tensor) else type(targets).__name__
        raise ValueError(f"targets must have shape ({len(rows)},), one real number per row, got {shape}.")
    for name, values in (("rows", rows), ("targets", targets)):
        if not bool(values.isfinite().all()):
            raise ValueError(f"{name} must be finite numbers, got {int((~values.isfinite()).sum())} that are not.")
    for name, number in zip(("width", "weight_variance", "output_variance", "ridge"), numbers, strict=True):
        check_number(name, number)
