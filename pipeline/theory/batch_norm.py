"""Optima of networks that end in a batch norm without shift and one layer, all under weight decay (derived here).

    min over free features, gamma and W of CE(W h) + lambda/2 (||W||^2 + ||gamma||^2),       balanced classes, d >= K-1

The batch norm holds the mean of ||h||^2 at ||gamma||^2, so the bound below decides: its optimum over the two norms is
attained by a simplex of features. Setting of arXiv 2309.04644, whose bounds are asymptotic and without constants.
"""

import math
from dataclasses import dataclass

from pipeline.theory._problem import integer, number, positive


@dataclass(frozen=True)
class BatchNormOptimum:
    """loss; squared_norm: s = ||W||^2 = ||gamma||^2; margin: m, own logit over every other; all 0 but the loss, log K,
    where zero is optimal."""

    loss: float
    squared_norm: float
    margin: float


def bn_optimum(num_classes: int, decay: float) -> BatchNormOptimum:
    """The optimum for K classes and the decay of both W and gamma; zero from lambda = 1/sqrt(K) on.

    p = lambda (K-1)/sqrt(K) is the probability off the own class, m = log((K-1)(1-p)/p), s = m (K-1)/sqrt(K), loss =
    log(1 + (K-1) e^-m) + lambda s. Raises ValueError naming the argument.

    >>> found = bn_optimum(10, 5e-4)
    >>> [round(value, 12) for value in (found.loss, found.squared_norm, found.margin)]
    [0.013876603802, 24.905130786169, 8.75077096763]
    """
    classes, decay = integer("num_classes", num_classes, 2), positive("decay", decay)
    reach = (classes - 1) / math.sqrt(classes)
    missed = decay * reach
    odds = (classes - 1) * (1 - missed) / missed
    if odds <= 1:
        return BatchNormOptimum(math.log(classes), 0.0, 0.0)
    margin = math.log(odds)
    loss = math.log1p((classes - 1) * math.exp(-margin)) + decay * margin * reach
    return BatchNormOptimum(loss, margin * reach, margin)


def cross_entropy_bound(num_classes: int, feature_norm: float, weight_norm: float) -> float:
    """The least cross-entropy of balanced classes with mean ||h||^2 = a^2 and ||W||_F = b, whatever the features.

    log(1 + (K-1) exp(-sqrt(K) a b / (K-1))), attained by simplex frames.
    """
    classes = integer("num_classes", num_classes, 2)
    norms = number("feature_norm", feature_norm) * number("weight_norm", weight_norm)
    return math.log1p((classes - 1) * math.exp(-math.sqrt(classes) * norms / (classes - 1)))
