"""The collapse metrics as formulas over `ClassStatistics`, each with the cases in which it has no finite value.

Notation: class means mu_c, mean of all samples mu_G, M = [mu_1 .. mu_K]; within- and between-class covariances
Sigma_W = 1/N sum (z - mu_c)(z - mu_c)^T and Sigma_B = 1/K sum_c (mu_c - mu_G)(mu_c - mu_G)^T. Means are the rows of a
`(..., K, d)` tensor here; "..." are member dimensions. Every value is float64. `functional` documents the metrics.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.metrics.statistics import ClassStatistics, chunks_of, finite_part
from pipeline.metrics.undefined import Exceptional, except_when

# Weight decay shrinks an unused direction exponentially but never to zero: a thousandth of the largest is out of use.
RANK_RTOL = 1e-3

# Cases of the features: `holds` gets (statistics, ...).
NOT_FINITE = Exceptional("the features are not finite, or overflow when squared", lambda s, *_: ~s.finite)
NO_SAMPLES = Exceptional("there are no samples", lambda s, *_: s.occupied == 0)
ONE_CLASS = Exceptional("the data hold one class only", lambda s, *_: s.occupied == 1)
EMPTY_CLASS = Exceptional("a class has no samples", lambda s, *_: s.occupied < s.num_classes)
NO_BETWEEN_SCATTER = Exceptional(
    "the class means coincide (zero between-class scatter)", lambda s, *_: s.between_trace <= s.noise_floor
)
EQUAL_MEANS = Exceptional(
    "two class means coincide", lambda s, *_: (_pair_distances(s) <= s.noise_floor[..., None]).any(-1)
)
ZERO_MEANS = Exceptional("all class means are zero", lambda s, *_: (s.mean_norms == 0).all(-1))
DEPENDENT_MEANS = Exceptional(
    "the class means are linearly dependent (the K-th singular value is zero)",
    lambda s, *_: s.mean_singular_values[..., -1] <= _negligible(s.mean_singular_values[..., 0], s),
    value=float("inf"),
)
MEANS_EXIST = (NOT_FINITE, NO_SAMPLES, ONE_CLASS, EMPTY_CLASS)

# Cases of a weight matrix, which is always the last argument: `holds` gets (..., weight).
WEIGHT_NOT_FINITE = Exceptional("the weight is not finite", lambda *a: ~a[-1].isfinite().all(-1).all(-1))
ZERO_WEIGHT = Exceptional("the weight is zero", lambda *a: (a[-1] == 0).all(-1).all(-1))
NEXT_WEIGHT_NOT_FINITE = Exceptional("the next weight is not finite", lambda n, _: ~n.isfinite().all(-1).all(-1))
WEIGHT_EXISTS = (WEIGHT_NOT_FINITE, ZERO_WEIGHT)

# Cases of a list of singular values: `holds` gets (singular_values, ...).
SPECTRUM_NOT_FINITE = Exceptional("the matrix is not finite", lambda s, *_: ~s.isfinite().all(-1))
ZERO_SPECTRUM = Exceptional("the matrix is zero", lambda s, *_: s[..., 0] == 0)


@except_when(*MEANS_EXIST, NO_BETWEEN_SCATTER)
def dnc1(statistics: ClassStatistics) -> Tensor:
    return statistics.within_trace / statistics.between_trace


@except_when(*MEANS_EXIST, NO_BETWEEN_SCATTER)
def nc1_pinv(statistics: ClassStatistics) -> Tensor:
    return statistics.squares_along(inverse_spread(statistics)) / statistics.counts.sum().clamp(min=1)


@except_when(*MEANS_EXIST, NO_BETWEEN_SCATTER)
def mean_spread(statistics: ClassStatistics, squares: Tensor) -> Tensor:
    """nc1_pinv from the sum over samples of their deviations' squared length along `inverse_spread`."""
    return squares / statistics.counts.sum().clamp(min=1)


def inverse_spread(statistics: ClassStatistics) -> Tensor:
    """V S^-1 `(..., d, r)` of the thin SVD U S V^T of the K centred means, without its negligible directions.

    Sigma_B^+ = K V S^-2 V^T, so tr(Sigma_W Sigma_B^+) / K is the mean squared length of the deviations along these
    K - 1 directions at most, and there is no d x d inverse.
    """
    centred = finite_part(statistics.centred_means)
    _, values, rows = torch.linalg.svd(centred, full_matrices=False)
    rank = min(statistics.num_classes - 1, values.shape[-1])
    values, rows = values[..., :rank], rows[..., :rank, :]
    kept = values > _negligible(values[..., 0], statistics)[..., None]
    return torch.where(kept[..., None], rows / values[..., None], 0.0).mT


@except_when(*MEANS_EXIST, EQUAL_MEANS)
def cdnv(statistics: ClassStatistics) -> Tensor:
    variances = statistics.scatter / statistics.counts
    first, second = _pairs(statistics)
    return ((variances[..., first] + variances[..., second]) / (2 * _pair_distances(statistics))).mean(-1)


@except_when(*MEANS_EXIST, ZERO_MEANS, DEPENDENT_MEANS)
def dnc2(statistics: ClassStatistics) -> Tensor:
    return statistics.mean_singular_values[..., 0] / statistics.mean_singular_values[..., -1]


@except_when(*MEANS_EXIST, ZERO_MEANS)
def nc2_frame(statistics: ClassStatistics) -> Tensor:
    return _gram_distance(statistics.means, torch.eye(statistics.num_classes, **_like(statistics)))


@except_when(*MEANS_EXIST, NO_BETWEEN_SCATTER)
def nc2_simplex(statistics: ClassStatistics) -> Tensor:
    # Centred at the unweighted mean of the class means: with unequal class sizes mu_G would leave a simplex ETF
    # (and, for K = 2, any two means) at a non-zero distance from itself.
    simplex = torch.eye(statistics.num_classes, **_like(statistics)) - 1 / statistics.num_classes
    return _gram_distance(statistics.balanced_means, simplex)


@except_when(NOT_FINITE, NO_SAMPLES)
def active_units(statistics: ClassStatistics) -> Tensor:
    return statistics.active / (statistics.samples * statistics.means.shape[-1])


@except_when(*MEANS_EXIST)
def rank_means(statistics: ClassStatistics) -> Tensor:
    return rank_of_spectrum(statistics.mean_singular_values)


@except_when(*MEANS_EXIST, ZERO_MEANS)
def stable_rank_means(statistics: ClassStatistics) -> Tensor:
    return stable_rank_of_spectrum(statistics.mean_singular_values)


@except_when(*MEANS_EXIST, ZERO_MEANS, *WEIGHT_EXISTS)
def dnc3(statistics: ClassStatistics, weight: Tensor) -> Tensor:
    norms = statistics.mean_norms[..., None]
    directions = torch.where(norms > 0, statistics.means / norms, 0.0)
    closest = (weight @ directions.mT).abs().argmax(-1, keepdim=True)  # (..., out, 1)
    directions = directions.expand(*closest.shape[:-2], *directions.shape[-2:])
    nearest = torch.take_along_dim(directions, closest, dim=-2)  # (..., out, d)
    # ||row|| sin(angle) is the length of what projection leaves: exact for tiny angles, unlike sqrt(1 - cos^2).
    residual = weight - (weight * nearest).sum(-1, keepdim=True) * nearest
    row_norms = torch.linalg.vector_norm(weight, dim=-1)
    return (row_norms * torch.linalg.vector_norm(residual, dim=-1)).sum(-1) / row_norms.square().sum(-1)


@except_when(*MEANS_EXIST, NO_BETWEEN_SCATTER, *WEIGHT_EXISTS)
def nc3_duality(statistics: ClassStatistics, weight: Tensor) -> Tensor:
    return torch.linalg.matrix_norm(_unit(weight) - _unit(statistics.centred_means))


@except_when(*MEANS_EXIST)
def nc4(statistics: ClassStatistics, features: Tensor, decisions: Tensor) -> Tensor:
    differing = (nearest_class(statistics, features) != decisions).sum(-1)
    return share_of_nearest(statistics, differing, features.shape[-2])


@except_when(*MEANS_EXIST)
def ncm_accuracy(statistics: ClassStatistics, features: Tensor, labels: Tensor) -> Tensor:
    hits = (nearest_class(statistics, features) == labels).sum(-1)
    return share_of_nearest(statistics, hits, features.shape[-2])


@except_when(*MEANS_EXIST)
def share_of_nearest(statistics: ClassStatistics, count: Tensor, samples: int) -> Tensor:
    """`count` of `samples` as a share, for counts that were made batch by batch with `nearest_class`."""
    return count.to(torch.float64) / samples


def nearest_class(statistics: ClassStatistics, features: Tensor) -> Tensor:
    """argmin_c ||z - mu_c||^2 of features `(..., n, d)`, of any split, with the means of `statistics`: `(..., n)`."""
    # Measured from a sample, so that an offset common to all classes does not drown their differences.
    origin = statistics.anchors[..., :1, :]
    means = (statistics.anchors - origin) + statistics.drifts
    half_squares = means.square().sum(-1, keepdim=True).mT / 2  # (..., 1, K)
    nearest = [
        (half_squares - (features[..., chunk, :].to(torch.float64) - origin) @ means.mT).argmin(-1)
        for chunk in chunks_of(features)
    ]
    return torch.cat(nearest, dim=-1)


def second_look(
    own: ClassStatistics, reference: ClassStatistics, directions: Tensor, decisions: Tensor | None
) -> Tensor:
    """What the source of `own` comes to once class means are known, in one pass and one product, `(3,)` float64.

    How many samples are nearest to their own class's mean in `reference`; how many not to that of their decision
    `(n,)`, zero without decisions; and the sum of their squared deviations along `directions` `(d, r)`, which is
    `own.squares_along(directions)`. No member dimensions.
    """
    # ||z - mu_k||^2 = ||z - a||^2 + 2 (z - a)(a - mu_k) + ||a - mu_k||^2 with the anchor a of the sample's class: for
    # one sample the first term is the same for all k, and so is a in the second; only differences of means are left.
    origin = reference.anchors[:1]
    means = (reference.anchors - origin) + reference.drifts
    half_squares = _distances(own.anchors - origin, means).square() / 2
    onto = torch.cat([means, directions.mT]).mT
    # Products of float64 matrices go twelve columns at a time: ten take twice as long as twelve, of which two are zero.
    onto = torch.nn.functional.pad(onto, (0, -onto.shape[1] % 12))
    rank = directions.shape[1]
    drifts = own.drifts @ directions
    found = half_squares.new_zeros(3)
    start = 0
    for deviations, labels in own.chunks():
        products = deviations @ onto
        nearest = (half_squares.index_select(0, labels) - products[:, : len(means)]).argmin(-1)
        hits, misses = nearest == labels, half_squares.new_zeros(())
        if decisions is not None:
            misses = nearest != decisions[start : start + len(labels)]
            start += len(labels)
        squares = (products[:, len(means) : len(means) + rank] - drifts.index_select(0, labels)).square()
        found += torch.stack([hits.sum(), misses.sum(), squares.sum()])
    return found


@except_when(NEXT_WEIGHT_NOT_FINITE, *WEIGHT_EXISTS)
def balancedness(next_weight: Tensor, weight: Tensor) -> Tensor:
    gram = weight @ weight.mT
    return torch.linalg.matrix_norm(next_weight.mT @ next_weight - gram) / torch.linalg.matrix_norm(gram)


@except_when(SPECTRUM_NOT_FINITE)
def rank_of_spectrum(singular_values: Tensor, rtol: float = RANK_RTOL) -> Tensor:
    largest = singular_values[..., :1]
    return ((singular_values > rtol * largest) & (largest > 0)).sum(-1).to(torch.float64)


@except_when(SPECTRUM_NOT_FINITE, ZERO_SPECTRUM)
def stable_rank_of_spectrum(singular_values: Tensor) -> Tensor:
    return (singular_values / singular_values[..., :1]).square().sum(-1)


def spectrum(matrix: Tensor) -> Tensor:
    """Singular values of a float64 matrix `(..., m, n)`, largest first; NaN for a member that is not finite."""
    finite = matrix.isfinite().all(-1).all(-1)[..., None]
    return torch.where(finite, torch.linalg.svdvals(finite_part(matrix)), float("nan"))


def _pair_distances(statistics: ClassStatistics) -> Tensor:
    """||mu_i - mu_j||^2 of all pairs i < j, `(..., K (K - 1) / 2)`."""
    centred = statistics.centred_means
    first, second = _pairs(statistics)
    return _distances(centred, centred)[..., first, second].square()


def _distances(rows: Tensor, others: Tensor) -> Tensor:
    """||r_i - o_j|| `(..., m, n)` by differences, which a product of the two would lose, without holding them all."""
    return torch.cdist(rows, others, compute_mode="donot_use_mm_for_euclid_dist")


def _pairs(statistics: ClassStatistics) -> Tensor:
    return torch.triu_indices(statistics.num_classes, statistics.num_classes, 1, device=statistics.means.device)


def _gram_distance(means: Tensor, target: Tensor) -> Tensor:
    """|| G / ||G||_F - target / ||target||_F ||_F for the Gram matrix G of the rows of `means`."""
    return torch.linalg.matrix_norm(_unit(means @ means.mT) - _unit(target))


def _unit(matrix: Tensor) -> Tensor:
    return matrix / torch.linalg.matrix_norm(matrix, keepdim=True)


def _negligible(largest: Tensor, statistics: ClassStatistics) -> Tensor:
    """Singular value of class means up to which it is rounding noise: of the decomposition, or of the features."""
    of_svd = max(statistics.means.shape[-2:]) * torch.finfo(torch.float64).eps * largest
    return torch.maximum(of_svd, statistics.noise_floor.sqrt())


def _like(statistics: ClassStatistics) -> dict[str, object]:
    return {"dtype": torch.float64, "device": statistics.means.device}
