"""Directions of largest margin of each class by itself, through the origin.

Two-layer ReLU networks from a small start end in them on orthogonally separable rows (arXiv 2510.21078, read), where
inner products are positive within classes and at most zero between them: the rows of other classes then bind nothing.
"""

import numpy as np
import torch
from torch import Tensor

from pipeline.theory._problem import matrix

FIRST, MORE = 200, 100
"""Rows of a class that are looked at to begin with, and that are added where others have a smaller margin."""
TOLERANCE = 1e-9
"""Relative shortfall of a margin that counts as none."""


def max_margin_directions(rows: Tensor, labels: Tensor) -> Tensor:
    """Unit w_k with the largest min of w_k.x over the rows of class k, float64 (K, d).

    It is the direction of the point of their convex hull that is nearest to 0 (derived: duality), and NaN where 0
    belongs to the hull, so that no w has a positive product with all rows.

    Args:
        rows: (N, d). labels: (N,), integers from 0; every class up to the largest has a row.

    Raises:
        ValueError: naming the argument.

    >>> found = max_margin_directions(torch.tensor([[1.0, 1.0], [1.0, -1.0]]), torch.tensor([0, 0]))
    >>> round(float(found[0, 0]), 9)
    1.0
    """
    rows = matrix("rows", rows)
    if labels.shape != rows.shape[:1] or labels.is_floating_point():
        raise ValueError(
            f"labels of shape {tuple(labels.shape)} do not go with {len(rows)} rows; allowed: (N,) integers."
        )
    counts = torch.bincount(labels)
    if not (counts > 0).all():
        raise ValueError(f"labels leave out class {counts.argmin()}; allowed: every class up to the largest has a row.")
    return torch.stack([_direction(rows[labels == label].numpy()) for label in range(len(counts))])


def _direction(rows: np.ndarray) -> Tensor:
    """Of the rows (n, d) of a class; those that bind are found bit by bit."""
    scale = np.linalg.norm(rows, axis=1).max() or 1.0
    rows = rows / scale
    chosen = np.arange(min(FIRST, len(rows)))
    while True:
        nearest = _nearest_to_zero(rows[chosen])
        squared = float(nearest @ nearest)
        if squared <= TOLERANCE**2:
            return torch.full((rows.shape[1],), torch.nan, dtype=torch.float64)
        products = rows @ nearest
        short = np.flatnonzero(products < (1 - TOLERANCE) * squared - TOLERANCE)
        short = np.setdiff1d(short[np.argsort(products[short])][:MORE], chosen)
        if not len(short):
            return torch.from_numpy(nearest / np.sqrt(squared))
        chosen = np.concatenate([chosen, short])


def _nearest_to_zero(rows: np.ndarray) -> np.ndarray:
    """The point (d,) of the convex hull of the rows (n, d) that is nearest to 0.

    Non-negative least squares: over a >= 0 the optimum of ||rows^T a||^2 + (1 - sum a)^2 is a multiple of the weights
    that are sought, because for a = s b with sum b = 1 it is m^2/(1 + m^2) at the best s, and m = ||rows^T b||.
    """
    from scipy.optimize import nnls  # here: half a second that runs without it need not wait for

    system = np.concatenate([rows.T, np.ones((1, len(rows)))])
    weights, _ = nnls(system, np.eye(len(system))[-1], maxiter=30 * len(rows))
    return rows.T @ (weights / weights.sum())
