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
from pipeline.theory.providers.small_code import small_code_loss
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
    "Problem",
    "Reference",
    "collapsed_optimum",
    "construct_optimum",
    "critical_decay",
    "critical_product",
    "diagnose",
    "diagnose_among",
    "lowest",
    "named",
    "partial_loss",
    "references",
    "small_code_loss",
    "srg_limit_ratio",
    "srg_loss",
]
