"""Optima of the supervised contrastive loss on the unit sphere (arXiv 2306.07960), with L = 0: features alone.

    SCL = sum_i 1/(n_{y_i} - 1) sum_{j != i, y_j = y_i} log sum_{l != i} exp((h_i.h_l - h_i.h_j) / tau)

summed over anchors i, as in the paper; the objective of `Problem` is 1/N of it. Every class needs two samples.

* h_i >= 0: same within a class, orthogonal between classes, whatever the n_k:
  SCL* = sum_k n_k [log((n_k-1) e^(1/tau) + N - n_k) - 1/tau].
* No sign constraint, equal n_k: a simplex, N [log((n-1) e^(1/tau) + (N-n) e^(-1/((K-1) tau))) - 1/tau].
* No sign constraint, any n_k: the loss is convex in the products h_i.h_j, and falls when classes collapse (by Jensen),
  so the optimum is that of a convex programme in the K (K-1)/2 products between classes (derived here); solved
  numerically on K unit vectors in K dimensions, and certified: `certificate` is the least eigenvalue of the dual slack,
  0 at the optimum.

All need enough features: K for the orthogonal frame, K - 1 for the simplex.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial

import torch
from torch import Tensor

from pipeline.theory._points import Compact, embed
from pipeline.theory._problem import Problem, class_sizes, positive
from pipeline.theory._reference import OPTIMUM, Reference

_MANY = 24  # classes up to which unequal ones without sign constraint are solved for references


@dataclass(frozen=True)
class ContrastiveOptimum:
    """loss: summed over anchors; mean_loss: over their number; directions: of the classes, unit rows (K, rank)."""

    loss: float
    mean_loss: float
    directions: Tensor = field(compare=False, repr=False)
    certificate: float = 0.0

    @property
    def products(self) -> Tensor:
        """h_k.h_j of the classes (K, K)."""
        return self.directions @ self.directions.T


def contrastive_optimum(
    class_sizes: Sequence[int], temperature: float, *, nonnegative: bool = True
) -> ContrastiveOptimum:
    """The optimum of unit vectors, with entries >= 0 or without that constraint.

    Raises ValueError for a class with fewer than two samples and a temperature that is not positive.

    >>> round(contrastive_optimum((6, 3, 2), 1.0).loss, 10)
    19.2524368095
    >>> round(contrastive_optimum((6, 3, 2), 1.0, nonnegative=False).loss, 10)
    16.9466983332
    """
    sizes, temperature = _sizes(class_sizes), positive("temperature", temperature)
    certificate = 0.0
    if nonnegative:
        directions = torch.eye(len(sizes), dtype=torch.float64)
    elif len(set(sizes)) == 1:
        directions = _simplex(len(sizes))
    else:
        directions, certificate = _solve(sizes, temperature)
    loss = float(_loss(directions, torch.tensor(sizes, dtype=torch.float64), temperature))
    return ContrastiveOptimum(loss, loss / sum(sizes), directions, certificate)


def references(problem: Problem) -> tuple[Reference, ...]:
    """The optimum; the features' penalty is lambda_H N/2 whatever they are."""
    spheres = problem.constraint in ("sphere", "nonnegative_sphere")
    if problem.loss != "supervised_contrastive" or problem.depth or not spheres or problem.anchor is not None:
        return ()
    signed = problem.constraint == "nonnegative_sphere"
    if not signed and problem.samples_per_class is None and problem.num_classes > _MANY:
        return ()  # seconds of work: `contrastive_optimum` gives it
    found = contrastive_optimum(problem.class_sizes, problem.temperature, nonnegative=signed)
    value = found.mean_loss + problem.feature_decay * problem.num_samples / 2
    rank = found.directions.shape[1]
    build = partial(_construct, problem, found.directions)
    classes = problem.num_classes
    return (Reference("global optimum", value, OPTIMUM, (rank,), build, fitted=classes, widths=(rank,)),)


def _sizes(sizes: Sequence[int]) -> tuple[int, ...]:
    return class_sizes(sizes, least=2)


def _simplex(classes: int) -> Tensor:
    centred = torch.eye(classes, dtype=torch.float64) - 1 / classes
    rows = torch.linalg.eigh(centred).eigenvectors[:, 1:]
    return rows / rows.norm(dim=1, keepdim=True)


def _loss(directions: Tensor, sizes: Tensor, temperature: float) -> Tensor:
    """SCL of collapsed classes with these directions; every exponent less 1/tau, so that none overflows."""
    return _loss_of_products(directions @ directions.T, sizes, temperature)


def _loss_of_products(products: Tensor, sizes: Tensor, temperature: float) -> Tensor:
    gaps = (1 - products) / temperature
    gaps = gaps - torch.diag(gaps.diag())
    counts = sizes.expand_as(gaps) - torch.eye(len(sizes), dtype=torch.float64)
    return (sizes * (-gaps + counts.log()).logsumexp(dim=1)).sum()


@lru_cache(maxsize=64)
def _solve(sizes: tuple[int, ...], temperature: float) -> tuple[Tensor, float]:
    """Directions (K, rank) of the optimum without sign constraint, and the least eigenvalue of the dual slack."""
    counts, classes = torch.tensor(sizes, dtype=torch.float64), len(sizes)
    free = _simplex(classes)
    free = torch.cat([free, torch.zeros(classes, 1, dtype=torch.float64)], dim=1)
    free = free + 0.01 * torch.cos(torch.arange(classes**2, dtype=torch.float64).view(classes, classes) ** 1.3)
    free.requires_grad_()
    optimizer = torch.optim.LBFGS(
        [free], max_iter=2000, history_size=50, line_search_fn="strong_wolfe", tolerance_grad=0, tolerance_change=0
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = _loss(torch.nn.functional.normalize(free, dim=1), counts, temperature) / counts.sum()
        value.backward()
        return value

    for _ in range(3):
        optimizer.step(closure)
    directions = torch.nn.functional.normalize(free.detach(), dim=1)
    left, values, _ = torch.linalg.svd(directions)
    kept = values > 1e-6 * values[0]
    rows = left[:, kept] * values[kept]
    rows = rows / rows.norm(dim=1, keepdim=True)
    return rows, _dual_slack(rows, counts, temperature)


def _dual_slack(directions: Tensor, sizes: Tensor, temperature: float) -> float:
    """Least eigenvalue of G - diag(G C), G the loss's gradient in the products C: >= 0 certifies the optimum."""
    products = (directions @ directions.T).requires_grad_()
    value = _loss_of_products(products, sizes, temperature) / sizes.sum()
    gradient = torch.autograd.grad(value, products)[0]
    gradient = (gradient + gradient.T) / 2
    slack = gradient - torch.diag((gradient @ products.detach()).diag())
    return float(torch.linalg.eigvalsh(slack)[0])


def _construct(problem: Problem, directions: Tensor, widths, generator, **asked):
    return embed(problem, Compact(directions, ()), widths, generator, **asked)
