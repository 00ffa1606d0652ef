"""Weights of linear tails: balance in operator norms, conditioning, and a certificate of collapse.

After arXiv 2410.04887 [read in a digest; the normalisation of balancedness_op recalled, M]; the certificate is derived.
Operator norms of Gram matrices square the condition: values below 1e-7 are noise.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.metrics.engine.cases import MEANS_EXIST, NEXT_WEIGHT_NOT_FINITE, WEIGHT_EXISTS, WEIGHT_NOT_FINITE
from pipeline.metrics.engine.statistics import ClassStatistics, finite_part
from pipeline.metrics.engine.undefined import Exceptional
from pipeline.metrics.registry import metric, optional

optional(__name__)


def _singular_values(matrix: Tensor) -> Tensor:
    return torch.linalg.svdvals(finite_part(matrix))


NEXT_IS_ZERO = Exceptional("the next weight is zero", lambda n, _: (n == 0).all(-1).all(-1))
DEPENDENT_ROWS = Exceptional(
    "the rows of the weight are linearly dependent",
    lambda w: (
        (w.shape[-2] > w.shape[-1])
        | (_singular_values(w)[..., -1] <= max(w.shape[-2:]) * torch.finfo(w.dtype).eps * _singular_values(w)[..., 0])
    ),
    value=float("inf"),
)
NOT_THE_LAST = Exceptional(
    "the weight after the next has not one row per class", lambda s, p, w, n: _is_not(s, n.shape[-2] == s.num_classes)
)
WEIGHTS_NOT_FINITE = Exceptional(
    "the weights are not finite",
    lambda s, p, w, n: ~(w.isfinite().all(-1).all(-1) & n.isfinite().all(-1).all(-1)) | _is_not(s, True),
)
DEPENDENT_LAST = Exceptional(
    "the rows of the last weight are linearly dependent, so that nothing bounds the scatter along what it forgets",
    lambda s, p, w, n: DEPENDENT_ROWS.holds(n) | _is_not(s, True),
    value=float("inf"),
)


def _is_not(statistics: ClassStatistics, right: bool) -> Tensor:
    return torch.full_like(statistics.active, not right, dtype=torch.bool)


@metric(
    NEXT_WEIGHT_NOT_FINITE,
    NEXT_IS_ZERO,
    *WEIGHT_EXISTS,
    title="Imbalance of $W_{l+1}$ and $W_l$, operator norm",
    target=0.0,
    invariant=("rotation",),
)
def balancedness_op(next_weight: Tensor, weight: Tensor) -> Tensor:
    """||W_{l+1}^T W_{l+1} - W_l W_l^T||_2 over the smaller of ||W_{l+1}^T W_{l+1}||_2 and ||W_l W_l^T||_2."""
    off = _singular_values(next_weight.mT @ next_weight - weight @ weight.mT)[..., 0]
    sizes = [_singular_values(matrix)[..., 0].square() for matrix in (next_weight, weight)]
    return off / torch.minimum(*sizes)


@metric(
    WEIGHT_NOT_FINITE, DEPENDENT_ROWS, title="Condition number of the last weight", target=1.0, invariant=("rotation",)
)
def kappa_weight(classifier: Tensor) -> Tensor:
    """Largest over K-th singular value of the last weight."""
    values = _singular_values(classifier)
    return values[..., 0] / values[..., -1]


@metric(
    *MEANS_EXIST,
    NOT_THE_LAST,
    WEIGHTS_NOT_FINITE,
    DEPENDENT_LAST,
    title="Certificate: within-class scatter of what enters the last weight is at most",
    target=0.0,
    invariant=("rotation",),
)
def within_bound(statistics: ClassStatistics, pooled: Tensor, weight: Tensor, last_weight: Tensor) -> Tensor:
    """Upper bound of tr Sigma_W of Z W_l^T, what enters the last weight W_{l+1}, from its error and the balance.

    (1/N) (e1 / s_K(W_{l+1}) + sqrt(e2) ||Z||_F)^2 with e1 = ||Z W_l^T W_{l+1}^T - Y||_F, Y one-hot, and e2 =
    ||W_{l+1}^T W_{l+1} - W_l W_l^T||_2: true for any weights, and any layers before, if nothing but a bias stands
    between the two. Elsewhere it is not measured; `layer_metrics` takes your word for it.
    """
    if last_weight.shape[-2] != statistics.num_classes:
        return torch.full_like(statistics.active, float("nan"))
    product = last_weight @ weight
    goals = torch.eye(statistics.num_classes, dtype=product.dtype, device=product.device)
    off_means = (statistics.means @ product.mT - goals).square().sum(-1)
    error = (product @ pooled * product).sum((-2, -1)).clamp(min=0) + (statistics.counts * off_means).sum(-1)
    imbalance = _singular_values(last_weight.mT @ last_weight - weight @ weight.mT)[..., 0]
    samples = statistics.counts.sum()
    root = (error / samples).sqrt() / _singular_values(last_weight)[..., -1] + (imbalance * statistics.energy).sqrt()
    return root.square() + 0 * error


def measured_scatter(statistics: ClassStatistics, pooled: Tensor, weight: Tensor) -> Tensor:
    """tr Sigma_W of Z W^T, `(...)`: what `within_bound` is never below."""
    return (weight @ pooled * weight).sum((-2, -1)) / statistics.counts.sum()
