"""The scale rule: what a point costs whose factors are scaled in the cheapest way.

Fix the directions of all L + 1 factors, let q >= 0 be the scale of the outputs and P q^2 the product of the squared
norms of the factors (the features' over all samples). By the inequality of arithmetic and geometric means the cheapest
scaling gives every factor the same decay ||factor||^2 = E = (Lam P q^2)^(1/(L+1)), Lam the product of all decays, so

    value(q) = fit(q) + (L+1)/2 (Lam P q^2)^(1/(L+1))                                                               (S)

Derived here; reference values are its minima over q > 0, or q = 0. Parts whose fits add up cost the sum of their own.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


class Scale(NamedTuple):
    """A stationary point of (S) with q > 0: value, fit, output scale q and energy E."""

    value: float
    fit: float
    output: float
    energy: float


def squared_error_scale(share: float, log_product: float, depth: int) -> Scale | None:
    """The minimum of share (1-q)^2/2 + (L+1)/2 (C q^2)^(1/(L+1)) at q > 0, log C given; None where there is none.

    It is a local minimum: zero, share/2, may cost less. Stationary where (1-q) q^((L-1)/(L+1)) = C^(1/(L+1)) / share;
    Newton's method on p = 1 - q from below, as in `pipeline.theory.providers.collapsed`.
    """
    if depth == 0:
        decay = math.exp(log_product)
        output = share / (share + decay)
        return _scale(share * (1 - output) ** 2 / 2, output, decay * output**2, depth)
    log_scale = log_product / (depth + 1) - math.log(share)
    exponent, fold = (depth - 1) / (depth + 1), (depth - 1) / (2 * depth)
    highest = (1 - fold) * fold**exponent if depth > 1 else 1.0
    if log_scale >= math.log(highest):
        return None
    scale = math.exp(log_scale)
    misfit = scale
    for _ in range(200):  # tens of steps next to the fold, else five
        image = scale * (1 - misfit) ** -exponent
        slope = 1 - exponent * image / (1 - misfit)
        step = (image - misfit) / slope if slope > 0 else 0.0
        misfit += step
        if step <= 1e-15 * misfit:
            break
    # The energy is C^(1/(L+1)) q^(2/(L+1)), by stationarity share p q.
    return _scale(share * misfit**2 / 2, 1 - misfit, share * misfit * (1 - misfit), depth)


def general_scale(
    fit: Callable[[float], float], slope: Callable[[Tensor], Tensor], log_product: float, depth: int
) -> Scale | None:
    """The minimum of fit(q) + (L+1)/2 (C q^2)^(1/(L+1)) at the largest stationary q > 0; None where there is none.

    `slope` gives -fit'(q) >= 0 of a vector of q. Stationary where -fit'(q) q^((L-1)/(L+1)) = C^(1/(L+1)); the left side
    falls at a minimum. All of 1e-12 < q < 1e6 is searched: a second, smaller root is a maximum, and scales beyond 100
    occur (polygons).
    """
    exponent, level = (depth - 1) / (depth + 1), log_product / (depth + 1)

    def excess(q: Tensor) -> Tensor:
        return slope(q).log() + exponent * q.log() - level

    grid = torch.logspace(-12, 6, 1441, dtype=torch.float64)
    above = excess(grid) > 0
    falls = (above[:-1] & ~above[1:]).nonzero()
    if not len(falls):
        return None
    low, high = grid[falls[-1]], grid[falls[-1] + 1]
    for _ in range(20):  # forty ways at once: ten rounds come to neighbouring doubles
        inner = low + (high - low) * torch.linspace(0, 1, 41, dtype=torch.float64)
        above = excess(inner) > 0
        last = int(above.nonzero()[-1]) if above.any() else 0
        new_low, new_high = inner[last : last + 1], inner[min(last + 1, 40) :][:1]
        if new_high - new_low >= high - low or new_high - new_low <= 1e-15 * new_low:
            break
        low, high = new_low, new_high
    output = float(new_low)
    energy = math.exp((log_product + 2 * math.log(output)) / (depth + 1))
    return _scale(fit(output), output, energy, depth)


def _scale(fit: float, output: float, energy: float, depth: int) -> Scale:
    return Scale(fit + (depth + 1) / 2 * energy, fit, output, energy)


def log_product(decays: tuple[float, ...], *norms: float) -> float:
    """log of the product of the decays and the squared norms, which may be too small for a double.

    Raises ValueError where a decay is zero: then smaller factors cost ever less, and nothing has a least value.
    """
    if not min(decays) > 0:
        raise ValueError(f"a decay is {min(decays):g}, must be positive for a value in closed form")
    return math.fsum(map(math.log, (*decays, *norms)))
