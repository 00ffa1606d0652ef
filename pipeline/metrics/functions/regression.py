"""Neural regression collapse: features on the directions of the targets, weights shaped by their covariance.

Source: Andriopoulos, Dong, Guo, Zhao & Ross, arXiv 2409.04180 [read]; rows are samples here. Which gamma NRC3 takes is
corrected: the often copied one minimises a distance that is not normalised, and is not 0 at the exact optimum.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from pipeline.metrics.engine.checks import check_matrix
from pipeline.metrics.engine.statistics import finite_part
from pipeline.runtime.devices import where_float64_is

# Share of the largest eigenvalue of the targets' covariance below which the targets are of lower rank.
RANK_DEFICIENT = 1e-12


class RegressionCollapse(NamedTuple):
    """NRC1 to NRC3 of a layer's features and the last weight, float64 `(...)`; `gamma` is the one of NRC3.

    `reason` says why NRC3 is NaN; None where it is a number.
    """

    nrc1: Tensor
    nrc2: Tensor
    nrc3: Tensor
    gamma: Tensor
    reason: str | None


class SelfDuality(NamedTuple):
    """NRC3 at `gamma`, `(...)` each; `reason` says why it is NaN, None where it is a number."""

    value: Tensor
    gamma: Tensor
    reason: str | None


@where_float64_is
def regression_collapse(
    features: Tensor, weight: Tensor, targets: Tensor, gamma: float | None = None, centred: bool = True
) -> RegressionCollapse:
    """NRC1, NRC2 and NRC3 of features `(..., M, d)` that enter the last weight `(..., n, d)`, targets `(M, n)`.

    Args:
        gamma: of NRC3; None: where it is least (`nrc3`). Under a penalty on the features it is the product of decays.
        centred: whether the principal components of NRC1 are those about the mean of the features.
    """
    value, where, reason = nrc3(weight, targets, gamma)
    first = nrc1(features, weight.shape[-2], centred)
    return RegressionCollapse(first, nrc2(features, weight), value, where, reason)


@where_float64_is
def nrc1(features: Tensor, dimensions: int, centred: bool = True) -> Tensor:
    """Mean squared distance of the features, at length one, to the span of their first n principal components, `(...)`.

    Args:
        features: `(..., M, d)`, rows of norm zero do not count.
        dimensions: n, the number of targets.
        centred: whether the components are those about the mean of the features.

    Raises:
        ValueError: for fewer than one dimension, or more than the features have.
    """
    check_matrix("features", features, "(M, d)")
    if isinstance(dimensions, bool) or not isinstance(dimensions, int) or not 1 <= dimensions <= features.shape[-1]:
        raise ValueError(f"dimensions must be an int in 1..{features.shape[-1]}, got {dimensions!r}.")
    rows = features.detach().double()
    spread = rows - rows.mean(-2, keepdim=True) if centred else rows
    components = torch.linalg.svd(finite_part(spread), full_matrices=False).Vh[..., :dimensions, :]
    return _off_span(rows, components)


@where_float64_is
def nrc2(features: Tensor, weight: Tensor) -> Tensor:
    """Mean squared distance of the features, at length one, to the row space of the weight `(..., n, d)`, `(...)`.

    NaN for a weight that is zero.
    """
    check_matrix("features", features, "(M, d)")
    check_matrix("weight", weight, "(n, d)")
    _, values, directions = torch.linalg.svd(finite_part(weight.detach().double()), full_matrices=False)
    rounding = max(weight.shape[-2:]) * torch.finfo(torch.float64).eps * values[..., :1]
    spanning = torch.where((values > rounding)[..., None], directions, 0.0)
    found = _off_span(features.detach().double(), spanning)
    return torch.where(values[..., 0] > 0, found, math.nan)


def _off_span(rows: Tensor, span: Tensor) -> Tensor:
    """Mean over rows of what an orthonormal basis `(..., n, d)` leaves of them at length one, squared."""
    lengths = torch.linalg.vector_norm(rows, dim=-1, keepdim=True)
    units = rows / torch.where(lengths > 0, lengths, 1.0)
    left = (units - units @ span.mT @ span).square().sum(-1)
    return left.sum(-1) / (lengths > 0).sum((-2, -1))


@where_float64_is
def nrc3(weight: Tensor, targets: Tensor, gamma: float | None = None) -> SelfDuality:
    """|| W W^T / ||.||_F - (S - sqrt(gamma) I) / ||.||_F ||_F^2, S the symmetric root of the targets' covariance.

    Args:
        weight: `(..., n, d)`.
        targets: `(M, n)`; their covariance is divided by M.
        gamma: in [0, lambda_min) of the covariance; None: where the value is least. With G = W W^T that is
            sqrt gamma = (tr G tr S^2 - tr(GS) tr S) / (tr G tr S - n tr(GS)) where this lies inside and is a minimum;
            both ends are compared with it, the upper one as a limit.

    Returns:
        NaN with a reason for n = 1, for targets of lower rank and for a weight that is zero.

    Raises:
        ValueError: for a gamma outside, and matrices that do not belong together.
    """
    check_matrix("weight", weight, "(n, d)")
    check_matrix("targets", targets, "(M, n)")
    if targets.ndim != 2 or targets.shape[1] != weight.shape[-2]:
        raise ValueError(f"targets must have shape (M, {weight.shape[-2]}), got {tuple(targets.shape)}.")
    goals = targets.detach().double()
    spread = goals - goals.mean(0)
    values, vectors = torch.linalg.eigh(spread.mT @ spread / len(goals))
    gram = weight.detach().double() @ weight.detach().double().mT
    reason = _why_undefined(values)
    if reason is not None:
        nothing = gram.new_full(gram.shape[:-2], math.nan)
        return SelfDuality(nothing, nothing, reason)
    undefined = ~((gram != 0).any(-1).any(-1) & gram.isfinite().all(-1).all(-1))
    reason = "the weight is zero or not finite" if bool(undefined.any()) else None
    root, least = (vectors * values.sqrt()) @ vectors.mT, float(values[0])
    if gamma is not None:
        if not 0 <= gamma < least:
            raise ValueError(f"gamma must lie in [0, {least:.6g}), below the targets' least variance, got {gamma!r}.")
        shift = torch.full_like(gram[..., 0, 0], math.sqrt(gamma))
        return _where_defined(_distance(gram, root, shift), shift, undefined, reason)
    candidates = torch.stack(_candidates(gram, root, math.sqrt(least)))
    found = torch.stack([_distance(gram, root, shift) for shift in candidates])
    best = found.argmin(0, keepdim=True)
    return _where_defined(found.gather(0, best)[0], candidates.gather(0, best)[0], undefined, reason)


def _where_defined(value: Tensor, shift: Tensor, undefined: Tensor, reason: str | None) -> SelfDuality:
    blank = [torch.where(undefined, math.nan, own) for own in (value, shift.square())]
    return SelfDuality(*blank, reason)


def _why_undefined(variances: Tensor) -> str | None:
    if len(variances) == 1:
        return "with one target both matrices are numbers, which are equal at length one whatever they are"
    if not variances[0] > RANK_DEFICIENT * variances[-1]:
        return "the targets are of lower rank: no gamma lies below their least variance"
    return None


def _candidates(gram: Tensor, root: Tensor, largest: float) -> list[Tensor]:
    """Ends of the interval of sqrt gamma, and the stationary point where it lies inside (else an end again)."""
    size = gram.shape[-1]
    of_gram, of_root = _trace(gram), _trace(root)
    cross, square = _trace(gram @ root), _trace(root @ root)
    inside = (of_gram * square - cross * of_root) / (of_gram * of_root - size * cross)
    low, high = torch.zeros_like(of_gram), torch.full_like(of_gram, largest)
    return [low, torch.where((inside > 0) & (inside < largest), inside, low), high]


def _trace(matrix: Tensor) -> Tensor:
    return matrix.diagonal(dim1=-2, dim2=-1).sum(-1)


def _distance(gram: Tensor, root: Tensor, shift: Tensor) -> Tensor:
    target = root - shift[..., None, None] * torch.eye(len(root), dtype=root.dtype, device=root.device)
    unit = [matrix / torch.linalg.matrix_norm(matrix, keepdim=True) for matrix in (gram, target)]
    return (unit[0] - unit[1]).square().sum((-2, -1))


@where_float64_is
def explained_variance(features: Tensor, components: int = 5) -> Tensor:
    """Shares of the variance of features `(..., M, d)` along their first principal components, `(..., components)`.

    Zero beyond the number of features; NaN where all rows are equal.
    """
    check_matrix("features", features, "(M, d)")
    rows = features.detach().double()
    squares = torch.linalg.svdvals(finite_part(rows - rows.mean(-2, keepdim=True))).square()
    shares = (squares / squares.sum(-1, keepdim=True))[..., :components]
    return torch.nn.functional.pad(shares, (0, components - shares.shape[-1]))


@where_float64_is
def r_squared(outputs: Tensor, targets: Tensor) -> Tensor:
    """1 - sum ||y - f||^2 / sum ||y - ybar||^2 of outputs `(..., M, n)`, all targets `(M, n)` together, `(...)`."""
    check_matrix("outputs", outputs, "(M, n)")
    if targets.shape != outputs.shape[-2:]:
        raise ValueError(f"targets must have shape {tuple(outputs.shape[-2:])}, got {tuple(targets.shape)}.")
    goals = targets.detach().double()
    left = (goals - outputs.detach().double()).square().sum((-2, -1))
    return 1 - left / (goals - goals.mean(0)).square().sum()
