"""What directions drawn evenly from a sphere give: the yardstick of hyperspherical uniformity."""

from __future__ import annotations

import math

import torch

from pipeline.metrics.engine.pairs import Moments


def sphere_kernel_log(dim: int) -> Moments:
    """Mean and variance of -log ||x - y|| for x, y uniform on the unit sphere of R^d (derived).

    -1/2 (2 log 2 + psi((d-1)/2) - psi(d-1)) and 1/4 (psi'((d-1)/2) - psi'(d-1)): what `kernel_log_mean` and
    `kernel_log_var` of unstructured class means come to.

    Raises:
        ValueError: for a dim below 2.
    """
    if isinstance(dim, bool) or not isinstance(dim, int) or dim < 2:
        raise ValueError(f"dim must be an int of at least 2, got {dim!r}.")
    half, whole = (torch.tensor(value, dtype=torch.float64) for value in ((dim - 1) / 2, float(dim - 1)))
    mean = -(2 * math.log(2) + torch.digamma(half) - torch.digamma(whole)) / 2
    return Moments(mean, (torch.polygamma(1, half) - torch.polygamma(1, whole)) / 4)
