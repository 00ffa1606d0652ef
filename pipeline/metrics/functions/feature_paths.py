"""Measures of the path that representations take through a leaky residual network.

Source: Jacot & Kaiser, arXiv 2405.17573, whose columns are samples; rows are samples here: A is `rows.mT`. sigma is
ReLU, with a 1 appended where there is a bias, K = sigma(A)^T sigma(A) `(N, N)`, Lt the effective depth. Their
||W_p||^2 = ||W_0||^2 + Lt int ||b||^2 is right with 2 Lt.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from pipeline.metrics.engine.checks import check_matrix, check_number
from pipeline.metrics.engine.statistics import finite_part
from pipeline.runtime.devices import where_float64_is


class CostOfIdentity(NamedTuple):
    """||A||^2_{K + gamma I}, and how far W sigma(A) is from A for the W that it is the squared norm of, `(...)` each.

    With gamma = 0 a residual that is not zero says that no W maps sigma(A) to A, so that the cost is infinite: the
    value is that of the closest map, by the pseudo-inverse. Both are NaN for rows that are not finite.
    """

    cost: Tensor
    residual: Tensor


@where_float64_is
def cost_of_identity(rows: Tensor, bias: bool = False, gamma: float | Tensor = 0.0) -> CostOfIdentity:
    """Least squared norm of a W with W sigma(A) = A (COI), `(...)`, or its stable version Tr A (K + gamma I)^-1 A^T.

    For A >= 0 without bias it is the rank of A.

    Args:
        rows: A^T, `(..., N, w)`.
        bias: whether sigma appends a 1.
        gamma: at least 0, one number or one for each member, all 0 or all positive; `stable_gamma` gives the paper's.

    Raises:
        ValueError: for another gamma.
    """
    rows, gated = _gated(rows, bias)
    return CostOfIdentity(*_squared_norm(rows, gated, gamma))


@where_float64_is
def kernel_norm(matrix: Tensor, rows: Tensor, bias: bool = False, gamma: float | Tensor = 0.0) -> CostOfIdentity:
    """||M||^2_{K + gamma I} = Tr M (K + gamma I)^-1 M^T, and its residual, of M^T `(..., N, m)` as `matrix`.

    With gamma = 0 ||M sigma(A)^+||^2, which is infinite in truth where the residual is not zero.
    """
    check_matrix("matrix", matrix, "(N, m)")
    check_matrix("rows", rows, "(N, w)")
    if matrix.shape[-2] != rows.shape[-2]:
        raise ValueError(f"matrix must have {rows.shape[-2]} rows like rows, got shape {tuple(matrix.shape)}.")
    return CostOfIdentity(*_squared_norm(matrix.detach().double(), _gated(rows, bias)[1], gamma))


@where_float64_is
def stable_gamma(rows: Tensor, bias: bool = False, factor: float = 1e-3) -> Tensor:
    """gamma = factor ||sigma(A)||_op^2, `(...)`."""
    gated = _gated(rows, bias)[1]
    return torch.where(_whole(gated), factor * torch.linalg.matrix_norm(finite_part(gated), ord=2).square(), math.nan)


@where_float64_is
def nuclear_stable_rank(rows: Tensor) -> Tensor:
    """||A||_*^2 / ||A||_F^2, `(...)`: at most the cost of identity where there is no bias; NaN for zero and for rows
    that are not finite."""
    check_matrix("rows", rows, "(N, w)")
    values = torch.linalg.svdvals(finite_part(rows.detach().double()))
    return torch.where(_whole(rows), values.sum(-1).square() / values.square().sum(-1), math.nan)


@where_float64_is
def hamiltonian(rows: Tensor, momenta: Tensor, depth: float, bias: bool = True) -> Tensor:
    """H = Lt/2 ||B sigma(A)^T||_F^2 - Lt Tr B A^T, `(...)`, constant along the layers of a stationary network.

    -2 H / Lt estimates the bottleneck rank (`estimated_rank`).

    Args:
        rows: A^T, `(..., N, w)`.
        momenta: B^T, `(..., N, w)`, B = -(1/lambda) dC/dA with C the fit term including its 1/N.
        depth: Lt, the effective depth.
    """
    check_number("depth", depth)
    rows, gated = _gated(rows, bias)
    momenta = _momenta(momenta, rows)
    kinetic = torch.linalg.matrix_norm(momenta.mT @ gated).square()
    return depth / 2 * kinetic - depth * (momenta * rows).sum((-2, -1))


@where_float64_is
def estimated_rank(rows: Tensor, momenta: Tensor, depth: float, bias: bool = True) -> Tensor:
    """-2 H / Lt, `(...)`: approaches the bottleneck rank from below as Lt grows."""
    return -2 * hamiltonian(rows, momenta, depth, bias) / depth


@where_float64_is
def kinetic_energy(
    velocity: Tensor, rows: Tensor, depth: float, bias: bool = True, gamma: float | Tensor = 0.0
) -> Tensor:
    """1/(2 Lt) ||dA/dp||^2_{K + gamma I}, `(...)`, of (dA/dp)^T `(..., N, w)` as `velocity`."""
    check_number("depth", depth)
    return kernel_norm(velocity, rows, bias, gamma).cost / (2 * depth)


@where_float64_is
def potential_energy(rows: Tensor, depth: float, bias: bool = True, gamma: float | Tensor = 0.0) -> Tensor:
    """Lt/2 ||A||^2_{K + gamma I}, `(...)`. Kinetic less potential energy is the stable Hamiltonian, nearly constant."""
    check_number("depth", depth)
    return depth / 2 * cost_of_identity(rows, bias, gamma).cost


@where_float64_is
def stationarity_residual(
    weights: Sequence[Tensor], momenta: Sequence[Tensor], path: Sequence[Tensor], depth: float, bias: bool = True
) -> Tensor:
    """max_l ||W_l - Lt B_l sigma(A_{l-1})^T||_F / ||W_l||_F, `()`: 0 at a stationary point.

    The Hamiltonian means something from about 0.5 down; above 1 it must not be judged.

    Args:
        weights: W_1 .. W_L, `(w, w)` each, or `(w, w + 1)` with the bias as the last column.
        momenta: B_1^T .. B_L^T, `(N, w)` each, of the layers' outputs.
        path: A_0^T .. A_L^T or A_0^T .. A_{L-1}^T, `(N, w)` each.

    Raises:
        ValueError: for lists of lengths that do not belong together.
    """
    check_number("depth", depth)
    if not len(weights) == len(momenta) or len(path) not in (len(weights), len(weights) + 1) or not len(weights):
        raise ValueError(
            "weights, momenta and path must be of L, L and L or L + 1 layers, got "
            f"{len(weights)}, {len(momenta)} and {len(path)}."
        )
    shares = []
    for weight, momentum, rows in zip(weights, momenta, path[: len(weights)], strict=True):
        rows, gated = _gated(rows, bias)
        check_matrix("weights", weight)
        weight = weight.detach().double()
        expected = depth * _momenta(momentum, rows).mT @ gated
        if weight.shape != expected.shape:
            raise ValueError(f"weights must have shape {tuple(expected.shape)}, got {tuple(weight.shape)}.")
        shares.append(torch.linalg.matrix_norm(weight - expected) / torch.linalg.matrix_norm(weight))
    return torch.stack(shares).amax()


def _gated(rows: Tensor, bias: bool) -> tuple[Tensor, Tensor]:
    """A^T and sigma(A)^T, float64."""
    check_matrix("rows", rows, "(N, w)")
    rows = rows.detach().double()
    gated = rows.relu()
    return rows, torch.nn.functional.pad(gated, (0, 1), value=1.0) if bias else gated


def _squared_norm(matrix: Tensor, gated: Tensor, gamma: float | Tensor) -> tuple[Tensor, Tensor]:
    """||M||^2_{K + gamma I} and ||M - W sigma||_F, M^T given."""
    try:
        gamma = torch.as_tensor(gamma, dtype=torch.float64, device=gated.device)
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(f"gamma must be at least 0 and finite, got {gamma!r}.") from None
    if not bool(((gamma >= 0) & gamma.isfinite()).all()):
        raise ValueError(f"gamma must be at least 0 and finite, got {gamma.tolist()}.")
    members = gated.shape[:-2]
    if gamma.ndim and members and gamma.shape != members:
        raise ValueError(f"gamma must be one number or have shape {tuple(members)}, got {tuple(gamma.shape)}.")
    zero = gamma == 0
    if bool(zero.any()) and not bool(zero.all()):
        raise ValueError(f"gamma must be 0 for all members or positive for all, got {gamma.tolist()}.")
    if bool(zero.all()):
        closest = torch.linalg.pinv(finite_part(gated)) @ matrix  # W^T, (..., w, m)
        residual = torch.linalg.matrix_norm(matrix - gated @ closest)
        return torch.where(_whole(gated), closest.square().sum((-2, -1)), math.nan), residual
    shift = gamma[..., None, None] * torch.eye(gated.shape[-2], dtype=gated.dtype, device=gated.device)
    solved = torch.linalg.solve(gated @ gated.mT + shift, matrix)
    return (matrix * solved).sum((-2, -1)), torch.linalg.matrix_norm(gamma[..., None, None] * solved)


def _whole(matrix: Tensor) -> Tensor:
    """Which members are finite."""
    return matrix.isfinite().all(-1).all(-1)


def _momenta(momenta: Tensor, rows: Tensor) -> Tensor:
    check_matrix("momenta", momenta, "(N, w)")
    if momenta.shape != rows.shape:
        raise ValueError(f"momenta must have the shape of rows, {tuple(rows.shape)}, got {tuple(momenta.shape)}.")
    return momenta.detach().double()
