"""Class statistics as one vector: what a stream keeps, sends and saves."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from pipeline.metrics.engine.statistics import ClassStatistics
from pipeline.metrics.registry import Statistic

BASE = ("counts", "anchors", "drifts", "scatter", "active", "samples")
"""What of `ClassStatistics` the vector begins with; declared statistics follow, and the roundoff; then the views."""

Shapes = dict[str, torch.Size]
"""Of the tensors that make up the vector, by name, in order; those of a view are called `view.name`."""


def shapes_of(num_classes: int, num_features: int, extras: Iterable[Statistic], views: Iterable[str] = ()) -> Shapes:
    """The shapes for K classes of d features."""
    of_base = [(num_classes,), (num_classes, num_features), (num_classes, num_features), (num_classes,), (), ()]
    base = dict(zip(BASE, of_base, strict=True))
    shapes = base | {statistic.name: statistic.shape(num_classes, num_features) for statistic in extras}
    shapes["roundoff"] = ()
    for view in views:
        shapes |= {f"{view}.{name}": shape for name, shape in {**base, "roundoff": ()}.items()}
    return {name: torch.Size(shape) for name, shape in shapes.items()}


def pack(statistics: ClassStatistics) -> Tensor:
    """The vector."""
    return torch.cat([part.reshape(-1) for part in _parts(statistics)])


def _parts(statistics: ClassStatistics) -> list[Tensor]:
    own = [*(getattr(statistics, name) for name in BASE), *statistics.extras.values(), statistics.roundoff]
    return own + [part for view in statistics.views.values() for part in _parts(view)]


def unpack(shapes: Shapes, state: Tensor) -> ClassStatistics:
    """Class statistics of the vector."""
    pieces = state.split([shape.numel() for shape in shapes.values()])
    parts = {name: piece.view(shapes[name]) for name, piece in zip(shapes, pieces, strict=True)}
    views: dict[str, dict[str, Tensor]] = {}
    for name in [name for name in parts if "." in name]:
        view, _, part = name.partition(".")
        views.setdefault(view, {})[part] = parts.pop(name)
    base = {name: parts.pop(name) for name in (*BASE, "roundoff")}
    return ClassStatistics(**base, extras=parts, views={name: ClassStatistics(**own) for name, own in views.items()})


def merge_packed(shapes: Shapes, states: Tensor) -> Tensor:
    """The vector of all parts from theirs `(R, size)`, as torchmetrics stacks them."""
    return pack(ClassStatistics.merged([unpack(shapes, state) for state in states]))
