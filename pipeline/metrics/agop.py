"""The average gradient outer product of a layer's input, and the neural feature ansatz.

After "Average gradient outer product as a mechanism for deep neural collapse" (arXiv 2402.13728): AGOP = (1/N) sum_i
J_i^T J_i with J_i the derivative of the outputs by what enters W. Because what leaves W is W h, AGOP = W^T S W with S =
(1/N) sum_ik g_ik g_ik^T, g the gradient of output k by W h: only S, out x out, is accumulated. In W = U S V^T the
within-class collapse of S V^T h is that of W h, U being a rotation. nfa is far from 0 before training, because W stands
on both sides: compare with that.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.metrics.engine.cases import MEANS_EXIST, WEIGHT_EXISTS
from pipeline.metrics.engine.statistics import ClassStatistics, finite_part
from pipeline.metrics.engine.undefined import Exceptional
from pipeline.metrics.registry import metric, optional

optional(__name__)

GRADIENTS_NOT_FINITE = Exceptional("the gradients are not finite", lambda g, _: ~g.isfinite().all(-1).all(-1))
NO_GRADIENT = Exceptional(
    "the outputs do not depend on what the weight gives", lambda g, _: g.diagonal(dim1=-2, dim2=-1).sum(-1) == 0
)
NO_SPREAD = Exceptional(
    "all entries of one of the two matrices are the same", lambda g, w: (_centred(_gram(w)) == 0).all(-1)
)
NO_MEANS = Exceptional(
    "the class means coincide in what the weight gives",
    lambda statistics, pooled, weight: _between(statistics, weight) <= statistics.noise_floor * _size(weight),
)
NO_MEAN_OF_SQUARES = Exceptional(
    "the gradients are no mean of g g^T: their trace is negative", lambda g, _: g.diagonal(dim1=-2, dim2=-1).sum(-1) < 0
)
CASES = (GRADIENTS_NOT_FINITE, NO_GRADIENT, NO_MEAN_OF_SQUARES, *WEIGHT_EXISTS)


def agop(gradients: Tensor, weight: Tensor) -> Tensor:
    """W^T S W, `(..., d, d)`."""
    return weight.mT @ gradients @ weight


def root(matrix: Tensor) -> Tensor:
    """Square root of a symmetric matrix `(..., d, d)`, negative eigenvalues, which are rounding, being taken for 0."""
    values, vectors = torch.linalg.eigh(finite_part(matrix))
    return (vectors * values.clamp(min=0).sqrt()[..., None, :]) @ vectors.mT


def _gram(weight: Tensor) -> Tensor:
    return weight.mT @ weight


def _centred(matrix: Tensor) -> Tensor:
    entries = matrix.flatten(-2)
    return entries - entries.mean(-1, keepdim=True)


def _cosine(one: Tensor, other: Tensor) -> Tensor:
    return (one * other).sum(-1) / (torch.linalg.vector_norm(one, dim=-1) * torch.linalg.vector_norm(other, dim=-1))


@metric(*CASES, NO_SPREAD, title="NFA: $W^T W$ and AGOP$^{1/2}$", target=1.0, scale="linear", invariant=("scaling",))
def nfa(gradients: Tensor, weight: Tensor) -> Tensor:
    """Pearson correlation over all d^2 entries of W^T W and the root of the AGOP."""
    return _cosine(_centred(_gram(weight)), _centred(root(agop(gradients, weight))))


@metric(*CASES, NO_SPREAD, title="NFA: $W^T W$ and AGOP", target=1.0, scale="linear", invariant=("scaling",))
def nfa_full(gradients: Tensor, weight: Tensor) -> Tensor:
    """Pearson correlation over all d^2 entries of W^T W and the AGOP itself."""
    return _cosine(_centred(_gram(weight)), _centred(agop(gradients, weight)))


@metric(*CASES, title="NFA, means not subtracted", target=1.0, scale="linear", invariant=("rotation", "scaling"))
def nfa_cosine(gradients: Tensor, weight: Tensor) -> Tensor:
    """Cosine of the entries of W^T W and of the root of the AGOP, their means not subtracted."""
    return _cosine(_gram(weight).flatten(-2), root(agop(gradients, weight)).flatten(-2))


def _size(weight: Tensor) -> Tensor:
    return weight.square().sum((-2, -1))


def _between(statistics: ClassStatistics, weight: Tensor) -> Tensor:
    return (statistics.centred_means @ weight.mT).square().sum((-2, -1)) / statistics.num_classes


@metric(
    *MEANS_EXIST,
    *WEIGHT_EXISTS,
    NO_MEANS,
    title="DNC1 of $S V^T h$",
    target=0.0,
    invariant=("rotation", "scaling", "translation"),
)
def dnc1_svt(statistics: ClassStatistics, pooled: Tensor, weight: Tensor) -> Tensor:
    """dnc1 of S V^T h for W = U S V^T, which is that of W h: what the linear part of a layer does to it."""
    within = ((weight @ pooled) * weight).sum((-2, -1)) / statistics.counts.sum().clamp(min=1)
    return within / _between(statistics, weight)
