"""Measures of deep neural collapse: formulas over features and weights, and their streaming, distributed form."""

from pipeline.metrics.alignment import FeatureAlignment, feature_alignment
from pipeline.metrics.functional import (
    active_units,
    balancedness,
    cdnv,
    class_means,
    dnc1,
    dnc2,
    dnc3,
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
from pipeline.metrics.statistics import ClassStatistics

__all__ = [
    "ClassStatistics",
    "CollapseMetrics",
    "FeatureAlignment",
    "active_units",
    "balancedness",
    "cdnv",
    "class_means",
    "dnc1",
    "dnc2",
    "dnc3",
    "feature_alignment",
    "layer_metrics",
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
        from pipeline.metrics.streaming import CollapseMetrics  # on demand, because torchmetrics takes seconds

        return CollapseMetrics
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
