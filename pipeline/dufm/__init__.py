"""The deep unconstrained features model: its layers, objective, starting points and descent."""

from typing import TYPE_CHECKING

from pipeline.runtime.on_demand import passes_on

if TYPE_CHECKING:
    from pipeline.dufm.choices import CONSTRAINTS
    from pipeline.dufm.constraints import Constraint
    from pipeline.dufm.cost import Anchor, Cost, ObjectiveValue, Point, objective
    from pipeline.dufm.model import (
        ACTIVATIONS,
        DufmHead,
        activate,
        balanced_features,
        check_activation,
        check_shapes,
        forward,
        initial_features,
        initial_weights,
        layer_taps,
        num_members,
        one_hot,
        squared_norm,
        weight_decay_table,
    )

__all__ = [
    "ACTIVATIONS",
    "CONSTRAINTS",
    "Anchor",
    "Constraint",
    "Cost",
    "DufmHead",
    "ObjectiveValue",
    "Point",
    "activate",
    "balanced_features",
    "check_activation",
    "check_shapes",
    "forward",
    "initial_features",
    "initial_weights",
    "layer_taps",
    "num_members",
    "objective",
    "one_hot",
    "squared_norm",
    "weight_decay_table",
]

__getattr__ = passes_on(__name__, __file__)
