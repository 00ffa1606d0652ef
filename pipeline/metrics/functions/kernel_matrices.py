"""Collapse of kernels, and the kernels of infinitely wide networks of two layers.

Source: Kothapalli & Tirer, arXiv 2406.02105. What differs from their public code: the within- and between-class traces
hold for classes of any sizes (theirs for equal ones), and the derivative kernel of erf is an outer product.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from pipeline.metrics.engine.checks import check_labels, check_matrix, check_num_classes, check_number
from pipeline.runtime.devices import where_float64_is

ACTIVATIONS = ("relu", "erf")
# Share of the kernel's size below which the between-class trace is rounding.
ROUNDING = 64 * torch.finfo(torch.float64).eps


@where_float64_is
def kernel_dnc1(kernel: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """tr(Sigma_W) / tr(Sigma_B) `(...)` of the features whose Gram matrix is `kernel` `(..., N, N)`.

    With s_c, t_c and g the means of K over I_c x I_c, I_c x all and all x all,

        tr(Sigma_W) = tr K / N - sum_c (n_c / N) s_c,    tr(Sigma_B) = mean_c (s_c - 2 t_c + g):

    `dnc1` of the features, for classes of any sizes. Classes without samples are left out; NaN for fewer than two
    classes, for coinciding class means, and for a kernel that is not finite.

    Raises:
        ValueError: for a kernel that is not square, and malformed labels.
    """
    _check_square(kernel)
    check_num_classes(num_classes)
    check_labels(labels, kernel)
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < num_classes:
        raise ValueError(f"labels must lie in 0..{num_classes - 1} for num_classes = {num_classes}.")
    kernel = kernel.detach().double()
    member = one_hot(labels, num_classes).double()
    counts = member.sum(0)
    member, counts = member[:, counts > 0], counts[counts > 0]
    if len(counts) < 2:
        return kernel.new_full(kernel.shape[:-2], math.nan)
    samples = len(labels)
    of_class = kernel @ (member / counts)  # (..., N, C), mean of each row over a class
    within_means = ((member / counts) * of_class).sum(-2)
    to_all = of_class.sum(-2) / samples
    overall = kernel.sum((-2, -1)) / samples**2
    size = kernel.diagonal(dim1=-2, dim2=-1).sum(-1) / samples
    within = (size - (counts / samples * within_means).sum(-1)).clamp(min=0)
    between = (within_means - 2 * to_all + overall[..., None]).mean(-1)
    return torch.where(between > ROUNDING * size, within / between, math.nan)


@where_float64_is
def nngp(rows: Tensor, activation: str, weight_variance: float = 1.0, bias_variance: float = 0.0) -> Tensor:
    """Kernel of the features phi(W x + b) of an infinitely wide layer, `(..., N, N)` float64 (NNGP).

    The entries of W have variance `weight_variance` / d, those of b `bias_variance`; Q_ij = E[phi(s_i) phi(s_j)].

    Args:
        rows: samples `(..., N, d)`.
        activation: "relu" or "erf".

    Raises:
        ValueError: for an unknown activation, and variances that are negative.
    """
    return _kernels(rows, activation, weight_variance, bias_variance)[0]


@where_float64_is
def ntk(rows: Tensor, activation: str, weight_variance: float = 1.0, bias_variance: float = 0.0) -> Tensor:
    """Neural tangent kernel of the network of two layers, `(..., N, N)`: sigma_b^2 + sigma_w^2 (Q + S * Q').

    Q is `nngp`, Q' the kernel of the derivative of the activation, S = sigma_b^2 + sigma_w^2 x_i.x_j / d; arguments and
    errors as there.
    """
    kernel, slopes, inner = _kernels(rows, activation, weight_variance, bias_variance)
    return bias_variance + weight_variance * (kernel + inner * slopes)


@where_float64_is
def derivative_kernel(
    rows: Tensor, activation: str, weight_variance: float = 1.0, bias_variance: float = 0.0
) -> Tensor:
    """Q'_ij = E[phi'(s_i) phi'(s_j)], `(..., N, N)`; arguments and errors as in `nngp`."""
    return _kernels(rows, activation, weight_variance, bias_variance)[1]


def _kernels(rows: Tensor, activation: str, weight_variance: float, bias_variance: float) -> tuple[Tensor, ...]:
    """Q, Q' and S."""
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}, got {activation!r}.")
    for name, value in (("weight_variance", weight_variance), ("bias_variance", bias_variance)):
        check_number(name, value, zero=True)
    check_matrix("rows", rows, "(N, d)")
    exact = rows.detach().double() * math.sqrt(weight_variance / rows.shape[-1])
    inputs = torch.nn.functional.pad(exact, (0, 1), value=math.sqrt(bias_variance))
    inner, lengths = inputs @ inputs.mT, torch.linalg.vector_norm(inputs, dim=-1)
    angle, product = _angles(inputs, lengths), lengths[..., :, None] * lengths[..., None, :]
    if activation == "relu":
        kernel = product * (angle.sin() + (math.pi - angle) * angle.cos()) / (2 * math.pi)
        slopes = torch.where(product > 0, (math.pi - angle) / (2 * math.pi), 0.0)
        return kernel, slopes, inner
    squares = lengths.square()
    # D_i D_j - 4 S_ij^2 as a sum of terms that are not negative; arcsin by it keeps its digits where rows are large.
    root = (1 + 2 * (squares[..., :, None] + squares[..., None, :]) + 4 * (product * angle.sin()).square()).sqrt()
    return 2 / math.pi * torch.atan2(2 * inner, root), 4 / math.pi / root, inner


def _angles(inputs: Tensor, lengths: Tensor) -> Tensor:
    """Angles between all rows, exact for tiny ones (Kahan's formula); arccos of a cosine loses half of the digits."""
    units = inputs / torch.where(lengths > 0, lengths, 1.0)[..., None]
    apart, together = (torch.cdist(units, o, compute_mode="donot_use_mm_for_euclid_dist") for o in (units, -units))
    return 2 * torch.atan2(apart, together)


def _check_square(kernel: Tensor) -> None:
    check_matrix("kernel", kernel, "(N, N)")
    if kernel.shape[-1] != kernel.shape[-2]:
        raise ValueError(f"kernel must be square, got shape {tuple(kernel.shape)}.")
