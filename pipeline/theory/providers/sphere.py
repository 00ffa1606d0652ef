"""Features of fixed norm r under one penalised layer: the generalised unconstrained features model (GUFM).

A network that ends in a LayerNorm (r^2 = d) or in a projection to the sphere (r = 1) has such features. Balanced
classes, N = K n, lambda/2 ||W||^2, no bias (values derived here; GUFM: arXiv 2505.15239):

    cross-entropy  min over t of log(1 + (K-1) exp(-t r K/(K-1))) + lambda K t^2/2: rows of W of norm t, simplex frames
    mse            q = 1/(1 + lambda K / r^2), value lambda K / (2 (r^2 + lambda K)): orthogonal frames

Both are optima. mse: with W ridge regression the value is lambda/2 tr (M^T M + lambda K)^-1 for class means M, at least
the same of the diagonal r^2 (within a class means are at most as long). Cross-entropy: by Jensen it is at least log(1 +
(K-1) exp(-m)) of the mean margin m, and m (K-1) = <W, M S> <= ||W|| ||M S|| with ||M S||^2 <= K r^2; features that are
not negative have ||M S||^2 <= (K-1) r^2 instead, which orthogonal frames reach.
"""

import math
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from pipeline.theory._points import Compact, embed
from pipeline.theory._problem import Problem, integer, one_of, positive
from pipeline.theory._reference import OPTIMUM, Reference
from pipeline.theory._scale import general_scale


@dataclass(frozen=True)
class GufmOptimum:
    """loss; row_norm: t, of each row of W; output: margin for cross-entropy, q for mse."""

    loss: float
    row_norm: float
    output: float


def gufm_optimum(num_classes: int, decay: float, squared_norm: float, loss: str = "cross_entropy") -> GufmOptimum:
    """The optimum of features of this squared norm (d after LayerNorm) under one layer of this decay, K <= d.

    Raises ValueError naming the argument.

    >>> f'{gufm_optimum(3, 1e-2, 8, "cross_entropy").loss:.9f} {gufm_optimum(3, 1e-2, 8, "mse").loss:.9f}'
    '0.033292499 0.001867995'
    """
    one_of("loss", loss, ("mse", "cross_entropy"))
    classes, radius = integer("num_classes", num_classes, 2), math.sqrt(positive("squared_norm", squared_norm))
    decay = positive("decay", decay)
    if loss == "mse":
        output = 1 / (1 + decay * classes / radius**2)
        return GufmOptimum(decay * classes / (2 * (radius**2 + decay * classes)), output / radius, output)
    return _cross_entropy(classes, decay, radius, math.sqrt(classes))


def _cross_entropy(classes: int, decay: float, radius: float, reach: float) -> GufmOptimum:
    """min over b = ||W|| of log(1 + (K-1) e^-m) + decay b^2/2, m = b `reach` r/(K-1); b^2 = K t^2."""
    rate = reach * radius / (classes - 1)
    # (S) with L = 0 and q = m: 1/2 C m^2, C = decay / rate^2.
    found = general_scale(
        lambda margin: math.log1p((classes - 1) * math.exp(-margin)),
        lambda margin: (classes - 1) / (margin.exp() + classes - 1),
        math.log(decay / rate**2),
        0,
    )
    return GufmOptimum(found.value, found.output / rate / math.sqrt(classes), found.output)


def references(problem: Problem) -> tuple[Reference, ...]:
    """The optimum of one layer on the unit sphere; the features' penalty is lambda_H N/2 whatever they are."""
    plain = problem.depth == 1 and not problem.bias and problem.anchor is None and problem.targets is None
    balanced = problem.samples_per_class is not None and problem.constraint in ("sphere", "nonnegative_sphere")
    if problem.loss == "supervised_contrastive" or not plain or not balanced or not all(problem.weight_decays):
        return ()
    classes, decay = problem.num_classes, problem.weight_decays[0]
    simplex = problem.loss == "cross_entropy" and problem.constraint == "sphere"
    if problem.loss == "mse" or simplex:
        found = gufm_optimum(classes, decay, 1.0, problem.loss)
    else:
        found = _cross_entropy(classes, decay, 1.0, math.sqrt(classes - 1))
    rank = classes - 1 if simplex else classes
    build = partial(_construct, problem, found, simplex)
    value = found.loss + problem.feature_decay * problem.num_samples / 2
    return (Reference("global optimum", value, OPTIMUM, (rank,), build, fitted=classes, widths=(rank,)),)


def _construct(problem: Problem, found: GufmOptimum, simplex: bool, widths, generator, **asked):
    classes = problem.num_classes
    eye = torch.eye(classes, dtype=torch.float64)
    frame: Tensor = eye
    if simplex:
        frame = torch.linalg.eigh(eye - 1 / classes).eigenvectors[:, 1:]
        frame = frame / frame.norm(dim=1, keepdim=True)
    rows = frame if simplex or problem.loss == "mse" else (eye - 1 / classes) * math.sqrt(classes / (classes - 1))
    return embed(problem, Compact(frame, (found.row_norm * rows,)), widths, generator, **asked)
