"""Orthogonal frames of cross-entropy: features that cannot be negative, or layers with ReLU; any class sizes.

Class k has a unit of its own, with h_k on it, and the k-th column of W_L is proportional to that of S = I - 11^T/K, so
its own logit stands M_k above all others and classes cost what they cost alone,

    n_k/N log(1 + (K-1) exp(-M_k)) + (L+1)/2 (Lam n_k (K-1)/K M_k^2)^(1/(L+1)),         Lam the product of all decays

(S) of `pipeline.theory._scale` with q = M_k. For L = 1 and features H >= 0 this is the optimum for any n_k and d >= K
(arXiv 2401.02058; the closed form is derived here):

    M_k = log[(K-1) (sqrt(K/(K-1)) sqrt(n_k) / (N sqrt(lambda_W lambda_H)) - 1)] if positive, else 0
    ||h_k||^2 = sqrt(lambda_W / (lambda_H n_k)) sqrt((K-1)/K) M_k
    w_k = sqrt(K lambda_H / ((K-1) lambda_W)) (sqrt(n_k) h_k - 1/K sum_j sqrt(n_j) h_j)

Two reasons why a class is at zero are told apart. *Minority collapse*: M_k = 0 at the optimum, if and only if n_k <=
`collapse_threshold`. *Dead*: descent left the class at h_k = 0 with w_k <= 0 on all active units, though theory fits
it; a stationary point at (n_k/N) log K, a true local minimum if no unit is left (d equal to the classes alive).

With ReLU and L >= 2 (the orthogonal-frame solution of arXiv 2410.23169 for equal n_k) it is stationary: units sit at
the kink for other classes, where moving up raises the loss and moving down does nothing; ReLU'(0) = 0 in gradients.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from pipeline.theory._points import Compact, embed
from pipeline.theory._problem import Problem, class_sizes, integer, positive
from pipeline.theory._reference import OPTIMUM, STATIONARY, Reference
from pipeline.theory._scale import Scale, general_scale, log_product
from pipeline.theory._subsets import chosen, describe, group, zeros


@dataclass(frozen=True)
class ImbalancedCrossEntropy:
    """Optimum of cross-entropy with one layer and features >= 0, or a state with dead classes; one entry per class.

    loss: the objective. margins: M_k, own logit less every other. feature_norms_squared, weight_norms_squared:
    ||h_k||^2 and ||w_k||^2. cosines: of w_i and w_j, (K, K) rows; NaN where a row is zero. collapsed: whether class k
    is at M_k = 0 because it is too small (minority collapse), n_k <= `threshold`. dead: whether it was said to be dead.
    """

    loss: float
    margins: tuple[float, ...]
    feature_norms_squared: tuple[float, ...]
    weight_norms_squared: tuple[float, ...]
    cosines: tuple[tuple[float, ...], ...]
    threshold: float
    collapsed: tuple[bool, ...]
    dead: tuple[bool, ...]


def imbalanced_cross_entropy(
    class_sizes: Sequence[int],
    weight_decay: float,
    feature_decay: float,
    *,
    dim: int | None = None,
    dead: Sequence[int] = (),
) -> ImbalancedCrossEntropy:
    """The closed form for classes of any sizes; with `dead` classes (from 0), the state in which these are at zero.

    Raises ValueError for fewer features than classes (`dim` < K), for which it does not hold, and for decays of zero.

    >>> found = imbalanced_cross_entropy((40, 20, 10, 2), 3e-2, 1.4e-2)
    >>> round(found.loss, 9), found.collapsed
    (0.850151383, (False, False, False, True))
    """
    sizes = _sizes(class_sizes)
    decays = positive("weight_decay", weight_decay), positive("feature_decay", feature_decay)
    if dim is not None and integer("dim", dim, 1) < len(sizes):
        raise ValueError(f"dim is {dim}, must be at least the {len(sizes)} classes for the non-negative closed form")
    gone = {integer("dead", index, 0, len(sizes) - 1) for index in dead}
    threshold, classes, samples = collapse_threshold(sizes, *decays), len(sizes), sum(sizes)
    margins = [0.0 if k in gone else _margin(size, classes, samples, *decays) for k, size in enumerate(sizes)]
    root = math.sqrt(decays[0] * decays[1] * (classes - 1) / classes)
    loss = math.fsum(
        size / samples * math.log1p((classes - 1) * math.exp(-margin)) + root * math.sqrt(size) * margin
        for size, margin in zip(sizes, margins, strict=True)
    )
    norms = [root / decays[1] / math.sqrt(size) * margin for size, margin in zip(sizes, margins, strict=True)]
    gram = _weight_gram(sizes, norms, *decays)
    return ImbalancedCrossEntropy(
        loss=loss,
        margins=tuple(margins),
        feature_norms_squared=tuple(norms),
        weight_norms_squared=tuple(gram.diag().tolist()),
        cosines=tuple(map(tuple, (gram / (gram.diag()[:, None] * gram.diag()).sqrt()).tolist())),
        threshold=threshold,
        collapsed=tuple(k not in gone and size <= threshold for k, size in enumerate(sizes)),
        dead=tuple(k in gone for k in range(classes)),
    )


def collapse_threshold(class_sizes: Sequence[int], weight_decay: float, feature_decay: float) -> float:
    """Classes of at most so many samples are at zero at the optimum: N^2 lambda_W lambda_H K/(K-1).

    >>> round(collapse_threshold((40, 20, 10, 2), 3e-2, 1.4e-2), 5)
    2.90304
    """
    sizes = _sizes(class_sizes)
    return sum(sizes) ** 2 * weight_decay * feature_decay * len(sizes) / (len(sizes) - 1)


def references(problem: Problem) -> tuple[Reference, ...]:
    """The states in which each class is fitted or at zero: with L = 1 and H >= 0, and with ReLU layers."""
    one_layer = problem.depth == 1 and problem.constraint == "nonnegative" and not problem.bias
    deep = problem.depth >= 2 and problem.activation == "relu" and problem.constraint in (None, "nonnegative")
    balanced = problem.samples_per_class is not None
    treated = one_layer or (deep and (balanced or not problem.bias))
    if problem.loss != "cross_entropy" or not treated or problem.anchor is not None or not all(problem.decays):
        return ()
    scales = _scales(problem)
    sizes, exist = problem.class_sizes, tuple(scale is not None for scale in scales)
    kinds = group(sizes)
    known = []
    for off in zeros(tuple(kinds.values())):
        kept = chosen(sizes, kinds, off)
        if not all(has or not keep for has, keep in zip(exist, kept, strict=True)):
            continue
        if problem.bias and any(kept) and not all(kept):
            continue  # the bias would move
        best = one_layer and kept == exist
        known.append(
            Reference(
                name=_name(problem, kinds, off, kept, exist),
                value=_value(problem, scales, kept),
                kind=OPTIMUM if best else STATIONARY,
                ranks=(sum(kept),) * (2 * problem.depth - 1),
                construct=partial(_construct, problem, scales, kept),
                fitted=sum(kept),
                widths=(max(sum(kept), 1),) * problem.depth,
            )
        )
    return tuple(known)


def _name(problem: Problem, kinds, off, kept: tuple[bool, ...], exist: tuple[bool, ...]) -> str:
    if not any(kept):
        return "zero solution"
    if problem.depth > 1:
        if all(kept):
            return "orthogonal frame"
        return describe("classes", kinds, off, lambda size: f"of {size} samples")
    small = [
        0 if exists else count for exists, count in zip(_exist_of(kinds, problem, exist), kinds.values(), strict=True)
    ]
    collapsed = sum(small)
    minority = f"minority collapse of {collapsed} class{'' if collapsed == 1 else 'es'}" if collapsed else ""
    dead = [zero - gone for zero, gone in zip(off, small, strict=True)]
    if not any(dead):
        return f"global optimum with {minority}" if minority else "global optimum"
    said = describe("classes", kinds, dead, lambda size: f"of {size} samples").replace(
        "classes at zero", "dead classes"
    )
    return f"{said}; {minority}" if minority else said


def _exist_of(kinds, problem: Problem, exist: tuple[bool, ...]) -> list[bool]:
    return [exist[problem.class_sizes.index(size)] for size in kinds]


def _value(problem: Problem, scales: list[Scale | None], kept: tuple[bool, ...]) -> float:
    zero = math.log(problem.num_classes) / problem.num_samples
    sizes = problem.class_sizes
    return math.fsum(
        scale.value if keep else size * zero for scale, keep, size in zip(scales, kept, sizes, strict=True)
    )


def _scales(problem: Problem) -> list[Scale | None]:
    found = {size: _scale(problem, size) for size in set(problem.class_sizes)}
    return [found[size] for size in problem.class_sizes]


def _scale(problem: Problem, size: int) -> Scale | None:
    """What a class of this size costs at M > 0."""
    classes, share = problem.num_classes, size / problem.num_samples
    norms = log_product(problem.decays, size * (classes - 1) / classes)

    def fit(margin: float) -> float:
        return share * math.log1p((classes - 1) * math.exp(-margin))

    def slope(margin: Tensor) -> Tensor:
        return share * (classes - 1) / (margin.exp() + classes - 1)

    if problem.depth > 1:
        return general_scale(fit, slope, norms, problem.depth)
    margin = _margin(size, classes, problem.num_samples, *problem.weight_decays, problem.feature_decay)
    energy = math.exp(norms / 2) * margin
    return Scale(fit(margin) + energy, fit(margin), margin, energy) if margin else None


def _margin(size: int, classes: int, samples: int, weight_decay: float, feature_decay: float) -> float:
    odds = math.sqrt(classes / (classes - 1) * size / (weight_decay * feature_decay)) / samples - 1
    return max(0.0, math.log((classes - 1) * odds)) if odds > 0 else 0.0


def _weight_gram(sizes: tuple[int, ...], norms: list[float], weight_decay: float, feature_decay: float) -> Tensor:
    """W W^T: S diag(n_k ||h_k||^2) S times K lambda_H / ((K-1) lambda_W)."""
    classes = len(sizes)
    centred = torch.eye(classes, dtype=torch.float64) - 1 / classes
    squares = torch.tensor([size * norm for size, norm in zip(sizes, norms, strict=True)], dtype=torch.float64)
    return classes * feature_decay / ((classes - 1) * weight_decay) * (centred * squares) @ centred


def _sizes(sizes: Sequence[int]) -> tuple[int, ...]:
    return class_sizes(sizes, least=1)


def _construct(problem: Problem, scales: list[Scale | None], kept: tuple[bool, ...], widths, generator, **asked):
    """Diagonal factors, W_L = S times one, and every factor with the class's energy."""
    units = torch.tensor([k for k, keep in enumerate(kept) if keep], dtype=torch.int64)
    classes = problem.num_classes
    energies = torch.tensor([scales[unit].energy for unit in units.tolist()], dtype=torch.float64)
    counts = torch.tensor(problem.class_sizes, dtype=torch.float64)[units]
    eye = torch.eye(classes, dtype=torch.float64)[:, units]
    features = eye * (energies / (problem.feature_decay * counts)).sqrt()
    inner = tuple((energies / decay).sqrt().diag() for decay in problem.weight_decays[:-1])
    centred = (eye - 1 / classes) * (energies / problem.weight_decays[-1] * classes / (classes - 1)).sqrt()
    bias = torch.zeros(classes, dtype=torch.float64) if problem.bias else None
    asked.setdefault("nonnegative_features", True)  # no rounding moves a unit off its kink, where gradients jump
    return embed(problem, Compact(features, (*inner, centred), bias), widths, generator, **asked)
