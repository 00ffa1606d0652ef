"""Closed forms: what a perfect descent must find. One module is one family of problems."""

from pipeline.theory._problem import DufmFactors, DufmProblem
from pipeline.theory._references import (
    ATTAINED,
    BOUND,
    OPTIMUM,
    STATIONARY,
    Diagnosis,
    Reference,
    diagnose,
    diagnose_among,
    lowest,
    references,
)
from pipeline.theory._small_code import small_code_loss
from pipeline.theory.collapsed import (
    CollapsedOptimum,
    collapsed_optimum,
    construct_optimum,
    critical_decay,
    critical_product,
    partial_loss,
)

__all__ = [
    "ATTAINED",
    "BOUND",
    "OPTIMUM",
    "STATIONARY",
    "CollapsedOptimum",
    "Diagnosis",
    "DufmFactors",
    "DufmProblem",
    "Reference",
    "collapsed_optimum",
    "construct_optimum",
    "critical_decay",
    "critical_product",
    "diagnose",
    "diagnose_among",
    "lowest",
    "partial_loss",
    "references",
    "small_code_loss",
]
