"""Checks of the arguments shared by the metrics: each raises ValueError in one sentence naming the argument."""

from __future__ import annotations

import math

import torch
from torch import Tensor

MOST_GROUPS = 10_000
"""Of which each gets values of its own."""


def check_number(name: str, value: float, *, zero: bool = False) -> None:
    """A finite positive number, or with `zero` one of at least 0."""
    try:
        fits = bool((zero and value == 0) or 0 < value < math.inf)
    except (TypeError, RuntimeError):  # text, None, several numbers
        fits = False
    if not fits:
        allowed = "number of at least 0" if zero else "positive number"
        raise ValueError(f"{name} must be a finite {allowed}, got {value!r}.")


def check_num_classes(num_classes: int) -> None:
    """Collapse is about telling classes apart: an int, at least 2."""
    if isinstance(num_classes, bool) or not isinstance(num_classes, int) or num_classes < 2:
        raise ValueError(f"num_classes must be an int of at least 2, got {num_classes!r}.")


def check_features(features: Tensor, labels: Tensor, num_classes: int) -> None:
    """Features `(..., N, d)` of a float dtype, labels int64 `(N,)` on the same device and in [0, num_classes)."""
    check_num_classes(num_classes)
    check_matrix("features", features, "(N, d)")
    check_labels(labels, features)
    check_label_range(labels, num_classes)


def check_labels(labels: Tensor, features: Tensor) -> None:
    """Labels int64 `(N,)` beside features `(..., N, d)`, on the same device; their values are not looked at."""
    samples = features.shape[-2]
    if not isinstance(labels, Tensor) or labels.dtype != torch.int64:
        raise ValueError(f"labels must be an int64 tensor, got {_kind(labels)}.")
    if labels.shape != (samples,):
        raise ValueError(f"labels must have shape ({samples},), one per sample, got {tuple(labels.shape)}.")
    if labels.device != features.device:
        raise ValueError(f"labels must be on the device of features, {features.device}, got {labels.device}.")


def check_groups(groups: Tensor, features: Tensor) -> None:
    """Groups int64 `(N,)` of at least 0 beside features `(..., N, d)`."""
    if not isinstance(groups, Tensor) or groups.dtype != torch.int64 or groups.shape != (features.shape[-2],):
        got = tuple(groups.shape) if isinstance(groups, Tensor) and groups.dtype == torch.int64 else _kind(groups)
        raise ValueError(f"groups must be an int64 tensor ({features.shape[-2]},), one per sample, got {got}.")
    if groups.numel() and int(groups.min()) < 0:
        raise ValueError(f"groups must be at least 0, got {int(groups.min())}.")
    if groups.numel() and int(groups.max()) >= MOST_GROUPS:
        raise ValueError(f"groups must be numbers below {MOST_GROUPS}, each is measured, got {int(groups.max())}.")


def check_label_range(labels: Tensor, num_classes: int) -> None:
    """Labels in [0, num_classes); on a GPU this waits for the result."""
    if labels.numel() == 0:
        return
    lowest, highest = (int(bound) for bound in labels.aminmax())
    if lowest < 0 or highest >= num_classes:
        wrong = lowest if lowest < 0 else highest
        raise ValueError(f"labels must lie in 0..{num_classes - 1} for num_classes = {num_classes}, got {wrong}.")


def check_matrix(name: str, matrix: Tensor, shape: str = "(m, n)") -> None:
    """A float tensor of at least two dimensions, with at least one column."""
    if not isinstance(matrix, Tensor) or not matrix.is_floating_point():
        raise ValueError(f"{name} must be a floating-point tensor, got {_kind(matrix)}.")
    if matrix.ndim < 2 or matrix.shape[-1] < 1:
        raise ValueError(
            f"{name} must have shape {shape}, with member dimensions first if any, got {tuple(matrix.shape)}."
        )


def check_weight(weight: Tensor, features: Tensor) -> None:
    """A weight `(..., out, d)` that features `(..., N, d)` can enter."""
    check_matrix("weight", weight, "(out, in)")
    if weight.shape[-1] != features.shape[-1]:
        raise ValueError(
            f"weight must have {features.shape[-1]} columns, one per feature, got shape {tuple(weight.shape)}."
        )
    _check_members("weight", weight.shape[:-2], "features", features.shape[:-2])


def check_next_weight(next_weight: Tensor, weight: Tensor) -> None:
    """A weight `(..., out', out)` that the output of `weight` `(..., out, in)` can enter."""
    check_matrix("next_weight", next_weight, "(out, in)")
    if next_weight.shape[-1] != weight.shape[-2]:
        raise ValueError(
            f"next_weight must have {weight.shape[-2]} columns, one per row of weight, "
            f"got shape {tuple(next_weight.shape)}."
        )
    _check_members("next_weight", next_weight.shape[:-2], "weight", weight.shape[:-2])


def check_decisions(decisions: Tensor, features: Tensor) -> None:
    """Decisions int64 `(..., N)` beside features `(..., N, d)`."""
    if not isinstance(decisions, Tensor) or decisions.dtype != torch.int64:
        raise ValueError(f"decisions must be an int64 tensor of class indices, got {_kind(decisions)}.")
    if decisions.shape[-1:] != features.shape[-2:-1]:
        raise ValueError(
            f"decisions must have shape (..., {features.shape[-2]}), one per sample, got {tuple(decisions.shape)}."
        )
    _check_members("decisions", decisions.shape[:-1], "features", features.shape[:-2])


def _check_members(name: str, members: torch.Size, other: str, other_members: torch.Size) -> None:
    # Without member dimensions of its own a tensor is shared by all members of the other.
    if members and other_members and members != other_members:
        raise ValueError(
            f"{name} must have the member dimensions of {other}, {tuple(other_members)}, or none, got {tuple(members)}."
        )


def _kind(value: object) -> str:
    return f"a {value.dtype} tensor" if isinstance(value, Tensor) else type(value).__name__
