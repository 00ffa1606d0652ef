"""The strongly regular graph solution (SRG) of mean squared error with ReLU (arXiv 2405.14468): many classes, low rank.

K = r(r-1)/2 classes are the edges of the complete graph on r vertices, B (r, K) its incidence matrix. The class means
are a_l B in layers 2..L-1 and alpha (B^T B - 11^T) before the last ReLU, which is alpha I behind it. With the factors
W_l = I_r (2 <= l <= L-2), W_{L-1} = B^T - 11^T/2, W_L = I_K, and W_1 H_1 = B split evenly, the product of squared norms
is P = n N_B^2 K^2 r^(L-2) / 4, N_B = (r-1) sqrt(r-2) + sqrt(2r-2) the sum of the singular values of B. The captions of
the paper give the structure, the algebra is derived here.

SRG is a point, not a stationary one: descent from it goes on to lower values. It is an upper bound, never the optimum.
"""

import math
from functools import partial

import torch
from torch import Tensor

from pipeline.theory._points import Compact, balanced_factors, embed, split
from pipeline.theory._problem import DufmProblem, Problem, integer
from pipeline.theory._reference import ATTAINED, Reference
from pipeline.theory._scale import Scale, log_product, squared_error_scale


def srg_loss(problem: DufmProblem) -> float:
    """What SRG costs, or zero where that is cheaper.

    Raises ValueError for L < 3 and for K that is no r(r-1)/2 with r >= 3.

    >>> round(srg_loss(DufmProblem(10, 1, 4, 4e-3, 4e-3)), 10)  # the collapsed solution: 0.0991798746
    0.0894708949
    """
    vertices(problem.num_classes)
    if problem.depth < 3:
        raise ValueError(f"depth is {problem.depth}, must be at least 3 for SRG")
    decays = (problem.feature_decay, *problem.weight_decays)
    found = _scale(problem.num_classes, problem.samples_per_class, problem.depth, decays)
    return min(0.5, found.value) if found else 0.5


def srg_limit_ratio(vertices: int, depth: int) -> float:
    """Loss of SRG on r vertices over that of the collapsed solution as all decays go to zero, (P_SRG/P)^(1/(L+1)).

    SRG beats the collapsed solution at every decay at which zero does not, if and only if this is below 1: at no r for
    L = 3, from r = 4 on for L >= 4.

    >>> round(srg_limit_ratio(5, 4), 8)
    0.90135515
    """
    r, depth = integer("vertices", vertices, 3), integer("depth", depth, 3)
    classes = r * (r - 1) // 2
    log_ratio = _log_norms(r, 1, depth) - (depth + 1) * math.log(classes)
    return math.exp(log_ratio / (depth + 1))


def vertices(num_classes: int) -> int:
    """r with K = r(r-1)/2, or a ValueError where there is no r >= 3."""
    classes = integer("num_classes", num_classes, 1)
    r = (1 + math.isqrt(1 + 8 * classes)) // 2
    if r < 3 or r * (r - 1) // 2 != classes:
        raise ValueError(f"num_classes is {num_classes}, must be r(r-1)/2 for SRG: 3, 6, 10, 15, 21, ...")
    return r


def references(problem: Problem) -> tuple[Reference, ...]:
    """SRG, of balanced one-hot problems with ReLU and L >= 3."""
    if not applies(problem):
        return ()
    try:
        r = vertices(problem.num_classes)
    except ValueError:
        return ()
    found = _scale(problem.num_classes, problem.samples_per_class, problem.depth, problem.decays)
    if found is None:
        return ()
    hidden, before = (r,) * (2 * problem.depth - 3), 3 if r == 4 else r
    build = partial(_construct, problem, r, found.energy)
    widths = (r,) * (problem.depth - 1) + (problem.num_classes,)
    return (Reference("SRG", found.value, ATTAINED, (*hidden, before, problem.num_classes), build, widths=widths),)


def applies(problem: Problem) -> bool:
    """Whether it is a problem of mean squared error with ReLU in which low-rank codes are points."""
    plain = problem.loss == "mse" and problem.targets is None and not problem.bias and problem.constraint is None
    deep = problem.activation == "relu" and problem.depth >= 3 and all(problem.decays)
    return plain and deep and problem.anchor is None and problem.samples_per_class is not None


def incidence(r: int) -> Tensor:
    """B (r, K), columns are the edges of the complete graph in the order 01, 02, ..., 12, ..., float64."""
    edges = torch.combinations(torch.arange(r))
    table = torch.zeros(r, len(edges), dtype=torch.float64)
    table[edges.T, torch.arange(len(edges))] = 1
    return table


def _log_norms(r: int, samples: int, depth: int) -> float:
    """log P."""
    classes, nuclear = r * (r - 1) / 2, (r - 1) * math.sqrt(r - 2) + math.sqrt(2 * r - 2)
    return math.log(samples * nuclear**2 * classes**2 / 4) + (depth - 2) * math.log(r)


def _scale(num_classes: int, samples: int, depth: int, decays: tuple[float, ...]) -> Scale | None:
    norms = _log_norms(vertices(num_classes), samples, depth)
    return squared_error_scale(1.0, log_product(decays) + norms, depth)


def _construct(problem: Problem, r: int, energy: float, widths, generator, **asked):
    """The docstring of this module's factors, scaled."""
    edges = incidence(r)
    rows, first = split(edges)
    inner = (torch.eye(r, dtype=torch.float64),) * (problem.depth - 3)
    weights = (first, *inner, edges.T - 0.5, torch.eye(edges.shape[1], dtype=torch.float64))
    point = balanced_factors(Compact(rows, weights), problem.samples_per_class, problem.decays, energy)
    return embed(problem, point, widths, generator, **asked)
