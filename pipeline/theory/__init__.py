"""Closed forms: what a perfect descent must find, and what a loss says about where one ended."""

from pipeline.theory._problem import Anchor, DufmFactors, DufmProblem, Problem
from pipeline.theory._reference import ATTAINED, BOUND, OPTIMUM, STATIONARY, Reference
from pipeline.theory._references import Diagnosis, diagnose, diagnose_among, lowest, named, references
from pipeline.theory.providers.collapsed import (
    CollapsedOptimum,
    collapsed_optimum,
    construct_optimum,
    critical_decay,
    critical_product,
    partial_loss,
)
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

__all__ = [
    "ATTAINED",
    "BOUND",
    "OPTIMUM",
    "STATIONARY",
    "Anchor",
    "CollapsedOptimum",
    "Diagnosis",
    "DufmFactors",
    "DufmProblem",
    "GufmOptimum",
    "ImbalancedCrossEntropy",
    "Problem",
    "Reference",
    "SpectralOptimum",
    "collapse_threshold",
    "collapsed_optimum",
    "construct_optimum",
    "critical_decay",
    "critical_product",
    "diagnose",
    "diagnose_among",
    "frame_reference",
    "gufm_optimum",
    "imbalanced_cross_entropy",
    "lowest",
    "named",
    "partial_loss",
    "references",
    "relu_low_rank_loss",
    "small_code_loss",
    "spectral_optimum",
    "spectral_threshold",
    "srg_limit_ratio",
    "srg_loss",
]
