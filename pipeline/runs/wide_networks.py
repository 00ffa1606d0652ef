"""Networks of two layers, x -> v^T phi(W x + b) + c, trained on a data set beside its kernels.

Source: Kothapalli & Tirer, arXiv 2406.02105 (read): entries of W ~ N(0, 1/d_0), of v ~ N(0, 1.97^2/h), biases from 0,
full-batch gradient descent on the mean of squares with a decay of 1e-6 of everything. The start with small v, in which
features have to move (``mean_field``), is ours.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from pipeline.metrics.functions.kernel_matrices import ACTIVATIONS


class Start(NamedTuple):
    """v ~ N(0, scale^2/h), and the decay of all parameters."""

    scale: float
    decay: float


STARTS = {"net": Start(1.97, 1e-6), "mean_field": Start(0.05 * 1.97, 1e-3)}


def _relu_slope(pre: Tensor) -> Tensor:
    return (pre > 0).to(pre)


def _erf_slope(pre: Tensor) -> Tensor:
    return pre.square().neg_().exp_().mul_(2 / math.sqrt(math.pi))


FUNCTIONS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "relu": (torch.relu, _relu_slope),
    "erf": (torch.erf, _erf_slope),
}
assert set(FUNCTIONS) == set(ACTIVATIONS)


def hidden_features(
    rows: Tensor,
    targets: Tensor,
    activation: str,
    generator: torch.Generator,
    *,
    width: int,
    start: Start,
    lr: float,
    epochs: int,
) -> tuple[Tensor, Tensor]:
    """phi(W x + b) of the rows before and after training, float64 `(N, width)` each; NaN where it diverges.

    Args:
        rows: `(N, d_0)`. targets: `(N,)`.
        activation: "relu" or "erf".
        epochs: steps of gradient descent, each on all rows.
    """
    phi, slope = FUNCTIONS[activation]
    rows, targets = rows.double(), targets.double()
    count, dim = rows.shape
    first = torch.randn(width, dim, generator=generator, dtype=torch.float64) / math.sqrt(dim)
    last = torch.randn(width, generator=generator, dtype=torch.float64) * (start.scale / math.sqrt(width))
    shift, level, keep = torch.zeros_like(last), torch.zeros((), dtype=torch.float64), 1 - lr * start.decay
    before = phi(rows @ first.T)
    for _ in range(epochs):
        pre = torch.addmm(shift, rows, first.T)
        hidden = phi(pre)
        error = (hidden @ last + level - targets) * (2 * lr / count)
        back = slope(pre).mul_(error[:, None]).mul_(last)
        last = keep * last - hidden.T @ error
        level = keep * level - error.sum()
        first = torch.addmm(first, back.T, rows, beta=keep, alpha=-1)
        shift = keep * shift - back.sum(dim=0)
    return before, phi(torch.addmm(shift, rows, first.T))
