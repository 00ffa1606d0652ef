"""Points of the DUFM from small ones: factors on as few units as they need, moved into networks of any width.

What a compact point leaves open is drawn: layers without activation between them may be rotated, and a unit behind a
ReLU may be spread over several with positive entries, which ReLU leaves as they are.
"""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from pipeline.theory._problem import DufmFactors, Problem, integer


class Compact(NamedTuple):
    """A point on as few units as it needs: rows of features (K, c_1), one per class, or (N, c_1), and W_1..W_L."""

    features: Tensor
    weights: tuple[Tensor, ...]
    bias: Tensor | None = None

    @property
    def widths(self) -> tuple[int, ...]:
        """c_1..c_L; for L = 0 that of the features."""
        return tuple(weight.shape[1] for weight in self.weights) or (self.features.shape[1],)


def balanced_factors(compact: Compact, repeats: int, decays: Sequence[float], energy: float) -> Compact:
    """The same directions, scaled so that decay ||factor||_F^2 is `energy` for every factor; zero where that is.

    `repeats`: how many samples each row of features stands for. `decays`: of H_1, W_1, ..., W_L.
    """
    norms = [repeats * float(compact.features.square().sum()), *(float(w.square().sum()) for w in compact.weights)]
    scales = [math.sqrt(energy / decay / norm) for decay, norm in zip(decays, norms, strict=True)]
    weights = tuple(scale * weight for scale, weight in zip(scales[1:], compact.weights, strict=True))
    return Compact(scales[0] * compact.features, weights)


def direct_sum(parts: Sequence[Compact]) -> Compact:
    """Groups of classes side by side, each on units of its own."""
    depth = len(parts[0].weights)
    weights = tuple(torch.block_diag(*(part.weights[layer] for part in parts)) for layer in range(depth))
    return Compact(torch.block_diag(*(part.features for part in parts)), weights)


def nothing(classes: int, depth: int) -> Compact:
    """A group of classes at zero, which needs no unit."""
    inner = (torch.zeros(0, 0, dtype=torch.float64),) * (depth - 1)
    ends = torch.zeros(classes, 0, dtype=torch.float64)
    return Compact(ends, (*inner, ends))


def split(means: Tensor) -> tuple[Tensor, Tensor]:
    """Rows (classes, rank) and W (units, rank) with W rows^T = means (units, classes) and equal singular values.

    The pair costs least among all products that give these means: sum of the singular values for each factor.
    """
    left, values, right = torch.linalg.svd(means.double(), full_matrices=False)
    kept = values > 1e-12 * values.max()
    roots = values[kept].sqrt()
    return right[kept].T * roots, left[:, kept] * roots


def embed(
    problem: Problem,
    compact: Compact,
    widths: Sequence[int],
    generator: torch.Generator,
    *,
    nonnegative_features: bool | None = None,
    fixed_features: bool = False,
) -> DufmFactors:
    """A random point of a network of these widths that does what the compact one does, at the same cost, float64.

    `nonnegative_features` (default: as the problem's constraint) keeps the units of H_1 apart with entries >= 0, which
    makes features non-negative if the compact ones are. `fixed_features`: the features are the outputs, L = 0, and
    stay as they are. Raises ValueError for a wrong number of widths, one that is too small, and non-negative features
    asked of a point that has negative ones.
    """
    needed, device = compact.widths, generator.device
    if not isinstance(widths, Iterable) or len(widths := tuple(widths)) != len(needed):
        raise ValueError(f"widths is {widths!r}, must be the input dimensions of W_1..W_L, {len(needed)} integers")
    first, *hidden = (integer("widths", width, max(least, 1)) for width, least in zip(widths, needed, strict=True))
    compact = Compact(
        compact.features.to(device),
        tuple(weight.to(device) for weight in compact.weights),
        None if compact.bias is None else compact.bias.to(device),
    )
    frame = _frame(problem, compact, first, generator, nonnegative_features, fixed_features)
    hidden_frame = orthonormal_frame if problem.is_linear else nonnegative_frame
    frames = [frame, *(hidden_frame(w, c, generator) for w, c in zip(hidden, needed[1:], strict=True))]
    outputs = torch.eye(compact.weights[-1].shape[0] if compact.weights else 0, dtype=torch.float64, device=device)
    weights = tuple(
        after @ weight @ before.T
        for before, weight, after in zip(frames, compact.weights, [*frames[1:], outputs], strict=False)
    )
    labels = problem.labels.to(device)
    rows = compact.features @ frame.T
    return DufmFactors(rows if len(rows) == problem.num_samples else rows[labels], labels, weights, compact.bias)


def _frame(
    problem: Problem,
    compact: Compact,
    width: int,
    generator: torch.Generator,
    nonnegative: bool | None,
    fixed: bool,
) -> Tensor:
    """What takes the compact features to `width` entries."""
    units = compact.features.shape[1]
    if fixed:
        integer("widths", width, units, units)
        return torch.eye(units, dtype=torch.float64, device=generator.device)
    if nonnegative is None:
        nonnegative = problem.constraint in ("nonnegative", "nonnegative_sphere")
    if not nonnegative:
        return orthonormal_frame(width, units, generator)
    if (compact.features < 0).any():
        raise ValueError("nonnegative_features is True, but this point has no non-negative features")
    return nonnegative_frame(width, units, generator)


def orthonormal_frame(width: int, units: int, generator: torch.Generator) -> Tensor:
    """Random orthonormal columns (width, units)."""
    free = torch.randn(width, units, dtype=torch.float64, device=generator.device, generator=generator)
    return torch.linalg.qr(free).Q


def nonnegative_frame(width: int, units: int, generator: torch.Generator) -> Tensor:
    """Orthonormal columns (width, units) with disjoint supports, at least one row each, and positive entries there."""
    device = generator.device
    frame = torch.zeros(width, units, dtype=torch.float64, device=device)
    if not units:
        return frame
    owner = torch.arange(width, device=device) % units
    owner = owner[torch.randperm(width, device=device, generator=generator)]
    entries = 0.5 + torch.rand(width, dtype=torch.float64, device=device, generator=generator)
    frame[torch.arange(width, device=device), owner] = entries
    return frame / frame.norm(dim=0)
