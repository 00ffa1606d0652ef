"""What else arXiv 2410.23169 gives for cross-entropy under ReLU layers: a low-rank solution and a bound.

*Low rank*, even K: X is K/2 blocks [[1, -1], [-1, 1]], the class means are phi (X + 11^T) in the layers 2..L, W_l = psi
(X + 2/K 11^T), W_L = psi X, logits gamma X. The fit is log(1 + exp(-2 gamma) + (K-2) exp(-gamma)) and the product of
squared norms P = 2 n K^3 ((K+2)/2)^(L-2) (derived here, by the scale rule). It is a point, not a stationary one.

*Linear bound*: the value of the collapsed solution of linear layers, P = n (K-1)^(L+1), which no **collapsed** solution
of ReLU layers goes below (the paper). Other solutions do: it bounds collapse, not the objective.
"""

import math
from functools import partial

import torch
from torch import Tensor

from pipeline.theory._points import Compact, balanced_factors, embed, split
from pipeline.theory._problem import Problem
from pipeline.theory._reference import ATTAINED, BOUND, Reference
from pipeline.theory._scale import Scale, general_scale, log_product


def relu_low_rank_loss(problem: Problem) -> float:
    """What the low-rank solution costs, or zero, log K, where that is cheaper.

    Raises ValueError for odd K and for a problem that it does not treat.

    >>> problem = Problem("cross_entropy", "relu", (5,) * 10, 4, 2**-9, 2**-9)
    >>> round(relu_low_rank_loss(problem), 10)  # the orthogonal frame: 0.1518383802
    0.1446366431
    """
    if problem.num_classes % 2:
        raise ValueError(f"num_classes is {problem.num_classes}, must be even for the low-rank solution of ReLU layers")
    if not _applies(problem):
        raise ValueError("the low-rank solution needs cross-entropy, ReLU, L >= 2, equal classes and positive decays")
    found = _low_rank(problem)
    zero = math.log(problem.num_classes)
    return min(zero, found.value) if found else zero


def references(problem: Problem) -> tuple[Reference, ...]:
    """The bound and, for even K >= 4, the low-rank solution; of balanced classes with L >= 2."""
    if not _applies(problem):
        return ()
    known = []
    bound = _linear_bound(problem)
    if bound is not None:
        known.append(Reference("linear bound of collapsed solutions", bound.value, BOUND))
    even = problem.num_classes % 2 == 0 and problem.num_classes >= 4
    if even and problem.constraint is None and (found := _low_rank(problem)) is not None:
        rank, depth = problem.num_classes // 2 + 1, problem.depth
        build = partial(_construct, problem, found.energy)
        known.append(
            Reference(
                "low rank",
                found.value,
                ATTAINED,
                (rank,) * (2 * depth - 1),
                build,
                widths=(rank,) + (problem.num_classes,) * (depth - 1),
            )
        )
    return tuple(known)


def _applies(problem: Problem) -> bool:
    relu = problem.loss == "cross_entropy" and problem.activation == "relu" and problem.depth >= 2
    free = problem.constraint in (None, "nonnegative") and problem.anchor is None
    return relu and free and problem.samples_per_class is not None and all(problem.decays)


def _low_rank(problem: Problem) -> Scale | None:
    classes, depth = problem.num_classes, problem.depth
    norms = math.log(2 * problem.samples_per_class * classes**3) + (depth - 2) * math.log((classes + 2) / 2)

    def masses(scale: Tensor) -> Tensor:
        return (-2 * scale).exp() + (classes - 2) * (-scale).exp()

    def fit(scale: float) -> float:
        return math.log1p(float(masses(torch.tensor(scale, dtype=torch.float64))))

    def slope(scale: Tensor) -> Tensor:
        return (2 * (-2 * scale).exp() + (classes - 2) * (-scale).exp()) / (1 + masses(scale))

    return general_scale(fit, slope, log_product(problem.decays) + norms, depth)


def _linear_bound(problem: Problem) -> Scale | None:
    classes, depth = problem.num_classes, problem.depth
    norms = math.log(problem.samples_per_class) + (depth + 1) * math.log(classes - 1)

    def fit(margin: float) -> float:
        return math.log1p((classes - 1) * math.exp(-margin))

    def slope(margin: Tensor) -> Tensor:
        return (classes - 1) / (margin.exp() + classes - 1)

    return general_scale(fit, slope, log_product(problem.decays) + norms, depth)


def _construct(problem: Problem, energy: float, widths, generator, **asked):
    """The docstring of this module's factors, scaled."""
    classes = problem.num_classes
    pair = torch.tensor([[1, -1], [-1, 1]], dtype=torch.float64)
    blocks = torch.block_diag(*[pair] * (classes // 2))
    rows, first = split(blocks + 1)
    inner = (blocks + 2 / classes,) * (problem.depth - 2)
    point = balanced_factors(Compact(rows, (first, *inner, blocks)), problem.samples_per_class, problem.decays, energy)
    bias = torch.zeros(classes, dtype=torch.float64) if problem.bias else None
    return embed(problem, point._replace(bias=bias), widths, generator, **asked)
