"""How class means spread over a sphere: norms, angles, kernels, duality with the classifier, CDNV by powers.

After "Linguistic collapse" (arXiv 2405.17767) [read in its code]. Class means are taken less their *unweighted* mean
mu_*: M_c = mu_c - mu_*, m_c = M_c / ||M_c||; all variances are divided by the count, CoV = std / |mean|. Pairs are
looked at in tiles, never K x K at once. The published table of CDNV has p = 2. For K = 2 the two directions are
opposite whatever the data: then the kernels say nothing.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pipeline.metrics.engine.cases import CLASSES_COUNT, MEANS_EXIST, NO_BETWEEN_SCATTER, WEIGHT_EXISTS
from pipeline.metrics.engine.pairs import directions, median_cdnv, pair_summary, tiles
from pipeline.metrics.engine.statistics import ClassStatistics
from pipeline.metrics.engine.undefined import Exceptional
from pipeline.metrics.registry import class_value, metric, optional

optional(__name__)

ANY_MOTION = ("rotation", "scaling", "translation")
MOVED = ("rotation", "translation")

MEANS_COINCIDE = Exceptional("two class means coincide", lambda s, *_: pair_summary(s).closest <= s.noise_floor)
AT_CENTRE = Exceptional(
    "a class mean is the mean of all class means, and has no direction from it",
    lambda s, *_: (s.balanced_means.square().sum(-1) <= s.noise_floor[..., None]).any(-1),
)
ONE_DIRECTION = Exceptional(
    "two class means lie in one direction from the mean of all",
    lambda s, *_: pair_summary(s).closest_directions <= s.noise_floor / s.balanced_means.square().sum(-1).amin(-1),
)
PLANE = Exceptional("the Riesz kernel of d = 2 is the logarithm: kernel_log", lambda s, *_: _of_width(s, 2))
NO_DUAL = Exceptional("a row of the weight is zero", lambda s, w: (torch.linalg.vector_norm(w, dim=-1) == 0).any(-1))
CENTRAL = Exceptional(
    "the class mean is the mean of all class means, and has no direction from it",
    lambda s, *_: s.balanced_means.square().sum(-1) <= s.noise_floor[..., None],
)
ZERO_ROW = Exceptional("the row of the weight is zero", lambda s, w: torch.linalg.vector_norm(w, dim=-1) == 0)
NO_LOGARITHM = Exceptional("the logarithms average to zero", lambda s, *_: pair_summary(s).logarithm.mean == 0)
NO_COSINE = Exceptional("the cosines average to zero", lambda s, w: _dual(s, w).mean(-1) == 0)
DIRECTIONS = (*MEANS_EXIST, NO_BETWEEN_SCATTER, AT_CENTRE)
KERNELS = (*DIRECTIONS, ONE_DIRECTION)
DUALITY = (*DIRECTIONS, *WEIGHT_EXISTS, NO_DUAL)


def _of_width(statistics: ClassStatistics, width: int) -> Tensor:
    return torch.full_like(statistics.active, statistics.means.shape[-1] == width, dtype=torch.bool)


# --- CDNV ------------------------------------------------------------------------------------------------------------


@metric(*MEANS_EXIST, MEANS_COINCIDE, title="CDNV, p = 1", target=0.0, invariant=ANY_MOTION)
def cdnv_1(statistics: ClassStatistics) -> Tensor:
    """Mean over pairs of (v_i + v_j) / (2 ||mu_i - mu_j||^2): `cdnv`, in tiles."""
    return pair_summary(statistics).cdnv.mean


@metric(*MEANS_EXIST, MEANS_COINCIDE, title="CDNV, p = 2", target=0.0, invariant=MOVED)
def cdnv_2(statistics: ClassStatistics) -> Tensor:
    """Mean over pairs of (v_i + v_j) / (2 ||mu_i - mu_j||^4), what the published table shows."""
    return pair_summary(statistics).cdnv_squared.mean


@metric(*MEANS_EXIST, MEANS_COINCIDE, title="CDNV, median", target=0.0, invariant=ANY_MOTION)
def cdnv_median(statistics: ClassStatistics) -> Tensor:
    """Median over pairs of (v_i + v_j) / (2 ||mu_i - mu_j||^2): the mean is ruled by the closest pair."""
    return median_cdnv(statistics)


# --- norms and angles ------------------------------------------------------------------------------------------------


@metric(*MEANS_EXIST, NO_BETWEEN_SCATTER, title="Variation of norms of class means", target=0.0, invariant=ANY_MOTION)
def norm_cov(statistics: ClassStatistics) -> Tensor:
    """Standard deviation over mean of ||M_c||: 0 is equinorm."""
    norms = torch.linalg.vector_norm(statistics.balanced_means, dim=-1)
    return norms.std(-1, correction=0) / norms.mean(-1)


@metric(*DIRECTIONS, title="Spread of log norms of class means", target=0.0, invariant=ANY_MOTION)
def lognorm_std(statistics: ClassStatistics) -> Tensor:
    """Standard deviation of log ||M_c||."""
    return torch.linalg.vector_norm(statistics.balanced_means, dim=-1).log().std(-1, correction=0)


@metric(*DIRECTIONS, title="Mean cosine of class means", scale="linear", invariant=ANY_MOTION)
def angle_mean(statistics: ClassStatistics) -> Tensor:
    """Mean over pairs of cos(M_i, M_j); -1/(K-1) for a simplex."""
    return pair_summary(statistics).cosine.mean


@metric(*DIRECTIONS, title="Spread of cosines of class means", target=0.0, invariant=ANY_MOTION)
def angle_std(statistics: ClassStatistics) -> Tensor:
    """Standard deviation over pairs of cos(M_i, M_j)."""
    return pair_summary(statistics).cosine.variance.sqrt()


@metric(*DIRECTIONS, title="Cosines of class means off a simplex", target=0.0, invariant=ANY_MOTION)
def angle_error(statistics: ClassStatistics) -> Tensor:
    """Mean over pairs of |cos(M_i, M_j) + 1/(K-1)|."""
    return pair_summary(statistics).off_simplex.mean


@metric(*DIRECTIONS, title="NC2: mean squared distance of cosines to a simplex", target=0.0, invariant=ANY_MOTION)
def nc2_etf_mse(statistics: ClassStatistics) -> Tensor:
    """(1/K^2) sum (<m_i, m_j> - E_ij)^2, E one on and -1/(K-1) off the diagonal (arXiv 2402.13728)."""
    summary, classes = pair_summary(statistics).cosine, statistics.num_classes
    return (summary.variance + (summary.mean + 1 / (classes - 1)).square()) * (classes - 1) / classes


# --- kernels: GNC2, hyperspherical uniformity ------------------------------------------------------------------------


@metric(*KERNELS, title="GNC2: mean log kernel", scale="linear", invariant=ANY_MOTION)
def kernel_log_mean(statistics: ClassStatistics) -> Tensor:
    """Mean over pairs of -log ||m_i - m_j||; -1/2 log(2K/(K-1)) for a simplex."""
    return pair_summary(statistics).logarithm.mean


@metric(*KERNELS, title="GNC2: variance of the log kernel", target=0.0, invariant=ANY_MOTION)
def kernel_log_var(statistics: ClassStatistics) -> Tensor:
    """Variance over pairs of -log ||m_i - m_j||."""
    return pair_summary(statistics).logarithm.variance


@metric(*KERNELS, NO_LOGARITHM, title="GNC2: variation of the log kernel", target=0.0, invariant=ANY_MOTION)
def kernel_log_cov(statistics: ClassStatistics) -> Tensor:
    """Standard deviation over |mean| of -log ||m_i - m_j||."""
    return pair_summary(statistics).logarithm.variation


@metric(*KERNELS, title="Mean distance of directions", scale="linear", invariant=ANY_MOTION)
def dist_mean(statistics: ClassStatistics) -> Tensor:
    """Mean over pairs of ||m_i - m_j||."""
    return pair_summary(statistics).distance.mean


@metric(*KERNELS, title="Variance of distances of directions", target=0.0, invariant=ANY_MOTION)
def dist_var(statistics: ClassStatistics) -> Tensor:
    """Variance over pairs of ||m_i - m_j||."""
    return pair_summary(statistics).distance.variance


@metric(*KERNELS, title="Variation of distances of directions", target=0.0, invariant=ANY_MOTION)
def dist_cov(statistics: ClassStatistics) -> Tensor:
    """Standard deviation over mean of ||m_i - m_j||."""
    return pair_summary(statistics).distance.variation


@metric(*KERNELS, PLANE, title="Mean Riesz kernel", scale="linear", invariant=ANY_MOTION)
def riesz_mean(statistics: ClassStatistics) -> Tensor:
    """Mean over pairs of sign(d-2) ||m_i - m_j||^-(d-2); it overflows for large d."""
    return pair_summary(statistics).riesz.mean


@metric(*KERNELS, PLANE, title="Variance of the Riesz kernel", target=0.0, invariant=ANY_MOTION)
def riesz_var(statistics: ClassStatistics) -> Tensor:
    """Variance over pairs of sign(d-2) ||m_i - m_j||^-(d-2)."""
    return pair_summary(statistics).riesz.variance


@metric(*KERNELS, PLANE, title="Variation of the Riesz kernel", target=0.0, invariant=ANY_MOTION)
def riesz_cov(statistics: ClassStatistics) -> Tensor:
    """Standard deviation over |mean| of sign(d-2) ||m_i - m_j||^-(d-2)."""
    return pair_summary(statistics).riesz.variation


# --- duality with the classifier -------------------------------------------------------------------------------------


def _dual(statistics: ClassStatistics, classifier: Tensor) -> Tensor:
    rows = classifier / torch.linalg.vector_norm(classifier, dim=-1, keepdim=True)
    return (rows * directions(statistics)).sum(-1)


@metric(*DUALITY, title="NC3: mean cosine of rows and class means", target=1.0, scale="linear", invariant=ANY_MOTION)
def dual_mean(statistics: ClassStatistics, classifier: Tensor) -> Tensor:
    """Mean over classes of cos(w_c, M_c)."""
    return _dual(statistics, classifier).mean(-1)


@metric(*DUALITY, title="UNC3: variance of cosines of rows and class means", target=0.0, invariant=ANY_MOTION)
def dual_var(statistics: ClassStatistics, classifier: Tensor) -> Tensor:
    """Variance over classes of cos(w_c, M_c)."""
    return _dual(statistics, classifier).var(-1, correction=0)


@metric(
    *DUALITY, NO_COSINE, title="UNC3: variation of cosines of rows and class means", target=0.0, invariant=ANY_MOTION
)
def dual_cov(statistics: ClassStatistics, classifier: Tensor) -> Tensor:
    """Standard deviation over |mean| of cos(w_c, M_c)."""
    cosines = _dual(statistics, classifier)
    return cosines.std(-1, correction=0) / cosines.mean(-1).abs()


@metric(
    *MEANS_EXIST,
    NO_BETWEEN_SCATTER,
    *WEIGHT_EXISTS,
    title="NC3: rows times class means, to a simplex",
    target=0.0,
    invariant=ANY_MOTION,
)
def nc3_structure(statistics: ClassStatistics, classifier: Tensor) -> Tensor:
    """|| W M^T / ||W M^T||_F - (I - 1 1^T / K) / sqrt(K-1) ||_F, the library's "self-duality error"."""
    means, classes = statistics.balanced_means, statistics.num_classes
    parts = [rows for rows, columns, _ in tiles(classes) if rows == columns]
    size = sum((classifier[..., rows, :] @ means.mT).square().sum((-2, -1)) for rows in parts).sqrt()
    off = torch.zeros_like(size)
    for rows in parts:
        simplex = torch.eye(classes, dtype=means.dtype, device=means.device)[rows] - 1 / classes
        found = classifier[..., rows, :] @ means.mT / size[..., None, None]
        off = off + (found - simplex / math.sqrt(classes - 1)).square().sum((-2, -1))
    return off.sqrt()


# --- of each class ---------------------------------------------------------------------------------------------------


@class_value("variance", *CLASSES_COUNT, title="Variance $v_c$ of the class", scale="log", target=0.0)
def variances(statistics: ClassStatistics) -> Tensor:
    """v_c, the mean of ||z - mu_c||^2 over the class; 0 for one row."""
    return statistics.scatter / statistics.counts.clamp(min=1)


@class_value("norm", *CLASSES_COUNT, title=r"Norm $\|M_c\|$ of the class mean", scale="log")
def norms_of_means(statistics: ClassStatistics) -> Tensor:
    """||M_c||, M_c the class mean less the unweighted mean of all class means."""
    return torch.linalg.vector_norm(statistics.balanced_means, dim=-1)


@class_value(
    "dual",
    *CLASSES_COUNT,
    *WEIGHT_EXISTS,
    of_class=(CENTRAL, ZERO_ROW),
    title="Cosine of the row and the class mean",
    target=1.0,
)
def duals(statistics: ClassStatistics, classifier: Tensor) -> Tensor:
    """cos(w_c, M_c)."""
    return _dual(statistics, classifier)
