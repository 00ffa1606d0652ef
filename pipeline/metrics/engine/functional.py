"""Collapse metrics of one layer from its features, after Súkeník, Mondelli & Lampert (2023) and those they cite.

Shapes: N samples, K = num_classes, d features. Features `(..., N, d)` of any float dtype on any device, int64 labels
`(N,)` in [0, K), weights `(..., out, in)`; leading "..." are member dimensions (runs measured at once, same labels) and
are those of the result. All values are float64, accumulated in float64, with the classes of any sizes. What has to do
with rows is done where these are; formulas are worked out on the CPU, and that is where the values are.

Notation: class means mu_c, mean of all samples mu_G, M = [mu_1 .. mu_K]; within- and between-class covariances
Sigma_W = 1/N sum (z - mu_c)(z - mu_c)^T and Sigma_B = 1/K sum_c (mu_c - mu_G)(mu_c - mu_G)^T.

Classes without samples are left out. A metric that is undefined on its input (coinciding class means, zero weights,
values that are not finite) is NaN, and `undefined_reasons` says why. Malformed arguments raise ValueError.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pipeline.metrics import core, registry
from pipeline.metrics.engine.at_once import Given, measured, settings_of
from pipeline.metrics.engine.checks import (
    check_decisions,
    check_features,
    check_matrix,
    check_next_weight,
    check_weight,
)
from pipeline.metrics.engine.inputs import kept_classes, spectrum
from pipeline.metrics.engine.plan import Plan
from pipeline.metrics.engine.settings import DEFAULT
from pipeline.metrics.engine.statistics import ClassStatistics


def class_means(features: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Class means, one per row, `(..., K, d)`; NaN for a class without samples."""
    statistics = _all_statistics(features, labels, num_classes)
    return torch.where(statistics.counts[:, None] > 0, statistics.means, float("nan"))


def dnc1(features: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Within-class over between-class variability, tr(Sigma_W) / tr(Sigma_B), `(...)`: 0 is collapse (DNC1).

    Unchanged by rotation, translation and scaling of the features. NaN if the class means coincide.

    >>> features = torch.tensor([[1.0, 0.0], [3.0, 0.0], [-1.0, 0.0], [-3.0, 0.0]])
    >>> dnc1(features, torch.tensor([0, 0, 1, 1]), 2)  # variance 1 about means at 2 and -2
    tensor(0.2500, dtype=torch.float64)
    """
    return core.dnc1(_statistics(features, labels, num_classes))


def dnc1_balanced(features: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Mean variance of a class over that of the class means, (1/K sum v_c) / (1/K sum ||mu_c - m||^2), `(...)`.

    v_c is the mean of ||z - mu_c||^2 over class c, m the unweighted mean of the class means: dnc1 where classes are of
    one size, and unlike it the same whatever their sizes. To be used where these differ. NaN if the means coincide.
    """
    return core.dnc1_balanced(_statistics(features, labels, num_classes))


def nc1_pinv(features: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """tr(Sigma_W Sigma_B^+) / K, `(...)` (NC1, Papyan et al. 2020; their notebook leaves out the 1 / K).

    The pseudo-inverse is truncated to rank K - 1, and further to the directions in which the class means differ by more
    than the rounding of the features (`effective_rank` of them). A singular value of the centred means counts above
    u (max_c ||mu_c|| + max_j ||M_j||), M_j the columns of the uncentred means (and the root-mean-square feature in
    place of a longer mean), with u = 16 eps for float64 features, 2 eps for float32, eps / 3 for half types:
    convert features to float64 only if they were computed in it. NaN if no direction counts.
    """
    return _alone("nc1_pinv", _all_statistics(features, labels, num_classes))


def effective_rank(features: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Number of directions in which the class means differ by more than the rounding of the features, `(...)`.

    At most K - 1; the cut-off is that of `nc1_pinv`.
    """
    return core.effective_rank(_statistics(features, labels, num_classes))


def cdnv(features: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Class-distance normalised variance, `(...)` (Galanti, Gyorgy & Hutter 2021).

    Mean over pairs of classes of (v_i + v_j) / (2 ||mu_i - mu_j||^2), with v_c the mean of ||z - mu_c||^2 over class c.
    NaN if two class means coincide.
    """
    return core.cdnv(_statistics(features, labels, num_classes))


def dnc2(features: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Largest over K-th singular value of the uncentred M, `(...)`: 1 is an orthogonal frame (DNC2).

    Infinite if the class means are linearly dependent at the precision of the features (always so for d < K; the
    cut-off is that of `nc1_pinv`, of the uncentred M), NaN if they are all zero. Unchanged by rotation
    and scaling of the features, but not by translation.
    """
    return core.dnc2(_statistics(features, labels, num_classes))


def nc2_frame(features: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """|| M^T M / ||M^T M||_F - I_K / sqrt(K) ||_F of the uncentred M, `(...)`: 0 is an orthogonal frame."""
    return core.nc2_frame(_statistics(features, labels, num_classes))


def nc2_simplex(features: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Distance of the class means to a simplex equiangular tight frame, `(...)` (NC2, Papyan et al. 2020).

    || G / ||G||_F - (I_K - 1 1^T / K) / sqrt(K - 1) ||_F for the Gram matrix G of the means centred at their unweighted
    mean. For K = 2 this is identically 0, even for random means: any two points are a simplex. Never report it alone.
    """
    return core.nc2_simplex(_statistics(features, labels, num_classes))


def active_units(features: Tensor) -> Tensor:
    """Share of non-zero entries among the N d activations, `(...)`."""
    check_matrix("features", features, "(N, d)")
    labels = torch.zeros(features.shape[-2], dtype=torch.int64, device=features.device)
    return core.active_units(_statistics(features, labels, 2))


def dnc3(weight: Tensor, features: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Misalignment of the rows of a weight matrix with the class means that enter it, `(...)`: 0 is DNC3.

    sum_i w_i sin(row_i, closest class mean) / sum_i w_i, w_i = ||row_i||^2, closest in absolute cosine, means
    uncentred. `features` are those entering `weight`: sigma(H_l) for l >= 2, H_1 for l = 1. Rows of zero length do not
    count, and a class mean of zero is never the closest. NaN if the weight or all class means are zero. Features
    `(N, d)` shared by weights `(S, out, d)` are allowed.
    """
    statistics = _all_statistics(features, labels, num_classes)
    check_weight(weight, features)
    return _alone("dnc3", statistics, weight=weight)


def nc3_duality(weight: Tensor, features: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Distance of the last weight matrix to its class means, `(...)` (NC3, Papyan et al. 2020).

    || W / ||W||_F - B / ||B||_F ||_F for W `(..., K, d)` and the means centred at their unweighted mean m, as for
    nc2_simplex: B = [mu_c - m]^T. About mu_G a collapsed classifier of classes of different sizes would be far from its
    means. Papyan's notebook reports the square of this.
    """
    statistics = _all_statistics(features, labels, num_classes)
    check_weight(weight, features)
    if weight.shape[-2] != num_classes:
        raise ValueError(f"weight must have num_classes = {num_classes} rows, got shape {tuple(weight.shape)}.")
    return _alone("nc3_duality", statistics, weight=weight)


def nc4(features: Tensor, labels: Tensor, decisions: Tensor, num_classes: int) -> Tensor:
    """Share of samples on which the network's decision differs from the nearest class mean's, `(...)` (NC4).

    `decisions` `(..., N)` are the classes the network chose; among equally near means the first counts as nearest.
    """
    statistics = _all_statistics(features, labels, num_classes)
    check_decisions(decisions, features)
    return _alone("nc4", statistics, decisions=decisions)


def ncm_accuracy(
    features: Tensor, labels: Tensor, train_features: Tensor, train_labels: Tensor, num_classes: int
) -> Tensor:
    """Share of samples whose nearest class mean is that of their own class, `(...)`.

    The means are those of `train_features` `(..., M, d)`; `features` `(..., N, d)` may be of the same or another split.
    Samples of classes without training samples do not count.
    """
    reference = _all_statistics(train_features, train_labels, num_classes)
    return _alone("ncm_accuracy", _all_statistics(features, labels, num_classes), reference)


def balancedness(weight: Tensor, next_weight: Tensor) -> Tensor:
    """||W_{l+1}^T W_{l+1} - W_l W_l^T||_F / ||W_l W_l^T||_F of consecutive weights, `(...)`: 0 is balanced."""
    check_matrix("weight", weight)
    check_next_weight(next_weight, weight)
    return core.balancedness(_double(next_weight), _double(weight))


def numerical_rank(matrix: Tensor, rtol: float = core.RANK_RTOL) -> Tensor:
    """Number of singular values of `(..., m, n)` above `rtol` times the largest, `(...)`; 0 for a zero matrix."""
    check_matrix("matrix", matrix)
    return core.rank_of_spectrum(spectrum(_double(matrix)), rtol)


def stable_rank(matrix: Tensor) -> Tensor:
    """||A||_F^2 / ||A||_2^2 of a matrix `(..., m, n)`, `(...)`; NaN for a zero matrix."""
    check_matrix("matrix", matrix)
    return core.stable_rank_of_spectrum(spectrum(_double(matrix)))


def layer_metrics(
    features: Tensor,
    labels: Tensor,
    num_classes: int,
    weight: Tensor | None = None,
    next_weight: Tensor | None = None,
    decisions: Tensor | None = None,
    reference: ClassStatistics | None = None,
    nearest: bool = False,
    min_samples: int = 1,
    families: Sequence[str] = ("core",),
    max_samples: int | None = None,
    probe_ridge: float = 1e-2,
    foreign_directions: int | None = None,
    groups: Tensor | None = None,
    foreign: Tensor | None = None,
    previous: Tensor | None = None,
    gradients: Tensor | None = None,
    given: Tensor | None = None,
) -> dict[str, Tensor]:
    """Every metric of one layer from one set of statistics, `(...)` each, by name.

    All of the `families` (`pipeline.metrics.families`; "all" is every one) that can be had of these arguments. Of
    "core" always dnc1, nc1_pinv, cdnv, dnc2, nc2_frame, nc2_simplex, rank_means, stable_rank_means and active_units.
    With the `weight` that the features enter also dnc3, rank_weight and stable_rank_weight, and with the `next_weight`
    after it balancedness; a weight of K rows without a next one is the last, and gets nc3_duality. With `decisions`
    nc4, with `nearest` ncm_accuracy; the class means of these two are those of `reference`, e.g. of the training split,
    if given, else those of the features themselves.

    Args:
        min_samples, max_samples: classes with fewer or more samples are left out.
        probe_ridge, foreign_directions: as in `MeasureSettings`.
        groups: int64 `(N,)`, the group of each row, 0, 1, ...; the family "groups" needs them, and measures "core" in
            each of them under the suffix "/group=0" and so on.
        foreign: rows of other data `(..., M, d)`, for the family "foreign".
        previous: the rows `(..., N, p)` of the place before, of the same samples, for the family "similarity".
        gradients: mean over samples of the sum over outputs of g g^T `(..., out, out)`, g the gradient of an output by
            what `weight` gives, for the family "agop".
        given: int64 `(N,)`, labels as they were trained on where these are others: with the family "groups", "core" is
            measured by them, too, under the suffix "/labels=given".

    Raises:
        ValueError: for malformed arguments, an unknown family, and one that is named but lacks what it needs.
    """
    settings = settings_of(families, min_samples, max_samples, probe_ridge, foreign_directions)
    own = Given(weight, next_weight, decisions, reference, nearest, groups, foreign, previous, gradients, given)
    return measured(features, labels, num_classes, own, settings)[0]


def undefined_reasons(
    features: Tensor,
    labels: Tensor,
    num_classes: int,
    weight: Tensor | None = None,
    next_weight: Tensor | None = None,
    decisions: Tensor | None = None,
    reference: ClassStatistics | None = None,
    nearest: bool = False,
    min_samples: int = 1,
    families: Sequence[str] = ("core",),
    max_samples: int | None = None,
    probe_ridge: float = 1e-2,
    foreign_directions: int | None = None,
    groups: Tensor | None = None,
    foreign: Tensor | None = None,
    previous: Tensor | None = None,
    gradients: Tensor | None = None,
    given: Tensor | None = None,
) -> dict[str, str]:
    """Say for each of the `layer_metrics` that is not finite why it is not; {} if all are.

    With member dimensions the text names the members concerned: "member 3: the class means coincide (...)".
    """
    settings = settings_of(families, min_samples, max_samples, probe_ridge, foreign_directions)
    own = Given(weight, next_weight, decisions, reference, nearest, groups, foreign, previous, gradients, given)
    return measured(features, labels, num_classes, own, settings)[1]


def _all_statistics(features: Tensor, labels: Tensor, num_classes: int) -> ClassStatistics:
    check_features(features, labels, num_classes)
    return ClassStatistics.from_features(features, labels, num_classes)


def _statistics(features: Tensor, labels: Tensor, num_classes: int) -> ClassStatistics:
    """Those of the classes that have samples."""
    found = _all_statistics(features, labels, num_classes).on_cpu
    return found.counting(kept_classes(DEFAULT, found)[0])


def _alone(
    name: str,
    own: ClassStatistics,
    reference: ClassStatistics | None = None,
    weight: Tensor | None = None,
    decisions: Tensor | None = None,
) -> Tensor:
    """One metric of statistics that have their rows at hand."""
    return Plan(registry.chosen([name])).at_once(own, reference, weight, decisions=decisions)[0][name]


def _double(matrix: Tensor) -> Tensor:
    return matrix.detach().cpu().to(torch.float64)
