"""Data that are vectors: float32 rows (N, d, 1, 1), with settings that all such sets share.

Rows enter a network as they are, or standardised by the training rows that are left once classes and samples are
chosen. What is drawn comes in blocks of a fixed number of rows, so that the rows of a smaller set are the first ones of
a larger set of the same seed.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.data.images import DataError
from pipeline.data.registry import Request
from pipeline.runtime.memory import require_memory
from pipeline.runtime.settings import knob

STANDARDIZE = ("none", "center", "global", "features")
BLOCK = 256
"""Rows that are drawn at once."""


@dataclass(frozen=True)
class VectorSettings:
    """Of all sets of vectors."""

    standardize: str = knob(
        "none",
        "none, or by the training rows: center (minus their mean), global (minus the mean and over the std of all "
        "entries), features (each coordinate to mean 0 and std 1)",
        choices=STANDARDIZE,
    )


@dataclass(frozen=True)
class DrawnSettings(VectorSettings):
    """Of sets of vectors that are drawn from the seed."""

    num_classes: int = knob(2, "K, classes", ge=2)
    dim: int = knob(16, "d, coordinates of a vector", ge=1)
    test: int = knob(1000, "test rows (of the mixture: of each class)", ge=1)


def drawn_classes(request: Request) -> tuple[str, ...]:
    """``0`` .. ``K-1``."""
    return tuple(str(label) for label in range(request.settings.num_classes))


def require_room(rows: int, settings: DrawnSettings) -> None:
    """Raise an error if so many rows cannot fit into memory: of ``data.dim``, in float64 while they are drawn."""
    require_memory(8 * rows * settings.dim, f"{rows} rows of data.dim={settings.dim} and their labels")


def as_rows(vectors: Tensor) -> Tensor:
    """(N, d) of any dtype as the float32 rows (N, d, 1, 1) of a split."""
    return vectors.float().reshape(*vectors.shape, 1, 1)


def normal_rows(count: int, dim: int, randomness: torch.Generator) -> Tensor:
    """Standard normal rows ``(count, dim)`` float64; the first ones do not depend on how many follow."""
    blocks = [torch.randn(BLOCK, dim, generator=randomness, dtype=torch.float64) for _ in range(-(-count // BLOCK))]
    return torch.cat(blocks)[:count].clone()


def scaling(train: Tensor, how: str) -> Callable[[Tensor], Tensor]:
    """What `VectorSettings.standardize` asks for, as a function of float32 rows, fixed by the training rows.

    Moments are taken in float64, stds over the population. A std of 0 divides by 1: what is constant becomes zeros.
    """
    if how == "none":
        return lambda rows: rows
    exact = train.double()
    shift = exact.mean() if how == "global" else exact.mean(dim=0)
    scale = torch.ones((), dtype=torch.float64)
    if how != "center":
        scale = exact.std(correction=0) if how == "global" else exact.std(dim=0, correction=0)
        scale = torch.where(scale > 1e-12 * exact.abs().amax(), scale, 1.0)
    return lambda rows: ((rows.double() - shift) / scale).float()


def refuse_narrow(request: Request, needed: int, why: str) -> None:
    """Raise DataError where ``data.dim`` has fewer coordinates than are needed."""
    if request.settings.dim < needed:
        raise DataError(f"data.dim={request.settings.dim} is too small {why}; allowed: an integer >= {needed}.")
