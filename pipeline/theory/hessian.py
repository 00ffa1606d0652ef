"""Spectra at the collapsed solution of linear layers, mean squared error (arXiv 2404.06106; values derived here).

Let q be the output of the collapsed solution and p = 1 - q. The Hessian of the fit in W_l is A^T A (x) X X^T / N, A =
W_L...W_{l+1}, X the input of W_l: K^2 equal eigenvalues lambda_l q/p with eigenvectors (mean of layer l+1) (x) (mean of
layer l), all others 0 (theorem 4.1 of the paper has the structure). W_l^T W_l has K eigenvalues p q / (K lambda_l).
"""

import math
from dataclasses import dataclass

from pipeline.theory._problem import DufmProblem, Problem, integer
from pipeline.theory.providers.collapsed import stationary_point


@dataclass(frozen=True)
class HessianOutliers:
    """Eigenvalues of the fit's Hessian at the collapsed solution, without the penalty's own decay.

    output: q. layers: of the block of each W_l, `multiplicity` = K^2 times. features: of the block of H_1,
    `feature_multiplicity` = K N times. gauss_newton: the largest of the Gauss-Newton matrix of all parameters, K^2
    times. penalised: of W_l with its penalty, lambda_l / p. gram: the K eigenvalues of W_l^T W_l; their roots are the
    singular values of W_l. mean_norm: of the class means of H_1, of equal length.
    """

    output: float
    layers: tuple[float, ...]
    multiplicity: int
    features: float
    feature_multiplicity: int
    gauss_newton: float
    penalised: tuple[float, ...]
    gram: tuple[float, ...]
    mean_norm: float


def hessian_outliers(problem: DufmProblem | Problem) -> HessianOutliers:
    """Closed forms for any K, n, L and decays. Raises ValueError where there is no collapsed solution.

    >>> found = hessian_outliers(DufmProblem(3, 40, 5, 1e-2, 1e-2))
    >>> round(found.layers[0], 9), found.multiplicity, round(found.gauss_newton, 9)
    (0.16324257, 9, 0.979455419)
    """
    problem = _balanced(problem)
    misfit, output = _point(problem)
    classes, energy, odds = problem.num_classes, misfit * output, output / misfit
    decays = problem.weight_decays
    return HessianOutliers(
        output=output,
        layers=tuple(decay * odds for decay in decays),
        multiplicity=classes**2,
        features=problem.feature_decay * odds,
        feature_multiplicity=classes**2 * problem.samples_per_class,
        gauss_newton=(sum(decays) + problem.feature_decay) * odds,
        penalised=tuple(decay / misfit for decay in decays),
        gram=tuple(energy / classes / decay for decay in decays),
        mean_norm=math.sqrt(energy / problem.feature_decay / classes / problem.samples_per_class),
    )


def full_hessian(problem: DufmProblem | Problem, dim: int) -> tuple[tuple[float, int], ...]:
    """Eigenvalues (value, multiplicity) of the Hessian of the whole objective, penalties and all layers together.

    For equal decays and widths d_1 = ... = d_L = `dim`, the classes' samples merged into sqrt(n) times their mean:
    (L-1) d^2 + 2 K d parameters. The largest values first: K(K+1)/2 and K(K-1)/2 outliers split by symmetry; then
    directions 2 lambda, lambda, and 0, of rotations and rescaling. Positive semidefinite up to the fold q =
    (L-1)/(2L), where the first value meets 0: a metastable collapsed solution is a local minimum. Samples within a
    class add (N-K) d values of the features' block: lambda/p in the span of W_1^T, K (N-K) of them, lambda outside.

    Raises ValueError for unequal decays, d < K, and where there is no collapsed solution.

    >>> full_hessian(DufmProblem(3, 4, 2, 1e-2, 1e-2), 4)[2:]
    ((0.02, 18), (0.01, 1), (0.0, 12))
    """
    problem = _balanced(problem)
    decay, depth, classes = problem.feature_decay, problem.depth, problem.num_classes
    width = integer("dim", dim, classes)
    if any(other != decay for other in problem.weight_decays):
        raise ValueError(f"weight_decay and feature_decay are {problem.weight_decays} and {decay}, must be equal")
    misfit, output = _point(problem)
    symmetric = classes * (classes + 1) // 2
    known = [
        (decay * (depth + 1) / misfit, symmetric - classes),
        (decay * ((depth + 1) * output - (depth - 1) * misfit) / misfit, symmetric),
        (2 * decay, depth * symmetric + depth * classes * (width - classes)),
        (0.0, depth * (classes * width - symmetric)),
    ]
    rest = (depth - 1) * width**2 + 2 * classes * width - sum(count for _, count in known)
    return (*known[:3], (decay, rest), known[3])


def _balanced(problem: DufmProblem | Problem) -> DufmProblem:
    return problem.balanced() if isinstance(problem, Problem) else problem


def _point(problem: DufmProblem) -> tuple[float, float]:
    found = stationary_point(problem)
    if found is None or not found[1]:
        raise ValueError(f"the decays of {problem} are beyond the fold: there is no collapsed solution")
    return found
