"""Shallow networks on given data: what collapse costs, and whether it is attainable (arXiv 2409.01832; derived here).

    fit(W relu(W_1 x)) + lambda_W/2 ||W||^2 + lambda_H/2 ||relu(W_1 X)||^2,         W_1 unpenalised, no biases

costs at least the optimum of free features H >= 0, an orthogonal frame, and this much if and only if for every class k
some w_k has w_k.x = 1 on class k and w_k.x <= 0 on all other samples, and the network is at least K wide.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.theory._problem import DufmProblem, integer, matrix, one_of, positive
from pipeline.theory.providers.collapsed import collapsed_optimum
from pipeline.theory.providers.orthogonal import imbalanced_cross_entropy


@dataclass(frozen=True)
class UfmOptimum:
    """loss; output: q of the own class for mse, the margin M over every other class for cross-entropy."""

    loss: float
    output: float


def ufm_nonnegative(
    num_classes: int, samples_per_class: int, weight_decay: float, feature_decay: float, loss: str = "mse"
) -> UfmOptimum:
    """The optimum of one layer on free features H >= 0, K classes of n samples, d >= K.

    mse: p = K sqrt(n lambda_W lambda_H), q = 1 - p, p (1+q)/2, or zero for p >= 1. cross_entropy: M = log[(K-1)
    (sqrt(K/(K-1)) sqrt(n)/(N sqrt(lambda_W lambda_H)) - 1)], or 0 where that is negative. Raises ValueError naming the
    argument.

    >>> found = ufm_nonnegative(2, 6, 1e-2, 1e-2, "cross_entropy")
    >>> round(found.loss, 12), round(found.output, 9)
    (0.150521894493, 3.327461618)
    """
    one_of("loss", loss, ("mse", "cross_entropy"))
    problem = DufmProblem(num_classes, samples_per_class, 1, weight_decay, feature_decay)
    if loss == "mse":
        found = collapsed_optimum(problem)
        return UfmOptimum(found.loss, found.output)
    sizes = (problem.samples_per_class,) * problem.num_classes
    imbalanced = imbalanced_cross_entropy(sizes, *problem.weight_decays, problem.feature_decay)
    return UfmOptimum(imbalanced.loss, imbalanced.margins[0])


def attainability(features: Tensor, labels: Tensor) -> Tensor:
    """How far from attainable collapse is: t*_k of every class, float64 (K,), class k in place k.

    t*_k = min t subject to w.x = 1 for all x of class k, w.x <= t for all others, t >= -1; infinite where no w has the
    equalities. Collapse is attainable if and only if all are <= 0 (linear programmes, solved by HiGHS to 1e-9).

    Args:
        features: rows (N, d), as they enter the network.
        labels: (N,), integers from 0; every class up to the largest has a sample.

    Raises:
        ValueError: for another shape, for an empty class, for one class alone.

    >>> attainability(torch.tensor([[1.0], [-1.0]]), torch.tensor([0, 1]))
    tensor([-1., -1.], dtype=torch.float64)
    """
    return torch.stack([found[0] for found in _programmes(features, labels)])


def attaining_network(
    features: Tensor, labels: Tensor, weight_decay: float, feature_decay: float, loss: str = "mse"
) -> tuple[Tensor, Tensor]:
    """W_1 (K, d) and W (K, K) with the value of `ufm_nonnegative` on these rows, of balanced classes.

    Raises ValueError where collapse is not attainable, and for classes of different sizes.
    """
    found = _programmes(features, labels)
    if any(not float(level) <= 1e-9 for level, _ in found):
        raise ValueError(f"collapse is not attainable: t* is {[round(float(level), 6) for level, _ in found]}")
    counts = torch.bincount(torch.as_tensor(labels))
    if counts.min() != counts.max():
        raise ValueError(f"labels have {counts.tolist()} samples of each class, must be equal numbers")
    classes, samples = len(counts), int(counts[0])
    output = ufm_nonnegative(classes, samples, weight_decay, feature_decay, loss).output
    eye = torch.eye(classes, dtype=torch.float64)
    if loss == "mse":
        scale = (output**2 * weight_decay / (samples * feature_decay)) ** 0.25
        last = (output / scale if scale else 0.0) * eye
    else:
        scale = math.sqrt(math.sqrt(weight_decay / (feature_decay * samples) * (classes - 1) / classes) * output)
        ratio = classes * feature_decay * samples / ((classes - 1) * weight_decay)
        last = math.sqrt(ratio) * scale * (eye - 1 / classes)
    return scale * torch.stack([direction for _, direction in found]), last


def attainability_probability(num_classes: int, samples_per_class: int, dim: int) -> float:
    """Probability that t*_k <= 0 of one class, for rows without signal: isotropic, symmetric, labels independent.

    Of **each** class by itself; the classes of one data set are not independent. With N = K n, m = N - n + 1 and D =
    d - n + 1 it is 2^-(m-1) sum_{i < D} binom(m-1, i) (Wendel, Cover): 0 for d < n, 1 for D >= m, one half at d =
    (N + n - 1)/2. Evaluated in integers.

    >>> [round(attainability_probability(*case), 9) for case in ((2, 20, 28), (3, 20, 40), (2, 6, 8))]
    [0.251722336, 0.562685344, 0.34375]
    """
    classes, samples = integer("num_classes", num_classes, 2), integer("samples_per_class", samples_per_class, 1)
    others, free = (classes - 1) * samples, integer("dim", dim, 1) - samples + 1
    if free > others:
        return 1.0
    ways, term = 0, 1
    for i in range(max(free, 0)):
        ways, term = ways + term, term * (others - i) // (i + 1)  # binom(m-1, i) from the one before
    return ways / 2**others


def _programmes(features: Tensor, labels: Tensor) -> list[tuple[Tensor, Tensor]]:
    """t*_k and w_k of every class."""
    rows = matrix("features", features)
    try:
        labels = torch.as_tensor(labels)
    except (TypeError, ValueError, RuntimeError):  # text, None
        raise ValueError(f"labels is {labels!r:.80}, must be {len(rows)} integers >= 0, one per row") from None
    whole = not (labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool)
    if labels.shape != rows.shape[:1] or not whole or labels.min() < 0:
        raise ValueError(
            f"labels has the shape {tuple(labels.shape)} and the type {labels.dtype}, must be {len(rows)} integers "
            ">= 0, one per row"
        )
    counts = torch.bincount(labels)
    if len(counts) < 2 or counts.min() == 0:
        raise ValueError(f"labels have {counts.tolist()} samples of each class, must be at least 1 of at least 2")
    # t* does not depend on the rows' scale, but the solver's tolerances do, and what it takes for infinite.
    largest = rows.norm(dim=1).amax()
    unit = largest if largest > 0 else torch.ones_like(largest)
    found = [_programme(rows[labels == k] / unit, rows[labels != k] / unit) for k in range(len(counts))]
    return [(level, direction / unit) for level, direction in found]


def _programme(own: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    from scipy.optimize import linprog  # here: half a second that `--help` need not wait for

    width = own.shape[1]
    norms = [part.norm(dim=1, keepdim=True) for part in (own, others)]
    norms = [torch.where(norm > 0, norm, 1.0) for norm in norms]  # a row of zeros stays one: it asks for t >= 0
    goal = torch.zeros(width + 1, dtype=torch.float64)
    goal[-1] = 1
    solved = linprog(
        goal.numpy(),
        A_ub=torch.cat([others / norms[1], -1 / norms[1]], dim=1).numpy(),
        b_ub=torch.zeros(len(others), dtype=torch.float64).numpy(),
        A_eq=torch.cat([own / norms[0], torch.zeros(len(own), 1, dtype=torch.float64)], dim=1).numpy(),
        b_eq=(1 / norms[0]).squeeze(1).numpy(),
        bounds=[(None, None)] * width + [(-1, None)],
        method="highs",
        options={"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10},
    )
    if solved.status == 2:  # no w has the equalities
        return torch.tensor(math.inf, dtype=torch.float64), torch.full((width,), math.nan, dtype=torch.float64)
    if solved.status != 0:
        return _in_the_row_space(own, others, solved.message)
    found = torch.from_numpy(solved.x)
    direction = found[:-1]
    direction = direction + torch.linalg.lstsq(own, (1 - own @ direction)[:, None]).solution[:, 0]
    return found[-1], direction


def _in_the_row_space(own: Tensor, others: Tensor, why: str) -> tuple[Tensor, Tensor]:
    """As `_programme`, where that was not solved (seen on images, with hundreds of dependent columns): without solving
    if the rows are linearly independent, so that w can have any values on them, else in coordinates of their span."""
    rows = torch.cat([own, others])
    left, values, right = torch.linalg.svd(rows, full_matrices=False)
    rank = int((values > values[0] * max(rows.shape) * torch.finfo(torch.float64).eps).sum())
    if rank == len(rows):
        wanted = torch.cat([torch.ones(len(own)), -torch.ones(len(others))]).double()
        return torch.tensor(-1.0, dtype=torch.float64), right.T @ (left.T @ wanted / values)
    if rank == rows.shape[1]:
        raise ValueError(f"the linear programme was not solved: {why}")
    level, direction = _programme(own @ right[:rank].T, others @ right[:rank].T)
    return level, right[:rank].T @ direction


def splitting_cost(scale: float, depth: int, *, factors: int = 1) -> float:
    """What it costs to move a scalar from 1 to `scale` through L residual blocks, the reason why depth is free.

    factors = 1, blocks x (1 + w): sum w^2 = L (s^(1/L) - 1)^2, about (log s)^2 / L. factors = 2, blocks x (1 + u v):
    sum (u^2 + v^2)/2 = L |s^(1/L) - 1|, which stays at log s.

    >>> round(splitting_cost(2, 5), 9), round(splitting_cost(2, 5, factors=2), 9)
    (0.110556004, 0.743491775)
    """
    one_of("factors", factors, (1, 2))
    blocks = integer("depth", depth, 1)
    step = math.expm1(math.log(positive("scale", scale)) / blocks)
    return blocks * step**2 if factors == 1 else blocks * abs(step)
