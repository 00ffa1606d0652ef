"""Closed forms of the deep unconstrained features model (DUFM): what a perfect descent must find, to 1e-12.

Model (Súkeník, Mondelli, Lampert, NeurIPS 2023, arXiv 2305.13165, "L-DUFM"). K classes of n samples, N = K n, L weight
matrices, no biases, free features H_1, one-hot labels Y; columns are samples here, rows in the code:

    H_2 = W_1 H_1,   H_{l+1} = W_l relu(H_l) for l >= 2,   Z = H_{L+1}
    objective = 1/(2N) ||Z - Y||_F^2 + sum_l weight_decay_l/2 ||W_l||_F^2 + feature_decay/2 ||H_1||_F^2

Their main theorem: for K = 2 and L >= 2 every global optimum is collapsed (DNC1-3) when n Λ is below
(L-1)^(L-1) / (2^(L+1) L^(2L)), Λ = feature_decay * prod_l weight_decay_l, and is zero when n Λ is above.

The values are derived here, for any K. A collapsed solution has Z = q Y; the n copies of a class mean cost as much as
one copy with decay n * feature_decay; each of the L + 1 factors has K equal singular values, whose product is q. By the
inequality of arithmetic and geometric means the cheapest such factors share one value of decay * singular value^2,
c q^(2/(L+1)) with c = (n Λ)^(1/(L+1)), so that

    loss(q) = (1-q)^2 / 2 + K (L+1)/2 * c q^(2/(L+1)),      loss'(q) = 0  <=>  (1-q) q^((L-1)/(L+1)) = K c        (1)

and the larger root is the minimum. Put (1) back in, with p = 1 - q: every factor has decay * ||factor||_F^2 = p q, and

    fit = p^2 / 2,    penalty of each factor = p q / 2,    loss = p (1 + L q) / 2                                 (2)

which also describe the zero solution, p = 1 and q = 0. Two thresholds follow, both rational in n Λ:

    loss = 1/2 at q = (L-1)/L:        n Λ = (L-1)^(L-1) / (K^(L+1) L^(2L)),   zero is as cheap                    (3)
    fold of (1) at q = (L-1)/(2L):    n Λ = (L+1)^(L+1) / 4^L times (3),      no collapsed solution beyond        (4)

Between them the collapsed solution is a local minimum above 1/2. At L = 1 the two coincide, with q = 0.

For K = 2 the collapsed solution is the global optimum (theorem above). For K >= 3, L >= 4 and ReLU it never is,
whatever the decays at which it beats zero: three classes on two units cost less (`small_code_loss`; Súkeník, Lampert,
Mondelli, NeurIPS 2024, arXiv 2405.14468, for larger codes). For K >= 3 and L = 3 lower points are known for many
classes (K = 15), and for L = 2 none; it is called an optimum for K = 2 only.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial

import torch

from pipeline.theory._points import nonnegative_frame
from pipeline.theory._problem import DufmFactors, DufmProblem, Problem, integer
from pipeline.theory._reference import OPTIMUM, STATIONARY, Reference


@dataclass(frozen=True)
class CollapsedOptimum:
    """The cheaper of the collapsed solution and zero; equations (1) and (2) of this module.

    loss = fit + regularisation, regularisation = feature_penalty + sum(weight_penalties). `output` is q*, the network's
    output for the correct class. `singular_values[l-1]` is the value of all K non-zero singular values of W_l; None for
    l = 1, which the theory leaves free but for its norm. The norms are squared Frobenius norms, of all N rows of H_1.
    """

    loss: float
    fit: float
    regularisation: float
    feature_penalty: float
    weight_penalties: tuple[float, ...]
    output: float
    singular_values: tuple[float | None, ...]
    feature_norm_squared: float
    weight_norms_squared: tuple[float, ...]
    zero_is_optimal: bool


def collapsed_optimum(problem: DufmProblem) -> CollapsedOptimum:
    """The collapsed solution where it costs less than zero, else the zero solution; every value to 1e-12 relative.

    For K = 2 this is the global optimum (arXiv 2305.13165, main theorem; depth 1 is a singular value thresholding and
    global for every K). The values are equations (1) and (2) of this module. Exactly at the threshold (3) both
    solutions cost 1/2; zero is returned, and q jumps to (L-1)/L just below. The side is decided in exact arithmetic on
    the decays as stored, so it is right even one rounding error away from the threshold.

    >>> optimum = collapsed_optimum(DufmProblem(2, 50, 3, 5e-4, 5e-4))
    >>> f"{optimum.loss:.6f} {optimum.output:.5f} {optimum.singular_values[2]:.4f}"
    '0.005315 0.99734 1.6296'
    """
    zero_is_optimal = _relative_product(problem) >= 1
    misfit, output = (1.0, 0.0) if zero_is_optimal else stationary_point(problem)
    energy = misfit * output  # decay * ||factor||_F^2 of every factor
    weight_norms = tuple(energy / decay for decay in problem.weight_decays)
    return CollapsedOptimum(
        loss=_loss(problem, misfit, output),
        fit=misfit**2 / 2,
        regularisation=(problem.depth + 1) * energy / 2,
        feature_penalty=energy / 2,
        weight_penalties=(energy / 2,) * problem.depth,
        output=output,
        singular_values=(None, *(math.sqrt(norm / problem.num_classes) for norm in weight_norms[1:])),
        feature_norm_squared=energy / problem.feature_decay,
        weight_norms_squared=weight_norms,
        zero_is_optimal=zero_is_optimal,
    )


def critical_product(num_classes: int, depth: int) -> float:
    """The value n * feature_decay * prod(weight_decays) must stay below for the collapsed solution to beat zero.

    (L-1)^(L-1) / (K^(L+1) L^(2L)): arXiv 2305.13165, main theorem, for K = 2; equation (3) of this module for any K.
    The nearest double, hence 0 where it underflows (K >= 1e5 at L = 50); `critical_decay` does not.

    >>> critical_product(num_classes=2, depth=3) == 2**2 / (2**4 * 3**6)
    True
    """
    return float(_critical_product(integer("num_classes", num_classes, 2), integer("depth", depth, 1)))


def critical_decay(problem: DufmProblem) -> float:
    """The decay, common to all factors, at the phase transition for this K, n and L; the problem's decays are not used.

    The (L+1)-th root of `critical_product / n`.

    >>> round(critical_decay(DufmProblem(2, 50, 3, 5e-4, 5e-4)), 5)
    0.05118
    """
    at_threshold = _stationarity_product((problem.depth - 1) / problem.depth, problem.depth)
    return at_threshold / problem.num_classes * problem.samples_per_class ** (-1 / (problem.depth + 1))


def partial_loss(problem: DufmProblem, fitted: int) -> float:
    """Loss with `fitted` of the K classes at their optimum and the others at output zero: (m loss* + (K-m)/2) / K.

    Derived here: with rank-m factors, (1) holds for each of the m directions and every other one costs 1/2 of its share
    1/K. Any output q P with P a projector of rank m costs the same, so for K = 2 the value of one fitted class is also
    that of the best constant predictor. Where zero is optimal, loss* is 1/2 and so is this. Raises ValueError unless
    0 <= fitted <= K.

    >>> round(partial_loss(DufmProblem(2, 50, 3, 5e-4, 5e-4), fitted=1), 6)
    0.252657
    """
    return _mixed_loss(problem, collapsed_optimum(problem).loss, integer("fitted", fitted, 0, problem.num_classes))


def references(problem: Problem) -> tuple[Reference, ...]:
    """The states of a balanced problem with mean squared error and one-hot targets, see `states`.

    Features may be constrained to be non-negative: the same values are attained. The cheapest state is an optimum for
    K = 2, for L <= 2, and for linear layers.
    """
    unlike = problem.loss != "mse" or problem.targets is not None or problem.bias or problem.anchor is not None
    unbalanced = problem.samples_per_class is None or problem.depth < 1 or not all(problem.decays)
    if unlike or unbalanced or problem.constraint not in (None, "nonnegative"):
        return ()
    proven = problem.num_classes == 2 or problem.depth <= 2 or problem.is_linear
    return states(problem.balanced(), proven=proven, nonnegative_features=problem.constraint == "nonnegative")


def states(
    problem: DufmProblem, *, proven: bool | None = None, nonnegative_features: bool = False
) -> tuple[Reference, ...]:
    """The states with 0..K classes fitted, in this order; beyond the fold (4) there is none but zero.

    `proven`: whether nothing is below the cheapest of them; by default for K = 2 (arXiv 2305.13165, main theorem).
    """
    num_classes, depth = problem.num_classes, problem.depth
    proven = num_classes == 2 if proven is None else proven
    stationary, beaten = stationary_point(problem), _relative_product(problem) >= 1
    misfit, output = stationary or (1.0, 0.0)
    collapsed, best = _loss(problem, misfit, output), 0 if beaten else num_classes
    return tuple(
        Reference(
            name=_name(problem, fitted, beaten, proven),
            value=_mixed_loss(problem, collapsed, fitted),
            kind=OPTIMUM if proven and fitted == best else STATIONARY,
            ranks=(fitted,) * (2 * depth - 1),
            construct=partial(_construct, problem, misfit * output, fitted, nonnegative_features=nonnegative_features),
            fitted=fitted,
            widths=(num_classes,) * depth,
        )
        for fitted in (range(num_classes + 1) if stationary else range(1))
    )


def construct_optimum(
    problem: DufmProblem, widths: Sequence[int], generator: torch.Generator, *, nonnegative_features: bool = False
) -> DufmFactors:
    """A random point at which the objective takes the value `collapsed_optimum(problem).loss`, float64.

    `widths` are d_1..d_L, each at least K. Derived here: let F_1 (d_1, K) have random orthonormal columns, F_2..F_L
    random orthonormal columns with non-negative entries (hence disjoint supports, which ReLU leaves as they are), and
    F_{L+1} = I_K. Then W_l = s_l F_{l+1} F_l^T and class means h F_1 compose to q* I_K with the optimal norms. Samples
    are ordered by class and lie on the generator's device. The theory also allows negative entries in H_2; without
    them, as here, the point is optimal for linear heads too. With `nonnegative_features` F_1 is drawn like F_2, which
    gives features that a ReLU could have put out. Raises ValueError for a wrong number of widths or one
    below K.
    """
    energy = 2 * collapsed_optimum(problem).feature_penalty
    return _construct(
        problem, energy, problem.num_classes, widths, generator, nonnegative_features=nonnegative_features
    )


def _construct(
    problem: DufmProblem,
    energy: float,
    fitted: int,
    widths: Sequence[int],
    generator: torch.Generator,
    *,
    nonnegative_features: bool = False,
) -> DufmFactors:
    """The first `fitted` classes as in `construct_optimum`, the others at zero.

    `energy` is decay * ||factor||_F^2 of every factor if all classes were fitted.
    """
    num_classes, device = problem.num_classes, generator.device
    if not isinstance(widths, Iterable) or len(widths := tuple(widths)) != problem.depth:
        raise ValueError(f"widths is {widths!r}, must be the input dimensions of W_1..W_L, {problem.depth} integers")
    first, *hidden = (integer("widths", width, num_classes) for width in widths)
    free = torch.randn(first, num_classes, dtype=torch.float64, device=device, generator=generator)
    frames = [
        nonnegative_frame(first, num_classes, generator) if nonnegative_features else torch.linalg.qr(free).Q,
        *(nonnegative_frame(width, num_classes, generator) for width in hidden),
        torch.eye(num_classes, dtype=torch.float64, device=device),
    ]
    for frame in frames:
        frame[:, fitted:] = 0
    labels = torch.arange(num_classes, device=device).repeat_interleave(problem.samples_per_class)
    scale = math.sqrt(energy / problem.feature_decay / len(labels))
    weights = tuple(
        math.sqrt(energy / decay / num_classes) * frames[layer + 1] @ frames[layer].T
        for layer, decay in enumerate(problem.weight_decays)
    )
    return DufmFactors(scale * frames[0].T[labels], labels, weights)


def stationary_point(problem: DufmProblem) -> tuple[float, float] | None:
    """(1 - q, q) at the larger root of (1), or None beyond the fold (4).

    Newton's method on p = K c (1-p)^(-a), a = (L-1)/(L+1), from p = K c: the right side is convex, so p climbs to its
    smaller root without passing it, and stays accurate when q is 1 to rounding. Up to the threshold (3) the condition
    number of p is at most (L+1)/L; at the fold it is infinite and p is good to about 1e-8 only.
    """
    depth, relative = problem.depth, _relative_product(problem)
    if relative > Fraction((depth + 1) ** (depth + 1), 4**depth):
        return None
    log_scale = _log(relative) / (depth + 1)
    if depth == 1:  # (1) is 1 - q = K c, and q vanishes at the threshold: expm1 keeps its digits
        return math.exp(log_scale), -math.expm1(log_scale)
    product = math.exp(log_scale) * _stationarity_product((depth - 1) / depth, depth)
    exponent = (depth - 1) / (depth + 1)
    misfit = product
    while True:
        image = product * (1 - misfit) ** -exponent
        slope = 1 - exponent * image / (1 - misfit)
        step = (image - misfit) / slope if slope > 0 else 0.0
        misfit += step
        if step <= 1e-15 * misfit:
            return misfit, 1 - misfit


def _stationarity_product(output: float, depth: int) -> float:
    """(1-q) q^((L-1)/(L+1)), the left side of (1), at q = `output`."""
    return (1 - output) * output ** ((depth - 1) / (depth + 1))


def _critical_product(num_classes: int, depth: int) -> Fraction:
    return Fraction((depth - 1) ** (depth - 1), num_classes ** (depth + 1) * depth ** (2 * depth))  # 0**0 is 1


def _relative_product(problem: DufmProblem) -> Fraction:
    """n Λ over its critical value. A double is a fraction, so this is exact: it neither rounds nor underflows."""
    if not min(decays := (problem.feature_decay, *problem.weight_decays)) > 0:
        raise ValueError(f"a decay is {min(decays):g}, must be positive for a value in closed form")
    product = math.prod(map(Fraction, problem.weight_decays), start=problem.samples_per_class)
    return product * Fraction(problem.feature_decay) / _critical_product(problem.num_classes, problem.depth)


def _log(ratio: Fraction) -> float:
    if 0.5 < ratio < 2:
        return math.log1p(ratio - 1)  # the difference is exact, so no digit is lost next to 1
    return math.log(ratio.numerator) - math.log(ratio.denominator)


def _loss(problem: DufmProblem, misfit: float, output: float) -> float:
    return misfit * (1 + problem.depth * output) / 2


def _mixed_loss(problem: DufmProblem, collapsed: float, fitted: int) -> float:
    if fitted == problem.num_classes:
        return collapsed  # the formula below may round
    return (fitted * collapsed + (problem.num_classes - fitted) / 2) / problem.num_classes


def _name(problem: DufmProblem, fitted: int, beaten: bool, proven: bool) -> str:
    if fitted == 0:
        return "zero solution"
    if fitted < problem.num_classes:
        return f"{fitted} of {problem.num_classes} classes fitted"
    if beaten:
        return "metastable collapsed solution"
    return "global optimum" if proven else "collapsed solution"
