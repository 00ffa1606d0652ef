"""The spectral rule: mean squared error under linear layers, for any targets (derived here).

Let sigma_i be the singular values of the targets T (K, N), of T less its mean where the outputs have a bias without
penalty (which then is that mean). The optimum is diagonal in the singular vectors of T; its outputs eta_i minimise

    (sigma_i - eta)^2 / (2N) + (L+1)/2 (Lam eta^2)^(1/(L+1)),        Lam the product of all decays

each for itself: (S) of `pipeline.theory._scale` with share sigma^2/N, P = sigma^2 and q = eta/sigma. Hence eta =
max(0, sigma - N sqrt(Lam)) for L = 1; for L >= 2 a component is fitted if Lam < sigma^(2L) / N^(L+1) (L-1)^(L-1) /
L^(2L), else zero, and any component can be stuck at zero by itself. One-hot targets have sigma_k = sqrt(n_k); then the
vectors are the classes themselves, the point has no negative features, and ReLU leaves it as it is: a stationary point
of ReLU layers too. For real targets with L = 1 and bias this is arXiv 2409.04180.
"""

import math
from dataclasses import dataclass
from functools import cached_property, partial

import torch
from torch import Tensor

from pipeline.theory._points import Compact, embed
from pipeline.theory._problem import Problem, number
from pipeline.theory._reference import OPTIMUM, STATIONARY, Reference
from pipeline.theory._scale import Scale, log_product, squared_error_scale
from pipeline.theory._subsets import chosen, describe, group, zeros


@dataclass(frozen=True)
class SpectralOptimum:
    """The optimum of linear layers: its loss, sigma_i of the targets, largest first, eta_i of the outputs, the bias."""

    loss: float
    singular_values: tuple[float, ...]
    outputs: tuple[float, ...]
    bias: tuple[float, ...] | None


def spectral_optimum(
    targets: Tensor, depth: int, weight_decay: float | tuple[float, ...], feature_decay: float, bias: bool = False
) -> SpectralOptimum:
    """The optimum of 1/(2N) ||Z - targets||^2 under `depth` linear layers, for targets (N, K), rows are samples.

    Decays as in `Problem`; the objective of arXiv 2409.04180 has feature_decay = lambda_H / N. Raises ValueError for a
    decay of zero.

    >>> targets = torch.eye(4, dtype=torch.float64).repeat_interleave(10, dim=0)
    >>> round(spectral_optimum(targets, 1, 5e-3, 5e-4, bias=True).loss, 10)
    0.01485
    """
    problem = Problem("mse", "linear", None, depth, weight_decay, feature_decay, bias=bias, targets=targets)
    if not all(problem.decays):
        raise ValueError(f"weight_decay and feature_decay are {problem.decays[1:]} and {feature_decay}, must be > 0")
    spectrum = _Spectrum.of(problem)
    best = [scale if scale is not None and scale.value < zero else None for scale, zero in spectrum.states]
    outputs = tuple(sigma * scale.output if scale else 0.0 for sigma, scale in zip(spectrum.values, best, strict=True))
    value = math.fsum(scale.value if scale else zero for scale, (_, zero) in zip(best, spectrum.states, strict=True))
    return SpectralOptimum(
        value, spectrum.values, outputs, None if spectrum.bias is None else tuple(spectrum.bias.tolist())
    )


def spectral_threshold(singular_value: float, num_samples: int, depth: int) -> float:
    """The product of all decays below which a component of the targets is fitted at the optimum.

    >>> round(spectral_threshold(2.0, 8, 1), 12)  # L = 1: sigma > N sqrt(Lam)
    0.0625
    """
    sigma = number("singular_value", singular_value)
    log_ratio = (depth - 1) * math.log(depth - 1) if depth > 1 else 0.0
    log_threshold = log_ratio - 2 * depth * math.log(depth) - (depth + 1) * math.log(num_samples)
    return math.exp(log_threshold + 2 * depth * math.log(sigma))


def references(problem: Problem) -> tuple[Reference, ...]:
    """The states in which each component of the targets is fitted or at zero.

    Of linear layers; with one-hot targets and without bias, of ReLU layers too. Balanced classes without bias are the
    family `collapsed`.
    """
    classes = problem.targets is None and not problem.bias
    treated = problem.loss == "mse" and (problem.is_linear or classes) and problem.anchor is None
    free = problem.constraint is None or (problem.constraint == "nonnegative" and classes)
    balanced = classes and problem.samples_per_class is not None and problem.depth > 0
    if not treated or not free or balanced or not all(problem.decays):
        return ()
    spectrum = _Spectrum.of(problem)
    states = spectrum.states
    keys = problem.class_sizes if classes else tuple(f"{sigma:.6g}" for sigma in spectrum.values)
    exist = [scale is not None for scale, _ in states]
    best = tuple(scale is not None and scale.value < zero for scale, zero in states)
    kinds = group(keys)
    known = []
    for off in zeros(tuple(kinds.values())) if problem.depth else [(0,) * len(kinds)]:
        kept = chosen(keys, kinds, off)
        if all(has or not keep for has, keep in zip(exist, kept, strict=True)):
            name = _name(problem, keys, kinds, off, kept, best)
            known.append(_reference(problem, spectrum, kept, name, kept == best and problem.is_linear))
    return tuple(known)


def _name(problem: Problem, keys, kinds, off, kept: tuple[bool, ...], best: tuple[bool, ...]) -> str:
    if not any(kept):
        return "zero solution"
    if kept == best and problem.is_linear:
        return "global optimum"
    if all(kept):
        return "collapsed solution" if kept == best else "metastable collapsed solution"
    if problem.targets is None and not problem.bias:
        return describe("classes", kinds, off, lambda size: f"of {size} samples")
    return describe("components", kinds, off, lambda sigma: f"with singular value {sigma}")


def _reference(problem: Problem, spectrum: "_Spectrum", kept: tuple[bool, ...], name: str, best: bool) -> Reference:
    states = spectrum.states
    value = math.fsum(scale.value if keep else zero for keep, (scale, zero) in zip(kept, states, strict=True))
    fitted = sum(kept)
    depth = problem.depth
    return Reference(
        name=name,
        value=value,
        kind=OPTIMUM if best else STATIONARY,
        ranks=(fitted,) * max(2 * depth - 1, 1),
        construct=partial(_construct, problem, spectrum, kept),
        fitted=fitted,
        widths=(max(fitted, 1),) * depth if depth else (problem.num_classes,),
    )


@dataclass(frozen=True, eq=False)
class _Spectrum:
    """sigma_i, largest first, their vectors over samples (N, r) and outputs (K, r), and the bias (K,)."""

    problem: Problem
    values: tuple[float, ...]
    samples: Tensor
    outputs: Tensor
    bias: Tensor | None

    @classmethod
    def of(cls, problem: Problem) -> "_Spectrum":
        targets = problem.target_matrix
        if problem.targets is None and not problem.bias:
            sizes = torch.tensor(problem.class_sizes, dtype=torch.float64)
            roots = tuple(math.sqrt(size) for size in problem.class_sizes)
            return cls(problem, roots, targets / sizes.sqrt(), torch.eye(len(sizes), dtype=torch.float64), None)
        bias = targets.mean(dim=0) if problem.bias else None
        left, values, right = torch.linalg.svd(targets - bias if problem.bias else targets, full_matrices=False)
        kept = values > 1e-12 * max(targets.abs().max().item() * math.sqrt(targets.numel()), 1e-300)
        return cls(problem, tuple(values[kept].tolist()), left[:, kept], right[kept].T, bias)

    @cached_property
    def states(self) -> list[tuple[Scale | None, float]]:
        """Of each component: its stationary point if it has one, and what it costs at zero."""
        number_of = self.problem.num_samples
        return [
            (
                squared_error_scale(
                    sigma**2 / number_of, log_product(self.problem.decays, sigma**2), self.problem.depth
                ),
                sigma**2 / (2 * number_of),
            )
            for sigma in self.values
        ]


def _construct(problem: Problem, spectrum: _Spectrum, kept: tuple[bool, ...], widths, generator, **asked):
    """Every factor diagonal in the singular vectors, with the same decay times singular value^2 for each component."""
    units = torch.tensor([index for index, keep in enumerate(kept) if keep], dtype=torch.int64)
    states = spectrum.states
    energies = torch.tensor([states[unit][0].energy for unit in units.tolist()], dtype=torch.float64)
    roots = [(energies / decay).sqrt() for decay in problem.decays]
    samples, outputs = spectrum.samples[:, units], spectrum.outputs[:, units]
    if problem.depth == 0:
        point = Compact(samples * roots[0] @ outputs.T, (), spectrum.bias)
        return embed(problem, point, widths, generator, fixed_features=True, **asked)
    inner = tuple(root.diag() for root in roots[1:-1])
    point = Compact(samples * roots[0], (*inner, outputs * roots[-1]), spectrum.bias)
    return embed(problem, point, widths, generator, **asked)
