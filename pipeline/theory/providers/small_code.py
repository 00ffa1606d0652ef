"""A solution of the DUFM that costs less than the collapsed one, for every K >= 3 and L >= 4.

Three classes fit on two units (arXiv 2405.14468 beats the collapsed solution by larger codes, of K = r (r - 1) / 2
classes on r units). Their hidden class means are the columns of X = [[1, 0, b], [0, 1, b]] in layers 2..L-1, and the
last hidden layer reads them out with three units:

    W_l = I_2 (2 <= l <= L-2),  W_{L-1} = [[1, -1], [-1, 1], [v, v]],  v^2 = sqrt(2B/A),  A = 2 + 1/(2b^2),
    W_L = [[1, 0, 0], [0, 1, 0], [-1/(2b), -1/(2b), 1/(2vb)]],         B = 1/(4b^2)

All factors of a block of classes scaled alike, outputs q times the targets cost

    value(q) = k/K (1-q)^2 / 2 + (L+1)/2 (feature_decay prod_l weight_decay_l P q^2)^(1/(L+1))

with k classes and P the product of the squared norms of all factors at q = 1: n for a class by itself, and n 2^(L-3)
`_CODE` for these three, at the best b. The other classes stand by themselves, as in the collapsed solution, or in
threes. It is a point, not an optimum and not stationary: descent from it goes on to lower values.
"""

import math
from functools import partial

import torch

from pipeline.theory._points import Compact, balanced_factors, direct_sum, embed, split
from pipeline.theory._problem import DufmProblem, Problem
from pipeline.theory._reference import ATTAINED, Reference
from pipeline.theory._scale import log_product, squared_error_scale
from pipeline.theory.providers.srg import applies

_B = 0.9034845151  # where _CODE is smallest
_CODE = ((1 + math.sqrt(1 + 2 * _B**2)) * (2 * math.sqrt(2 + 1 / (2 * _B**2)) + 1 / (_B * math.sqrt(2)))) ** 2


def small_code_loss(problem: DufmProblem) -> float:
    """What the small code of three classes costs, with the other classes by themselves: no optimum costs more.

    Blocks that cost less at zero stay there. Raises ValueError for K < 3 or L < 3.

    >>> round(small_code_loss(DufmProblem(3, 1, 4, 4e-3, 4e-3)), 10)  # the collapsed solution: 0.0299274744
    0.0293865839
    """
    if problem.num_classes < 3 or problem.depth < 3:
        got = f"{problem.num_classes} and {problem.depth}"
        raise ValueError(f"num_classes and depth must be at least 3 for the small code, got {got}")
    decays = (problem.feature_decay, *problem.weight_decays)
    value = 0.0
    for classes, count in ((3, 1), (1, problem.num_classes - 3)):
        share = classes / problem.num_classes
        norms = _norms(classes, problem.samples_per_class, problem.depth)
        found = squared_error_scale(share, log_product(decays, norms), problem.depth)
        value += count * (min(share / 2, found.value) if found else share / 2)
    return value


def references(problem: Problem) -> tuple[Reference, ...]:
    """One to K // 3 small codes, all other classes by themselves, of balanced one-hot problems with ReLU and L >= 3."""
    if not applies(problem) or problem.num_classes < 3:
        return ()
    classes, depth = problem.num_classes, problem.depth
    scales = [
        squared_error_scale(
            k / classes, log_product(problem.decays, _norms(k, problem.samples_per_class, depth)), depth
        )
        for k in (3, 1)
    ]
    known = []
    for codes in range(1, classes // 3 + 1):
        singles = classes - 3 * codes
        if scales[0] is None or (singles and scales[1] is None):
            continue
        value = codes * scales[0].value + (singles * scales[1].value if singles else 0.0)
        units = 2 * codes + singles
        ranks = (units,) * (2 * depth - 2) + (classes,)
        energies = [scales[0].energy] * codes + [scales[1].energy for _ in range(singles)]
        build = partial(_construct, problem, codes, tuple(energies))
        widths = (units,) * (depth - 1) + (classes,)
        known.append(Reference(_name(codes, singles), value, ATTAINED, ranks, build, widths=widths))
    return tuple(known)


def _name(codes: int, singles: int) -> str:
    name = "small code" if codes == 1 else f"{codes} small codes"
    return f"{name} + {singles} single class{'' if singles == 1 else 'es'}" if singles else name


def _norms(classes: int, samples: int, depth: int) -> float:
    return samples * (2 ** (depth - 3) * _CODE if classes == 3 else 1)


def _code(depth: int) -> Compact:
    code = torch.tensor([[1, 0, _B], [0, 1, _B]], dtype=torch.float64)
    v = (2 / (4 * _B**2) / (2 + 1 / (2 * _B**2))) ** 0.25
    read = torch.tensor([[1, -1], [-1, 1], [v, v]], dtype=torch.float64)
    half = 1 / (2 * _B)
    last = torch.tensor([[1, 0, 0], [0, 1, 0], [-half, -half, half / v]], dtype=torch.float64)
    rows, first = split(code)
    return Compact(rows, (first, *[torch.eye(2, dtype=torch.float64)] * (depth - 3), read, last))


def _single(depth: int) -> Compact:
    one = torch.ones(1, 1, dtype=torch.float64)
    return Compact(one, (one,) * depth)


def _construct(problem: Problem, codes: int, energies: tuple[float, ...], widths, generator, **asked):
    blocks = [_code(problem.depth)] * codes + [_single(problem.depth)] * (len(energies) - codes)
    parts = [
        balanced_factors(block, problem.samples_per_class, problem.decays, energy)
        for block, energy in zip(blocks, energies, strict=True)
    ]
    return embed(problem, direct_sum(parts), widths, generator, **asked)
