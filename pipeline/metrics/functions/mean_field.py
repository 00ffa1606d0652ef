"""Collapse of mean-field networks of three layers, f(x) = gamma W^T h(x), h(x) = 1/N_1 sum_j a_j phi(u_j^T x).

Source: Wu & Mondelli, arXiv 2501.19104.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.metrics.engine.checks import check_features, check_matrix, check_number
from pipeline.metrics.engine.inputs import kept_classes
from pipeline.metrics.engine.settings import MeasureSettings
from pipeline.metrics.engine.statistics import ClassStatistics
from pipeline.runtime.devices import where_float64_is


@where_float64_is
def nc1_wm(features: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Within-class over total variation, `(...)`: dnc1 / (1 + dnc1) for classes of one size, 0 at collapse.

    sum ||z - mu_c||^2 / sum ||z - mu_G||^2 of features `(..., N, d)` under int64 labels `(N,)`; NaN if all rows are
    equal.
    """
    check_features(features, labels, num_classes)
    found = ClassStatistics.from_features(features, labels, num_classes)
    found = found.counting(kept_classes(MeasureSettings(), found)[0])
    within = found.scatter.sum(-1)
    between = (found.counts * found.centred_means.square().sum(-1)).sum(-1)
    return within / (within + between)


@where_float64_is
def mean_field_balancedness(neurons: Tensor, weight: Tensor) -> Tensor:
    """||E a a^T - c W W^T||_op / ||E a a^T||_op with the c of least squares, `(...)`: 0 is balanced.

    At points stationary in a and W, lambda_rho E[a a^T] - lambda_W W W^T = I / beta: balanced without noise, unbalanced
    with noise (of temperature 1 / beta) or with W frozen.

    Args:
        neurons: a_j, `(..., N_1, p)`.
        weight: W, `(..., p, q)`.
    """
    check_matrix("neurons", neurons, "(N_1, p)")
    check_matrix("weight", weight, "(p, q)")
    if neurons.shape[-1] != weight.shape[-2]:
        raise ValueError(
            f"weight must have {neurons.shape[-1]} rows, the width of neurons, got shape {tuple(weight.shape)}."
        )
    neurons, weight = neurons.detach().double(), weight.detach().double()
    moments, gram = neurons.mT @ neurons / neurons.shape[-2], weight @ weight.mT
    share = (moments * gram).sum((-2, -1)) / gram.square().sum((-2, -1))
    return torch.linalg.matrix_norm(moments - share[..., None, None] * gram, ord=2) / torch.linalg.matrix_norm(
        moments, ord=2
    )


@where_float64_is
def mean_field_features(hidden: Tensor, targets: Tensor, weight: Tensor, decay: float, gamma: float = 1.0) -> Tensor:
    """Features `(n, p)` of a network that is stationary in a, given u and W, exactly.

    vec H = gamma (K_u / n kron W) (gamma^2 K_u / n kron W^T W + lambda_rho I)^-1 vec Y with K_u = phi(UX)^T phi(UX) /
    N_1; solved in the eigenbases of K_u and W^T W.

    Args:
        hidden: phi(u_j^T x_i), `(n, N_1)`.
        targets: Y^T, `(n, q)`.
        weight: W, `(p, q)`.
        decay: lambda_rho, positive.
    """
    check_number("decay", decay)
    hidden, targets, weight = (tensor.detach().double() for tensor in (hidden, targets, weight))
    of_rows, rows = torch.linalg.eigh(hidden @ hidden.mT / (hidden.shape[1] * len(hidden)))
    of_outputs, outputs = torch.linalg.eigh(weight.mT @ weight)
    pairs = of_rows.clamp(min=0)[:, None] * of_outputs.clamp(min=0)
    shares = of_rows.clamp(min=0)[:, None] / (gamma**2 * pairs + decay)
    return gamma * rows @ (shares * (rows.mT @ targets @ outputs)) @ outputs.mT @ weight.mT
