"""A solution of the DUFM that costs less than the collapsed one, for every K >= 3 and L >= 4.

Three classes fit on two units (arXiv 2405.14468 beats the collapsed solution by larger codes, of K = r (r - 1) / 2
classes on r units). Their hidden class means are the columns of X = [[1, 0, b], [0, 1, b]] in layers 2..L-1, and the
last hidden layer reads them out with three units. All factors of a block of classes scaled alike, outputs q times the
targets cost

    value(q) = k/K (1-q)^2 / 2 + (L+1)/2 (feature_decay prod_l weight_decay_l P q^2)^(1/(L+1))

with k classes and P the product of the squared norms of all factors at q = 1: n for a class by itself, and n 2^(L-3)
`_CODE` for these three, at the best b. The other K - 3 classes stand by themselves, as in the collapsed solution. It is
a point, not an optimum: descent from it goes on to lower values.
"""

import math

from pipeline.theory._problem import DufmProblem

_B = 0.9034845151  # where _CODE is smallest
_CODE = ((1 + math.sqrt(1 + 2 * _B**2)) * (2 * math.sqrt(2 + 1 / (2 * _B**2)) + 1 / (_B * math.sqrt(2)))) ** 2


def small_code_loss(problem: DufmProblem) -> float:
    """What the small code of three classes costs, with the other classes by themselves: no optimum costs more.

    Raises ValueError for K < 3 or L < 3.

    >>> round(small_code_loss(DufmProblem(3, 1, 4, 4e-3, 4e-3)), 10)  # the collapsed solution: 0.0299274744
    0.0293865839
    """
    if problem.num_classes < 3 or problem.depth < 3:
        got = f"{problem.num_classes} and {problem.depth}"
        raise ValueError(f"num_classes and depth must be at least 3 for the small code, got {got}")
    samples, others = problem.samples_per_class, problem.num_classes - 3
    return _block(problem, 3, samples * 2 ** (problem.depth - 3) * _CODE) + others * _block(problem, 1, samples)


def _block(problem: DufmProblem, classes: int, norms: float) -> float:
    """The least cost of some classes on units of their own, whose factors have this product of squared norms."""
    depth, share = problem.depth, classes / problem.num_classes
    decays = math.prod(problem.weight_decays) * problem.feature_decay
    scale = (decays * norms) ** (1 / (depth + 1))
    power = (depth - 1) / (depth + 1)
    # value' = 0 where (1-q) q^power = scale / share; the left side falls from here on to q = 1.
    low, high = (depth - 1) / (2 * depth), 1.0
    if (1 - low) * low**power <= scale / share:
        return share / 2
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if (1 - middle) * middle**power > scale / share else (low, middle)
    fitted = share * (1 - low) ** 2 / 2 + (depth + 1) / 2 * scale * low ** (2 / (depth + 1))
    return min(share / 2, fitted)
