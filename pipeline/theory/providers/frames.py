"""Frames of cross-entropy under linear layers (arXiv 2410.23169; one formula for all of them derived here).

Classes are split into groups. A group of m classes has logits Z = gamma P among itself and 0 to all others, P an
orthogonal projector of rank rho with P 1 = 0 whose rows are permutations of each other. Then groups decouple, each is
critical, and the group costs, with the decays of `Problem` and n samples per class,

    m/K log( sum_j exp(gamma (P_1j - P_11)) + (K-m) exp(-gamma P_11) ) + (L+1)/2 (Lam n rho^(L+1) gamma^2)^(1/(L+1))

at the largest stationary gamma. Projectors:

    simplex of m      I - 11^T/m, rho = m - 1: the collapsed solution for m = K; a pair for m = 2
    polygon of m      2/m cos(2 pi (i-j)/m), rho = 2 (m >= 5: smaller ones are a simplex or two pairs)
    johnson of m      (|e cap f| - 4/r) / (r-2) over the m = r(r-1)/2 edges of the complete graph, rho = r - 1

For L <= 1 the collapsed solution is the optimum (arXiv 2410.23169 and earlier work), for K = 2 too: the smallest
penalty of a row of margins is concave in its squared norm and the fit is convex in the squared margins (derived here).
Nothing else is called one: for L = 3, K >= 4 and L = 2, K >= 6 it is proven not to be (the paper's theorem 1), and a
pair and a triangle beat it for L = 2, K = 5 already.
"""

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache, partial
from itertools import groupby
from typing import NamedTuple

import torch
from torch import Tensor

from pipeline.theory._points import Compact, balanced_factors, direct_sum, embed, nothing
from pipeline.theory._problem import Problem, one_of
from pipeline.theory._reference import ATTAINED, OPTIMUM, STATIONARY, Reference
from pipeline.theory._scale import Scale, general_scale, log_product
from pipeline.theory.providers.srg import incidence, vertices

_MANY = 40  # classes from which on only structures of all classes are listed


class Group(NamedTuple):
    """Some classes of one structure: "simplex", "polygon", "johnson", or "zero" (not fitted)."""

    frame: str
    classes: int


def frame_reference(problem: Problem, groups: Sequence[tuple[str, int]], name: str | None = None) -> Reference:
    """The state in which the classes, in their order, form these groups, (frame, number of classes) each.

    Raises ValueError for a problem that is not cross-entropy under linear layers with balanced classes and positive
    decays, for groups that do not add up to K or are no frames, and where the decays are too large for one of them.

    >>> problem = Problem("cross_entropy", "linear", (5,) * 10, 3, 2**-10, 2**-10)
    >>> round(frame_reference(problem, [("johnson", 10)]).value, 10)  # the collapsed solution: 0.0769484143
    0.0587052238
    """
    if not _applies(problem):
        raise ValueError("frames need cross-entropy, linear layers, balanced classes and positive decays, and no more")
    parts = tuple(Group(*group) for group in groups)
    if sum(part.classes for part in parts) != problem.num_classes:
        raise ValueError(f"groups is {list(groups)!r}, must add up to the {problem.num_classes} classes")
    if not problem.depth and parts != (Group("simplex", problem.num_classes),):
        raise ValueError(f"groups is {list(groups)!r}, must be one simplex of all classes for depth 0")
    for part in parts:
        one_of("frame", part.frame, ("simplex", "polygon", "johnson", "zero"))
        if part.frame == "johnson":
            vertices(part.classes)
        elif part.frame != "zero" and part.classes < (2 if part.frame == "simplex" else 3):
            raise ValueError(f"groups has a {part.frame} of {part.classes} classes, which is no frame")
    found = _state(problem, parts, name or " + ".join(f"{frame} of {classes}" for frame, classes in parts))
    if found is None:
        raise ValueError(f"the decays {problem.decays} are too large for the groups {list(groups)!r}")
    return found


def references(problem: Problem) -> tuple[Reference, ...]:
    """The collapsed solution, pairs, polygons, Johnson frames, their mixtures, groups of them at zero, and zero."""
    if not _applies(problem):
        return ()
    classes = problem.num_classes
    listed = [((Group("simplex", classes),), "collapsed solution")]
    if problem.depth:
        listed += [*_whole(classes), ((Group("zero", classes),), "zero solution")]
        if classes <= _MANY:
            listed += _mixtures(classes) if not problem.bias else []
    states = [_state(problem, groups, name) for groups, name in listed]
    known = [state for state in states if state is not None]
    return tuple(known)


def _applies(problem: Problem) -> bool:
    plain = problem.loss == "cross_entropy" and problem.constraint is None and problem.anchor is None
    return plain and problem.is_linear and problem.samples_per_class is not None and all(problem.decays)


def _whole(classes: int) -> Iterator[tuple[tuple[Group, ...], str]]:
    """Structures of all classes in which every class is like every other: these are critical with a bias too."""
    if classes % 2 == 0 and classes > 2:
        yield (Group("simplex", 2),) * (classes // 2), "pairs"
    if _triangular(classes):
        yield (Group("johnson", classes),), f"johnson {vertices(classes)}"
    for size in range(3, classes + 1):
        copies, rest = divmod(classes, size)
        if rest == 0 and copies > 1:
            yield (Group("simplex", size),) * copies, f"{copies} {_plural('simplex', size)}"
        if rest == 0 and size >= 5:
            many = f"{copies} polygons of {size}" if copies > 1 else f"polygon of {size}"
            yield (Group("polygon", size),) * copies, many


def _mixtures(classes: int) -> Iterator[tuple[tuple[Group, ...], str]]:
    """Pairs with one frame of the rest, and pairs or one simplex with the rest at zero."""
    for pairs in range(1, (classes - 1) // 2 + 1):
        rest, some = classes - 2 * pairs, (Group("simplex", 2),) * pairs
        said = "1 pair" if pairs == 1 else f"{pairs} pairs"
        yield (*some, Group("zero", rest)), f"{said}, {_classes(rest)} at zero"
        if rest >= 3:
            yield (*some, Group("simplex", rest)), f"{said} + {_singular('simplex', rest)}"
        if rest >= 5:
            yield (*some, Group("polygon", rest)), f"{said} + polygon of {rest}"
        if _triangular(rest):
            yield (*some, Group("johnson", rest)), f"{said} + johnson {vertices(rest)}"
    for size in range(3, classes):
        rest = classes - size
        yield (Group("simplex", size), Group("zero", rest)), f"{_singular('simplex', size)}, {_classes(rest)} at zero"


def _classes(count: int) -> str:
    return "1 class" if count == 1 else f"{count} classes"


def _singular(frame: str, size: int) -> str:
    return "triangle" if size == 3 else f"{frame} of {size}"


def _plural(frame: str, size: int) -> str:
    return "triangles" if size == 3 else f"{frame}es of {size}"


def _triangular(classes: int) -> bool:
    """Whether there is a Johnson frame that is not a triangle (K = 3) or three pairs (K = 6)."""
    root = math.isqrt(1 + 8 * classes)
    return classes >= 10 and root * root == 1 + 8 * classes


def _state(problem: Problem, groups: tuple[Group, ...], name: str) -> Reference | None:
    classes, samples, depth = problem.num_classes, problem.samples_per_class, problem.depth
    value, rank, energies = 0.0, 0, []
    for group, equal in groupby(groups):
        count = len(list(equal))
        if group.frame == "zero":
            value += count * group.classes / classes * math.log(classes)
            energies += [0.0] * count
            continue
        scale = _scale(group, classes, samples, depth, log_product(problem.decays))
        if scale is None:
            return None
        value += count * scale.value
        rank += count * _rank(group)
        energies += [scale.energy] * count
    kind, name = _kind(problem, groups, value, name)
    return Reference(
        name=name,
        value=value,
        kind=kind,
        ranks=(rank,) * max(2 * depth - 1, 1),
        construct=partial(_construct, problem, groups, tuple(energies)),
        fitted=_fitted(problem, groups),
        widths=(max(rank, 1),) * depth if depth else (classes,),
    )


def _fitted(problem: Problem, groups: tuple[Group, ...]) -> int | None:
    """Of the collapsed solution and zero: what tells other states apart is their groups."""
    ends = {Group("simplex", problem.num_classes): problem.num_classes, Group("zero", problem.num_classes): 0}
    return ends.get(groups[0])


def _kind(problem: Problem, groups: tuple[Group, ...], value: float, name: str) -> tuple[str, str]:
    """Kind and name: of the collapsed solution and zero, one is the optimum for L <= 1 and for K = 2."""
    proven, zero = problem.depth <= 1 or problem.num_classes == 2, math.log(problem.num_classes)
    if groups == (Group("simplex", problem.num_classes),):
        if value < zero:
            return (OPTIMUM, "global optimum") if proven else (STATIONARY, name)
        return STATIONARY, "metastable collapsed solution"
    if proven and groups[0].frame == "zero" and len(groups) == 1:
        collapsed = _state(problem, (Group("simplex", problem.num_classes),), "")
        return (OPTIMUM if collapsed is None or collapsed.value >= zero else STATIONARY), name
    moved = problem.bias and len(set(groups)) > 1  # rows of unlike groups have a bias to gain
    return ATTAINED if moved else STATIONARY, name


@lru_cache(maxsize=4096)
def _scale(group: Group, classes: int, samples: int, depth: int, log_decays: float) -> Scale | None:
    """The group's least cost at gamma > 0."""
    row = _row(group)
    own, others = row[0], row[1:]
    values, counts = torch.tensor(others, dtype=torch.float64).unique(return_counts=True)
    gaps = torch.cat([own - values, torch.tensor([own], dtype=torch.float64)])  # of the own logit over the others
    weights = torch.cat([counts.double(), torch.tensor([classes - group.classes], dtype=torch.float64)])
    share = group.classes / classes

    def fit(gamma: float) -> float:
        return share * math.log1p(float((weights * (-gamma * gaps).exp()).sum()))

    def slope(gamma: Tensor) -> Tensor:
        masses = weights * (-gamma[:, None] * gaps).exp()
        return share * (masses * gaps).sum(dim=1) / (1 + masses.sum(dim=1))

    norms = math.log(samples) + (depth + 1) * math.log(_rank(group))
    return general_scale(fit, slope, log_decays + norms, depth)


def _rank(group: Group) -> int:
    if group.frame == "simplex":
        return group.classes - 1
    return 2 if group.frame == "polygon" else vertices(group.classes) - 1


@lru_cache(maxsize=256)
def _row(group: Group) -> tuple[float, ...]:
    """The first row of the projector, entries that are equal without rounding: what the fit depends on."""
    size = group.classes
    if group.frame == "simplex":
        return (1 - 1 / size, *[-1 / size] * (size - 1))
    if group.frame == "polygon":  # j and m - j are one angle
        return tuple(2 / size * math.cos(2 * math.pi * min(j, size - j) / size) for j in range(size))
    r = vertices(size)
    return tuple(_projector(group)[0].mul(r - 2).add(4 / r).round().sub(4 / r).div(r - 2).tolist())


def _projector(group: Group) -> Tensor:
    size = group.classes
    if group.frame == "simplex":
        return torch.eye(size, dtype=torch.float64) - 1 / size
    if group.frame == "polygon":
        steps = torch.arange(size, dtype=torch.float64)
        return 2 / size * (2 * math.pi / size * (steps[:, None] - steps)).cos()
    r = vertices(size)
    edges = incidence(r)
    return (edges.T @ edges - 4 / r) / (r - 2)


def _construct(problem: Problem, groups: tuple[Group, ...], energies: tuple[float, ...], widths, generator, **asked):
    """P = U U^T: features and W_L are U, all weights between the identity, scaled."""
    depth, parts = problem.depth, []
    for group, energy in zip(groups, energies, strict=True):
        if group.frame == "zero":
            parts.append(nothing(group.classes, depth))
            continue
        basis = torch.linalg.eigh(_projector(group)).eigenvectors[:, -_rank(group) :]
        inner = (torch.eye(basis.shape[1], dtype=torch.float64),) * (depth - 1)
        whole = Compact(basis, (*inner, basis)) if depth else Compact(_projector(group), ())
        parts.append(balanced_factors(whole, problem.samples_per_class, problem.decays, energy))
    point = direct_sum(parts)
    if problem.bias:
        point = point._replace(bias=torch.zeros(problem.num_classes, dtype=torch.float64))
    return embed(problem, point, widths, generator, fixed_features=not depth, **asked)
