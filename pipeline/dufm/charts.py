"""Points of many members as rows of free coordinates, in which constrained features need no constraint.

Non-negative features are squares, h = v^2; on the sphere they are directions, h = v / ||v||; on both, directions of
squares. Where v is 0 the gradient in v is, too, so entries begin a little above zero.
"""

import torch
from torch import Tensor

from pipeline.dufm.cost import Point

LEAST_ROOT = 1e-5
"""Where roots of entries that are zero begin."""


class Chart:
    """Coordinates `(S, P)` of points: features if they are free, then weights, then the bias.

    Args:
        point: where it starts; it gives shapes and, where these are frozen, the features.
        constraint: a name of `pipeline.dufm.CONSTRAINTS`.
        free: whether the features move.

    Attributes:
        start: the coordinates of `point`, float64.
    """

    def __init__(self, point: Point, constraint: str, *, free: bool) -> None:
        self._nonnegative, self._sphere = (free and word in constraint for word in ("nonnegative", "sphere"))
        members = len(point.weights[0]) if point.weights else len(point.features)
        features = point.features.double()
        self._frozen = None if free else features
        parts = [features.expand(members, *features.shape[-2:])] if free else []
        if self._nonnegative:
            parts[0] = parts[0].clamp(min=LEAST_ROOT**2).sqrt()
        parts += [weight.double().expand(members, *weight.shape[-2:]) for weight in point.weights]
        parts += [] if point.bias is None else [point.bias.double().expand(members, -1)]
        self._free, self._has_bias = free, point.bias is not None
        self._shapes = [part.shape[1:] for part in parts]
        self.start = torch.cat([part.reshape(members, -1) for part in parts], dim=1)

    def point(self, position: Tensor, members: Tensor | None = None) -> Point:
        """The point at coordinates `(R, P)`; `members` says whose they are, all by default."""
        parts = self._parts(position)
        features = self._features(parts.pop(0)) if self._free else self._of(members)
        bias = parts.pop() if self._has_bias else None
        return Point(features, tuple(parts), bias)

    def pulled_back(self, position: Tensor, gradient: Point) -> Tensor:
        """The gradient with respect to the coordinates, `(R, P)`."""
        parts = [*([gradient.features] if self._free else []), *gradient.weights]
        if self._nonnegative or self._sphere:
            parts[0] = self._features_pulled_back(self._parts(position)[0], gradient.features)
        parts += [gradient.bias] if self._has_bias else []
        return torch.cat([part.reshape(len(position), -1) for part in parts], dim=1)

    def gradient_norm(self, point: Point, gradient: Point) -> Tensor:
        """||gradient||_2 `(S,)` over all that is free, of features without what their constraint holds."""
        parts = [*gradient.weights, *([gradient.bias] if self._has_bias else [])]
        if self._free:
            features, along = point.features, gradient.features
            if self._sphere:
                along = along - (along * features).sum(-1, keepdim=True) * features
            if self._nonnegative:
                along = torch.where(features > 2 * LEAST_ROOT**2, along, along.clamp(max=0))
            parts.append(along)
        return torch.cat([part.reshape(len(part), -1) for part in parts], dim=1).norm(dim=1)

    def _parts(self, position: Tensor) -> list[Tensor]:
        sizes = [shape.numel() for shape in self._shapes]
        pieces = position.split(sizes, dim=1)
        return [piece.reshape(len(position), *shape) for piece, shape in zip(pieces, self._shapes, strict=True)]

    def _of(self, members: Tensor | None) -> Tensor:
        return self._frozen if members is None or self._frozen.dim() == 2 else self._frozen[members]

    def _features(self, roots: Tensor) -> Tensor:
        features = roots.square() if self._nonnegative else roots
        return features / features.norm(dim=-1, keepdim=True) if self._sphere else features

    def _features_pulled_back(self, roots: Tensor, gradient: Tensor) -> Tensor:
        raw = roots.square() if self._nonnegative else roots
        if self._sphere:
            norms = raw.norm(dim=-1, keepdim=True)
            unit = raw / norms
            gradient = (gradient - (gradient * unit).sum(-1, keepdim=True) * unit) / norms
        return 2 * roots * gradient if self._nonnegative else gradient
