"""Spectra of every class, for tables."""

from __future__ import annotations

from torch import Tensor

from pipeline.metrics import registry
from pipeline.metrics.class_spectrum import spectra_of
from pipeline.metrics.engine.checks import check_features
from pipeline.metrics.engine.statistics import ClassStatistics
from pipeline.runtime.devices import where_float64_is


@where_float64_is
def class_spectra(features: Tensor, labels: Tensor, num_classes: int) -> dict[str, Tensor]:
    """`erank`, `participation` and `stable_rank` of each class about its mean, `(..., K)`; 1 for a class without
    deviations."""
    check_features(features, labels, num_classes)
    extras = (registry.statistics()["class_scatters"],)
    found = ClassStatistics.from_features(features, labels, num_classes, extras=extras)
    return spectra_of(found, found.extras["class_scatters"])
