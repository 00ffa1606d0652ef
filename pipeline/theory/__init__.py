"""Closed forms: what a perfect descent must find, and what a loss says about where one ended."""

from pipeline.theory._problem import Anchor, DufmFactors, DufmProblem, Problem
from pipeline.theory._reference import ATTAINED, BOUND, OPTIMUM, STATIONARY, Reference
from pipeline.theory._references import Diagnosis, diagnose, diagnose_among, lowest, named, references
from pipeline.theory.batch_norm import BatchNormOptimum, bn_optimum, cross_entropy_bound
from pipeline.theory.hessian import HessianOutliers, full_hessian, hessian_outliers
from pipeline.theory.linear_tail import within_bound
from pipeline.theory.margins import max_margin_directions
from pipeline.theory.providers.anchored import AnchoredResponse, anchored_response, mufm_path, mufm_strength
from pipeline.theory.providers.collapsed import (
    CollapsedOptimum,
    collapsed_optimum,
    construct_optimum,
    critical_decay,
    critical_product,
    partial_loss,
)
from pipeline.theory.providers.contrastive_frames import ContrastiveOptimum, contrastive_optimum
from pipeline.theory.providers.frames import frame_reference
from pipeline.theory.providers.orthogonal import (
    ImbalancedCrossEntropy,
    collapse_threshold,
    imbalanced_cross_entropy,
)
from pipeline.theory.providers.relu_low_rank import relu_low_rank_loss
from pipeline.theory.providers.small_code import small_code_loss
from pipeline.theory.providers.spectral import SpectralOptimum, spectral_optimum, spectral_threshold
from pipeline.theory.providers.sphere import GufmOptimum, gufm_optimum
from pipeline.theory.providers.srg import srg_limit_ratio, srg_loss
from pipeline.theory.shallow import (
    UfmOptimum,
    attainability,
    attainability_probability,
    attaining_network,
    splitting_cost,
    ufm_nonnegative,
)

__all__ = [
    "ATTAINED",
    "BOUND",
    "OPTIMUM",
    "STATIONARY",
    "Anchor",
    "AnchoredResponse",
    "BatchNormOptimum",
    "CollapsedOptimum",
    "ContrastiveOptimum",
    "Diagnosis",
    "DufmFactors",
    "DufmProblem",
    "GufmOptimum",
    "HessianOutliers",
    "ImbalancedCrossEntropy",
    "Problem",
    "Reference",
    "SpectralOptimum",
    "UfmOptimum",
    "anchored_response",
    "attainability",
    "attainability_probability",
    "attaining_network",
    "bn_optimum",
    "collapse_threshold",
    "collapsed_optimum",
    "construct_optimum",
    "contrastive_optimum",
    "critical_decay",
    "critical_product",
    "cross_entropy_bound",
    "diagnose",
    "diagnose_among",
    "frame_reference",
    "full_hessian",
    "gufm_optimum",
    "hessian_outliers",
    "imbalanced_cross_entropy",
    "lowest",
    "max_margin_directions",
    "mufm_path",
    "mufm_strength",
    "named",
    "partial_loss",
    "references",
    "relu_low_rank_loss",
    "small_code_loss",
    "spectral_optimum",
    "spectral_threshold",
    "splitting_cost",
    "srg_limit_ratio",
    "srg_loss",
    "ufm_nonnegative",
    "within_bound",
]
