"""Spectra of each class about its mean; takes K d^2 numbers.

Means over classes are metrics, values of each class stand beside them (`pipeline.metrics.class_spectra` gives these of
rows at hand). Stable rank is ||A||_F^2 / ||A||_2^2 of the deviations A; one widely used code divides the top
eigenvalue, but not the Frobenius norm, by n_c: its values are n_c times too large [read]. A class of one row, or a
collapsed one, has rank 1: its zero deviations point nowhere.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pipeline.metrics.engine.cases import CLASSES_COUNT, MEANS_EXIST
from pipeline.metrics.engine.chunks import Chunk
from pipeline.metrics.engine.statistics import ClassStatistics
from pipeline.metrics.registry import class_value, metric, optional, statistic
from pipeline.metrics.spectrum import effective_rank_of, eigenvalues, participation_of, stable_rank_of

optional(__name__)

ANY_MOTION = ("rotation", "scaling", "translation")


def _merged(values: Sequence[Tensor], shifts: Tensor, counts: Tensor) -> Tensor:
    # Class by class sum_r n_r shift_r shift_r^T, all parts at once: (..., K, d, R) @ (..., K, R, d).
    of_class = shifts.movedim(0, -2)
    between = (counts.movedim(0, -2) * of_class).mT @ of_class
    return sum(values, start=between)


@statistic(shape=lambda num_classes, num_features: (num_classes, num_features, num_features), merge=_merged)
def class_scatters(chunk: Chunk) -> Tensor:
    """Scatter matrix of each class, sum over its samples of (z - mu_c)(z - mu_c)^T, `(..., K, d, d)`."""
    centred, width = chunk.centred, chunk.drifts.shape[-1]
    found = chunk.drifts.new_zeros(*chunk.drifts.shape[:-1], width, width)
    for label in chunk.labels.unique().tolist():
        if 0 <= label < chunk.num_classes:
            own = centred[..., chunk.labels == label, :]
            found[..., label, :, :] = own.mT @ own
    return found


def spectra_of(statistics: ClassStatistics, class_scatters: Tensor) -> dict[str, Tensor]:
    """`erank`, `participation` and `stable_rank` of each class, `(..., K)`; 1 for a class without deviations."""
    values = eigenvalues(class_scatters)
    spread = statistics.scatter > statistics.noise_floor[..., None] * statistics.counts
    formulas = {"erank": effective_rank_of, "participation": participation_of, "stable_rank": stable_rank_of}
    return {name: torch.where(spread, formula(values), 1.0) for name, formula in formulas.items()}


@metric(*MEANS_EXIST, title="Effective rank of a class", scale="linear", invariant=ANY_MOTION)
def erank_class(statistics: ClassStatistics, class_scatters: Tensor) -> Tensor:
    """Mean over classes of the effective rank of a class about its mean."""
    return spectra_of(statistics, class_scatters)["erank"].mean(-1)


@metric(*MEANS_EXIST, title="Participation ratio of a class", scale="linear", invariant=ANY_MOTION)
def participation_class(statistics: ClassStatistics, class_scatters: Tensor) -> Tensor:
    """Mean over classes of the participation ratio of a class about its mean."""
    return spectra_of(statistics, class_scatters)["participation"].mean(-1)


@metric(*MEANS_EXIST, title="Stable rank of a class", scale="linear", invariant=ANY_MOTION)
def stable_rank_class(statistics: ClassStatistics, class_scatters: Tensor) -> Tensor:
    """Mean over classes of the stable rank of the deviations of a class from its mean."""
    return spectra_of(statistics, class_scatters)["stable_rank"].mean(-1)


# --- of each class ---------------------------------------------------------------------------------------------------


@class_value("erank", *CLASSES_COUNT, title="Effective rank of the class")
def eranks(statistics: ClassStatistics, class_scatters: Tensor) -> Tensor:
    """Effective rank of the class about its mean."""
    return spectra_of(statistics, class_scatters)["erank"]


@class_value("participation", *CLASSES_COUNT, title="Participation ratio of the class")
def participations(statistics: ClassStatistics, class_scatters: Tensor) -> Tensor:
    """Participation ratio of the class about its mean."""
    return spectra_of(statistics, class_scatters)["participation"]


@class_value("stable_rank", *CLASSES_COUNT, title="Stable rank of the class")
def stable_ranks(statistics: ClassStatistics, class_scatters: Tensor) -> Tensor:
    """Stable rank of the deviations of the class from its mean."""
    return spectra_of(statistics, class_scatters)["stable_rank"]
