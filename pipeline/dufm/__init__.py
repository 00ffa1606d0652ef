"""The deep unconstrained features model: its layers, objective, starting points and descent."""

from pipeline.dufm.model import (
    ACTIVATIONS,
    DufmHead,
    ObjectiveValue,
    activate,
    balanced_features,
    check_activation,
    check_shapes,
    forward,
    initial_features,
    initial_weights,
    layer_taps,
    num_members,
    objective,
    one_hot,
    squared_norm,
    weight_decay_table,
)

__all__ = [
    "ACTIVATIONS",
    "DufmHead",
    "ObjectiveValue",
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
