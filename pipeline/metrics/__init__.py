"""Measures of deep neural collapse: formulas over features and weights, and their streaming, distributed form.

A file of this folder is a family of metrics (`core` holds those of today), and the file is the registration: see
`registry`. `engine` measures what is registered.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from pipeline.runtime.on_demand import passes_on

if TYPE_CHECKING:
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
    from pipeline.metrics.engine.streaming import CollapseMetrics
    from pipeline.metrics.registry import families, metrics

__all__ = [
    "AdaptiveKernel",
    "CentreAlignment",
    "ClassGeometry",
    "ClassStatistics",
    "CollapseMetrics",
    "CostOfIdentity",
    "CurvatureSummary",
    "FeatureAlignment",
    "GramDistances",
    "HessianParts",
    "LayerCurvature",
    "MeanSpectrum",
    "PairAlignment",
    "RegressionCollapse",
    "ResidualAlignment",
    "SelfDuality",
    "StackAlignment",
    "active_units",
    "adaptive_free_energy",
    "adaptive_kernel",
    "balancedness",
    "block_jacobian",
    "cdnv",
    "centre_alignment",
    "centre_decisions",
    "class_geometry",
    "class_means",
    "class_spectra",
    "class_values",
    "cost_of_identity",
    "coupling",
    "coupling_abs",
    "derivative_kernel",
    "dnc1",
    "dnc1_balanced",
    "dnc2",
    "dnc3",
    "effective_rank",
    "estimated_rank",
    "explained_variance",
    "families",
    "feature_alignment",
    "geometry_errors",
    "gram_distances",
    "hamiltonian",
    "kernel_dnc1",
    "kernel_norm",
    "kinetic_energy",
    "layer_metrics",
    "line_shape_score",
    "mean_field_balancedness",
    "mean_field_features",
    "mean_spectrum",
    "metrics",
    "nc1_pinv",
    "nc1_wm",
    "nc2_frame",
    "nc2_simplex",
    "nc3_duality",
    "nc4",
    "ncm_accuracy",
    "nngp",
    "norm_growth_variation",
    "nrc1",
    "nrc2",
    "nrc3",
    "ntk",
    "nuclear_stable_rank",
    "numerical_rank",
    "potential_energy",
    "r_squared",
    "regression_collapse",
    "residual_alignment",
    "sphere_kernel_log",
    "stable_gamma",
    "stable_rank",
    "stack_alignment",
    "stationarity_residual",
    "undefined_reasons",
]

_FUNCTIONS = {
    "adaptive_kernels": (
        "AdaptiveKernel",
        "adaptive_free_energy",
        "adaptive_kernel",
    ),
    "block_jacobians": (
        "ResidualAlignment",
        "StackAlignment",
        "block_jacobian",
        "coupling",
        "coupling_abs",
        "line_shape_score",
        "norm_growth_variation",
        "residual_alignment",
        "stack_alignment",
    ),
    "centres": (
        "CentreAlignment",
        "centre_alignment",
        "centre_decisions",
    ),
    "class_geometry": (
        "ClassGeometry",
        "GramDistances",
        "MeanSpectrum",
        "class_geometry",
        "geometry_errors",
        "gram_distances",
        "mean_spectrum",
    ),
    "class_spectra": ("class_spectra",),
    "class_values": ("class_values",),
    "curvature": (
        "CurvatureSummary",
        "HessianParts",
        "LayerCurvature",
        "PairAlignment",
    ),
    "feature_paths": (
        "CostOfIdentity",
        "cost_of_identity",
        "estimated_rank",
        "hamiltonian",
        "kernel_norm",
        "kinetic_energy",
        "nuclear_stable_rank",
        "potential_energy",
        "stable_gamma",
        "stationarity_residual",
    ),
    "kernel_matrices": (
        "derivative_kernel",
        "kernel_dnc1",
        "nngp",
        "ntk",
    ),
    "mean_field": (
        "mean_field_balancedness",
        "mean_field_features",
        "nc1_wm",
    ),
    "regression": (
        "RegressionCollapse",
        "SelfDuality",
        "explained_variance",
        "nrc1",
        "nrc2",
        "nrc3",
        "r_squared",
        "regression_collapse",
    ),
    "uniform_sphere": ("sphere_kernel_log",),
}
"""Modules of `functions` and their public names, imported on demand: some load what takes a while."""


_of_engine = passes_on(__name__, __file__)


def __getattr__(name: str) -> object:
    for module, names in _FUNCTIONS.items():
        if name in names:
            return getattr(import_module(f"pipeline.metrics.functions.{module}"), name)
    return _of_engine(name)
