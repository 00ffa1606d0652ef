"""Closed forms: what a perfect descent must find."""

from pipeline.theory.collapsed import (
    CollapsedOptimum,
    Diagnosis,
    DufmFactors,
    DufmProblem,
    collapsed_optimum,
    construct_optimum,
    critical_decay,
    critical_product,
    diagnose,
    partial_loss,
)

__all__ = [
    "CollapsedOptimum",
    "Diagnosis",
    "DufmFactors",
    "DufmProblem",
    "collapsed_optimum",
    "construct_optimum",
    "critical_decay",
    "critical_product",
    "diagnose",
    "partial_loss",
]
