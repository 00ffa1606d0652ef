"""Measures of deep neural collapse: formulas over features and weights, and their streaming, distributed form.

A file of this folder is a family of metrics (`core` holds those of today), and the file is the registration: see
`registry`. `engine` measures what is registered.
"""

from pipeline.metrics.engine.alignment import FeatureAlignment, feature_alignment
from pipeline.metrics.engine.functional import (
    active_units,
    balancedness,
    cdnv,
    class_means,
    dnc1,
    dnc1_balanced,
    dnc2,
    dnc3,
    effective_rank,
    layer_metrics,
    nc1_pinv,
    nc2_frame,
    nc2_simplex,
    nc3_duality,
    nc4,
    ncm_accuracy,
    numerical_rank,
    stable_rank,
    undefined_reasons,
)
from pipeline.metrics.engine.statistics import ClassStatistics
from pipeline.metrics.registry import metrics

__all__ = [
    "ClassStatistics",
    "CollapseMetrics",
    "FeatureAlignment",
    "active_units",
    "balancedness",
    "cdnv",
    "class_means",
    "dnc1",
    "dnc1_balanced",
    "dnc2",
    "dnc3",
    "effective_rank",
    "feature_alignment",
    "layer_metrics",
    "metrics",
    "nc1_pinv",
    "nc2_frame",
    "nc2_simplex",
    "nc3_duality",
    "nc4",
    "ncm_accuracy",
    "numerical_rank",
    "stable_rank",
    "undefined_reasons",
]


def __getattr__(name: str) -> object:
    if name == "CollapseMetrics":
        from pipeline.metrics.engine.streaming import CollapseMetrics  # on demand, because torchmetrics takes seconds

        return CollapseMetrics
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
