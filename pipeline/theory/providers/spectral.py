"""The spectral rule: mean squared error under linear layers, for any targets (derived here).

Let sigma_i be the singular values of the targets T (K, N), of T less its mean where the outputs have a bias without
penalty (which then is that mean). The optimum is diagonal in the singular vectors of T; its outputs eta_i minimise

    (sigma_i - eta)^2 / (2N) + (L+1)/2 (Lam eta^2)^(1/(L+1)),        Lam the product of all decays

each for itself: (S) of `pipeline.theory._scale` with share sigma^2/N, P = sigma^2 and q = eta/sigma. Hence eta =
max(0, sigma - N sqrt(Lam)) for L = 1; for L >= 2 a component is fitted if Lam < sigma^(2L) / N^(L+1) (L-1)^(L-1) /
L^(2L), else zero, and any component can be stuck at zero by itself. One-hot targets have sigma_k = sqrt(n_k); then the
vectors are the classes themselves, the point has no negative features, and ReLU leaves it as it is: a stationary point
of ReLU layers too. For real targets with L = 1 and bias this is arXiv 2409.04180.

A bias with penalty mu/2 ||b||^2 takes 1/(1+mu) of what outputs leave of the targets' mean, so that the mean over
samples of T - Z counts mu/(1+mu) in the fit. If the mean of T is orthogonal to the deviations from it, as with one-hot
labels of balanced classes, it is a component like the others, with the share mu/(1+mu) sigma_0^2/N; for L = 1 features
have a part in it from mu/(1+mu) = N sqrt(Lam)/sigma_0 on. Optimal for L <= 1 (convex), and for L >= 2 if sigma_0 is the
least: ||T-Z||^2 and the same of the deviations from the means, whose singular values interlace with the eta_i, are at
least what ordered values give (von Neumann), together sum_i (sigma_i - eta_i)^2 with mu/(1+mu) before the last term.
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
    """The optimum of linear layers: its loss, sigma_i of the targets, largest first, eta_i of the outputs, the bias.

    With a penalised bias `mean` says which of the components is that of the mean; None: there is none.
    """

    loss: float
    singular_values: tuple[float, ...]
    outputs: tuple[float, ...]
    bias: tuple[float, ...] | None
    mean: int | None = None


def spectral_optimum(
    targets: Tensor,
    depth: int,
    weight_decay: float | tuple[float, ...],
    feature_decay: float,
    bias: bool = False,
    bias_decay: float = 0.0,
) -> SpectralOptimum:
    """The optimum of 1/(2N) ||Z - targets||^2 under `depth` linear layers, for targets (N, K), rows are samples.

    Decays as in `Problem`; the objective of arXiv 2409.04180 has feature_decay = lambda_H / N. Raises ValueError for a
    decay of zero, and with bias_decay > 0 for targets whose mean is not orthogonal to the deviations from it. With it,
    depth >= 2 and a mean that is not the least component the point is stationary, not proven optimal.

    >>> targets = torch.eye(4, dtype=torch.float64).repeat_interleave(10, dim=0)
    >>> round(spectral_optimum(targets, 1, 5e-3, 5e-4, bias=True).loss, 10)
    0.01485
    """
    problem = Problem("mse", "linear", None, depth, weight_decay, feature_decay, bias, targets, bias_decay=bias_decay)
    if not all(problem.decays):
        raise ValueError(f"weight_decay and feature_decay are {problem.decays[1:]} and {feature_decay}, must be > 0")
    if not _separates(problem):
        raise ValueError(
            f"bias_decay is {bias_decay}, must be 0 unless the targets' mean is orthogonal to the deviations"
        )
    spectrum = _Spectrum.of(problem)
    best = [scale if scale is not None and scale.value < zero else None for scale, zero in spectrum.states]
    outputs = tuple(sigma * scale.output if scale else 0.0 for sigma, scale in zip(spectrum.values, best, strict=True))
    value = math.fsum(scale.value if scale else zero for scale, (_, zero) in zip(best, spectrum.states, strict=True))
    bias = spectrum.bias(tuple(scale is not None for scale in best))
    return SpectralOptimum(
        value, spectrum.values, outputs, None if bias is None else tuple(bias.tolist()), spectrum.mean
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
    if not treated or not free or balanced or not all(problem.decays) or not _separates(problem):
        return ()
    spectrum = _Spectrum.of(problem)
    states = spectrum.states
    keys = problem.class_sizes if classes else spectrum.names
    exist = [scale is not None for scale, _ in states]
    best = tuple(scale is not None and scale.value < zero for scale, zero in states)
    proven = problem.is_linear and spectrum.is_proven
    kinds = group(keys)
    known = []
    for off in zeros(tuple(kinds.values())) if problem.depth else [(0,) * len(kinds)]:
        kept = chosen(keys, kinds, off)
        if all(has or not keep for has, keep in zip(exist, kept, strict=True)):
            name = _name(problem, keys, kinds, off, kept, best, proven)
            known.append(_reference(problem, spectrum, kept, name, kept == best and proven))
    return tuple(known)


def _name(problem: Problem, keys, kinds, off, kept: tuple[bool, ...], best: tuple[bool, ...], proven: bool) -> str:
    if not any(kept):
        return "zero solution"
    if kept == best and proven:
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
    """sigma_i, largest first, and their vectors over samples (N, r) and outputs (K, r); the targets' mean (K,) if there
    is a bias, and which component it is, if it is one."""

    problem: Problem
    values: tuple[float, ...]
    samples: Tensor
    outputs: Tensor
    targets_mean: Tensor | None
    mean: int | None = None

    @classmethod
    def of(cls, problem: Problem) -> "_Spectrum":
        targets = problem.target_matrix
        if problem.targets is None and not problem.bias:
            sizes = torch.tensor(problem.class_sizes, dtype=torch.float64)
            roots = tuple(math.sqrt(size) for size in problem.class_sizes)
            return cls(problem, roots, targets / sizes.sqrt(), torch.eye(len(sizes), dtype=torch.float64), None)
        mean = targets.mean(dim=0) if problem.bias else None
        left, values, right = torch.linalg.svd(targets - mean if problem.bias else targets, full_matrices=False)
        kept = values > _negligible(targets)
        values, left, right = values[kept], left[:, kept], right[kept].T
        own = None if mean is None else math.sqrt(len(targets)) * mean.norm()
        if not problem.bias_decay or own <= _negligible(targets):
            return cls(problem, tuple(values.tolist()), left, right, mean)
        place = int((values > own * (1 - 1e-12)).sum())  # behind equal ones
        values = torch.cat([values[:place], own[None], values[place:]])
        constant, along = torch.full_like(left[:, :1], len(targets) ** -0.5), (mean / mean.norm())[:, None]
        left, right = (
            torch.cat([vectors[:, :place], one, vectors[:, place:]], dim=1)
            for vectors, one in ((left, constant), (right, along))
        )
        return cls(problem, tuple(values.tolist()), left, right, mean, place)

    @property
    def names(self) -> tuple[str, ...]:
        """What tells the components apart."""
        return tuple(
            f"{sigma:.6g}" + (" of the mean" if index == self.mean else "") for index, sigma in enumerate(self.values)
        )

    @property
    def is_proven(self) -> bool:
        """Whether the best state of linear layers is known to be the optimum, see the module."""
        return self.mean is None or self.problem.depth <= 1 or self.mean == len(self.values) - 1

    def bias(self, kept: tuple[bool, ...]) -> Tensor | None:
        """(K,), where the components are fitted or at zero."""
        if self.mean is None:
            return self.targets_mean
        output = self.states[self.mean][0].output if kept[self.mean] else 0.0
        return (1 - output) / (1 + self.problem.bias_decay) * self.targets_mean

    @cached_property
    def states(self) -> list[tuple[Scale | None, float]]:
        """Of each component: its stationary point if it has one, and what it costs at zero."""
        mu, found = self.problem.bias_decay, []
        for index, sigma in enumerate(self.values):
            share = sigma**2 / self.problem.num_samples * (mu / (1 + mu) if index == self.mean else 1.0)
            scale = squared_error_scale(share, log_product(self.problem.decays, sigma**2), self.problem.depth)
            found.append((scale, share / 2))
        return found


def _separates(problem: Problem) -> bool:
    """Whether the components are independent: the bias has no penalty, or the targets' mean is one of them."""
    if not problem.bias_decay:
        return True
    targets, least = problem.target_matrix, _negligible(problem.target_matrix)
    mean = targets.mean(dim=0)
    if math.sqrt(len(targets)) * mean.norm() <= least:
        return True
    return bool(((targets - mean) @ (mean / mean.norm())).norm() <= least)


def _negligible(targets: Tensor) -> float:
    """Singular values of the targets up to this are rounding."""
    return 1e-12 * max(targets.abs().max().item() * math.sqrt(targets.numel()), 1e-300)


def _construct(problem: Problem, spectrum: _Spectrum, kept: tuple[bool, ...], widths, generator, **asked):
    """Every factor diagonal in the singular vectors, with the same decay times singular value^2 for each component."""
    units = torch.tensor([index for index, keep in enumerate(kept) if keep], dtype=torch.int64)
    states = spectrum.states
    energies = torch.tensor([states[unit][0].energy for unit in units.tolist()], dtype=torch.float64)
    roots = [(energies / decay).sqrt() for decay in problem.decays]
    samples, outputs = spectrum.samples[:, units], spectrum.outputs[:, units]
    bias = spectrum.bias(kept)
    if problem.depth == 0:
        point = Compact(samples * roots[0] @ outputs.T, (), bias)
        return embed(problem, point, widths, generator, fixed_features=True, **asked)
    inner = tuple(root.diag() for root in roots[1:-1])
    point = Compact(samples * roots[0], (*inner, outputs * roots[-1]), bias)
    return embed(problem, point, widths, generator, **asked)
