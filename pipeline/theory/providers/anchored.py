"""Features that are drawn to given ones, mean squared error with one layer (arXiv 2210.16658).

    1/(2N) ||W H - Y||^2 + lambda_W/2 ||W||^2 + lambda_H/2 ||H||^2 + strength/2 ||H - H_0||^2

The paper's lambda_W/(2K), lambda_H/(2N), beta/(2N) are lambda_W/K, lambda_H/N, beta/N here. Its minimum has no closed
form, but

* without the anchor nothing is below the collapsed optimum, so nothing is with it: a bound, for every objective;
* where H_0 is a minimiser without anchor, it is one with it;
* close to such an H_0 = H* the minimiser answers dH = F dH_0 (derived here for every strength, the paper has its first
  order): with beta = N strength, g = sqrt(n lambda_H / lambda_W), c = K sqrt(n lambda_W lambda_H), s = 2 N lambda_H
  (1 - c) the singular values of the block of a class with itself are

      beta/(beta+g)              K (n-1)         deviations within the class, in the span of the means
      beta/(beta + N lambda_H)   (d-K) (n-1)     deviations within the class, outside
      1                          d - K           its mean, outside
      beta/(beta+2s)             1               its mean, along itself
      (beta+s)/(beta+2s)         K - 1           its mean, along the others

  and that with another class has rank 1 and singular value s/(beta+2s).

Progressive feedforward collapse (arXiv 2405.00985), mu/2 sum_t ||H_{t+1} - H_t||^2 over T steps from H_0, has a
straight path, so it is this model with lambda_H = 0 and strength mu/T (derived here).
"""

import math
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from pipeline.theory._problem import DufmFactors, Problem, integer, number, positive
from pipeline.theory._reference import BOUND, OPTIMUM, Reference
from pipeline.theory._references import references as all_references

_SAME = 1e-13  # relative: H_0 costs the optimum


@dataclass(frozen=True)
class AnchoredResponse:
    """Singular values of dH/dH_0 at a collapsed optimum.

    within: (value, multiplicity) of the block of a class with itself, in the order of this module's list; those of
    multiplicity 0 stand there too. between: the one value of a block of two classes.
    """

    within: tuple[tuple[float, int], ...]
    between: float


def anchored_response(
    num_classes: int,
    samples_per_class: int,
    dim: int,
    weight_decay: float,
    feature_decay: float,
    strength: float,
) -> AnchoredResponse:
    """How the minimiser answers a change of the anchor, at an anchor that is a collapsed optimum itself.

    Decays and strength as in this module's objective. Raises ValueError for a strength below 0 (at 0 nothing holds the
    minimiser), fewer features than classes, and decays at which the optimum is zero.

    >>> response = anchored_response(4, 10, 10, .05 / 4, .02 / 40, 100 / 40)  # the paper's .05, .02, 100
    >>> [round(value, 10) for value, _ in response.within], round(response.between, 10)
    ([0.9937151933, 0.99980004, 1.0, 0.9992258979, 0.999612949], 0.000387051)
    """
    classes, samples = integer("num_classes", num_classes, 2), integer("samples_per_class", samples_per_class, 1)
    width = integer("dim", dim, classes)
    weight, feature = positive("weight_decay", weight_decay), positive("feature_decay", feature_decay)
    total = classes * samples
    beta = total * positive("strength", strength)
    misfit = classes * math.sqrt(samples * weight * feature)
    if misfit >= 1:
        raise ValueError(f"weight_decay and feature_decay are {weight} and {feature}, so large that zero is optimal")
    ratio, pull = math.sqrt(samples * feature / weight), 2 * total * feature * (1 - misfit)
    within = (
        (beta / (beta + ratio), classes * (samples - 1)),
        (beta / (beta + total * feature), (width - classes) * (samples - 1)),
        (1.0, width - classes),
        (beta / (beta + 2 * pull), 1),
        ((beta + pull) / (beta + 2 * pull), classes - 1),
    )
    return AnchoredResponse(within, pull / (beta + 2 * pull))


def mufm_strength(step_weight: float, steps: int) -> float:
    """The anchor strength that T steps of weight mu/2 ||H_{t+1} - H_t||^2 are: mu/T."""
    return number("step_weight", step_weight) / integer("steps", steps, 1)


def mufm_path(start: Tensor, end: Tensor, steps: int) -> tuple[Tensor, ...]:
    """H_0..H_T of T equal steps."""
    count = integer("steps", steps, 1)
    return tuple(start + (end - start) * (step / count) for step in range(count + 1))


def references(problem: Problem) -> tuple[Reference, ...]:
    """The bound, and the optimum where the anchor is one."""
    if problem.anchor is None or not problem.anchor.strength:
        return ()
    free = replace(problem, anchor=None)
    known = []
    for state in all_references(free):
        if state.kind == OPTIMUM:
            known.append(Reference("optimum without anchor", state.value, BOUND))
            if _is_minimiser(free, problem.anchor.features, state.value):
                known.append(_at_the_anchor(problem, state))
    return tuple(known)


def _is_minimiser(free: Problem, features: Tensor, value: float) -> bool:
    """Whether features cost the optimum under their best weights (mean squared error, one layer)."""
    allowed = free.constraint is None or (free.constraint == "nonnegative" and bool((features >= 0).all()))
    if free.loss != "mse" or free.depth != 1 or not allowed:
        return False
    weight, bias = _best_weight(free, features)
    outputs = features @ weight.T + (0 if bias is None else bias)
    cost = (outputs - free.target_matrix).square().sum() / (2 * free.num_samples)
    if free.bias_decay:
        cost = cost + free.bias_decay / 2 * bias.square().sum()
    cost = cost + free.weight_decays[0] / 2 * weight.square().sum() + free.feature_decay / 2 * features.square().sum()
    return abs(float(cost) - value) <= _SAME * max(value, 1e-3)


def _best_weight(free: Problem, features: Tensor) -> tuple[Tensor, Tensor | None]:
    """Ridge regression on the targets, with the bias that goes with it."""
    targets = free.target_matrix
    if free.bias_decay:
        return _best_weight_and_decayed_bias(free, features)
    shift, level = (features.mean(dim=0), targets.mean(dim=0)) if free.bias else (0.0, 0.0)
    rows, wanted = features - shift, targets - level
    ridge = free.num_samples * free.weight_decays[0] * torch.eye(rows.shape[1], dtype=torch.float64)
    weight = torch.linalg.solve(rows.T @ rows + ridge, rows.T @ wanted).T
    return weight, level - weight @ shift if free.bias else None


def _best_weight_and_decayed_bias(free: Problem, features: Tensor) -> tuple[Tensor, Tensor]:
    """As `_best_weight`: the bias is the weight of one more feature, which is 1."""
    rows = torch.cat([features, torch.ones_like(features[:, :1])], dim=1)
    decays = [free.weight_decays[0]] * features.shape[1] + [free.bias_decay]
    ridge = free.num_samples * torch.tensor(decays, dtype=torch.float64).diag()
    both = torch.linalg.solve(rows.T @ rows + ridge, rows.T @ free.target_matrix).T
    return both[:, :-1], both[:, -1]


def _at_the_anchor(problem: Problem, state: Reference) -> Reference:
    width = problem.anchor.features.shape[1]
    build = partial(_construct, problem)
    return replace(state, name="global optimum", construct=build, widths=(width,))


def _construct(problem: Problem, widths, generator, *, nonnegative_features: bool = False) -> DufmFactors:
    """The anchor itself, which leaves nothing to draw."""
    features = problem.anchor.features
    for width in widths:
        integer("widths", width, features.shape[1], features.shape[1])
    weight, bias = _best_weight(problem, features)
    device = generator.device
    bias = None if bias is None else bias.to(device)
    return DufmFactors(features.to(device), problem.labels.to(device), (weight.to(device),), bias)
