"""Margins, norms and angles of classes at the end of a head, singular values of class means, Gram matrices.

For the studies of arXiv 2405.14468 (spectra), 2401.02058 (margins and norms of classes of different sizes)
and 2306.07960 (Gram matrices). What theory says of a problem is had by measuring the point that its reference builds,
and `geometry_errors` compares the two.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from pipeline.metrics.core import RANK_RTOL, rank_of_spectrum
from pipeline.metrics.engine.checks import check_features, check_weight
from pipeline.metrics.engine.statistics import ClassStatistics
from pipeline.runtime.devices import where_float64_is


class ClassGeometry(NamedTuple):
    """Of every class, `(..., K)` unless said otherwise.

    Attributes:
        margin: mean over samples of the own logit less the largest other.
        margin_to_all: mean over samples of the own logit less the mean of the others.
        feature_norm: mean over samples of ||h||^2.
        row_norm: ||w_k||^2 of the rows of the weight.
        feature_cosines: of the class means, uncentred, `(..., K, K)`; 0 off the diagonal for an orthogonal frame.
        row_cosines: of the rows of the weight, `(..., K, K)`.
    """

    margin: Tensor
    margin_to_all: Tensor
    feature_norm: Tensor
    row_norm: Tensor
    feature_cosines: Tensor
    row_cosines: Tensor


@where_float64_is
def class_geometry(
    features: Tensor, weight: Tensor, labels: Tensor, num_classes: int, bias: Tensor | None = None
) -> ClassGeometry:
    """Margins, norms and angles of features `(..., N, d)` that enter the last weight `(..., K, d)`.

    NaN for a class without samples, and for the angles of a mean or row of zero.
    """
    check_features(features, labels, num_classes)
    check_weight(weight, features)
    if weight.shape[-2] != num_classes:
        raise ValueError(f"weight must have num_classes = {num_classes} rows, got shape {tuple(weight.shape)}.")
    rows, weight = features.detach().double(), weight.detach().double()
    outputs = rows @ weight.mT
    if bias is not None:
        outputs = outputs + bias.detach().double()[..., None, :]
    own_label = torch.nn.functional.one_hot(labels, num_classes).bool()
    own = outputs[..., own_label]  # (..., N), in the order of the rows
    largest = outputs.masked_fill(own_label, -math.inf).amax(-1)
    others = (outputs.sum(-1) - own) / (num_classes - 1)
    member = own_label.double()
    mean = lambda values: (values @ member) / member.sum(0)  # noqa: E731
    means = member.mT @ rows / member.sum(0)[:, None]
    return ClassGeometry(
        margin=mean(own - largest),
        margin_to_all=mean(own - others),
        feature_norm=mean(rows.square().sum(-1)),
        row_norm=weight.square().sum(-1).expand(*outputs.shape[:-2], num_classes),
        feature_cosines=_cosines(means),
        row_cosines=_cosines(weight),
    )


def _cosines(rows: Tensor) -> Tensor:
    units = rows / torch.linalg.vector_norm(rows, dim=-1, keepdim=True)
    return units @ units.mT


def geometry_errors(found: ClassGeometry, expected: ClassGeometry) -> dict[str, Tensor]:
    """How far a geometry is from another, e.g. that of a reference's point, by the names of `ClassGeometry`, `(...)`.

    Largest deviation over the classes, relative to the largest expected value; of cosines, the largest deviation.
    """
    errors = {}
    for name, own, theory in zip(ClassGeometry._fields, found, expected, strict=True):
        if name.endswith("cosines"):
            errors[name] = (own - theory).abs().flatten(-2).amax(-1)
        else:
            errors[name] = (own - theory).abs().amax(-1) / theory.abs().amax(-1)
    return errors


class MeanSpectrum(NamedTuple):
    """Singular values of the uncentred class means, largest first, `(..., K)`, and how many exceed `rtol` times the
    largest, `(...)`."""

    values: Tensor
    rank: Tensor
    rtol: float


@where_float64_is
def mean_spectrum(features: Tensor, labels: Tensor, num_classes: int, rtol: float = RANK_RTOL) -> MeanSpectrum:
    """Spectrum of the class means of features `(..., N, d)`, e.g. of H_l and of ReLU(H_l)."""
    check_features(features, labels, num_classes)
    if not 0 < rtol < 1:
        raise ValueError(f"rtol must lie between 0 and 1, got {rtol!r}.")
    values = ClassStatistics.from_features(features, labels, num_classes).mean_singular_values
    return MeanSpectrum(values, rank_of_spectrum(values, rtol), rtol)


class GramDistances(NamedTuple):
    """|| G / ||G||_F - T / ||T||_F ||_F `(...)` for T an orthogonal frame, I, and a simplex, I - 1 1^T / K."""

    frame: Tensor
    simplex: Tensor


@where_float64_is
def gram_distances(features: Tensor, labels: Tensor, num_classes: int, normalised: bool = True) -> GramDistances:
    """Distances of the Gram matrix of the class means of features `(..., N, d)` to a frame and to a simplex.

    The means are uncentred, and at length one where `normalised`; NaN for a mean of zero then. `nc2_frame` and
    `nc2_simplex` are of means that are not normalised, the latter less their own mean.
    """
    check_features(features, labels, num_classes)
    means = ClassStatistics.from_features(features, labels, num_classes).means
    gram = _cosines(means) if normalised else means @ means.mT
    frame = torch.eye(num_classes, dtype=gram.dtype, device=gram.device)
    unit = lambda matrix: matrix / torch.linalg.matrix_norm(matrix, keepdim=True)  # noqa: E731
    away = [torch.linalg.matrix_norm(unit(gram) - unit(target)) for target in (frame, frame - 1 / num_classes)]
    return GramDistances(*away)
