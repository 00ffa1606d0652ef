"""The shape that a head ends in: spectra of its layers before and after the activation, Gram matrices, curvature.

All from what a run leaves in ``tensors.safetensors``: ``features/1``, ``labels``, ``weights/l``. The fit and the
penalty of the loss are `pipeline.dufm.objective`'s, margins and norms `pipeline.metrics.class_geometry`'s.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from pipeline.dufm.model import forward, layer_taps, num_members
from pipeline.metrics import (
    CurvatureSummary,
    GramDistances,
    LayerCurvature,
    MeanSpectrum,
    RegressionCollapse,
    explained_variance,
    gram_distances,
    mean_spectrum,
    r_squared,
    regression_collapse,
)
from pipeline.metrics.core import RANK_RTOL


class PlaceShape(NamedTuple):
    """Class means at a place of a head, of all members.

    Attributes:
        layer, tap: the place; "pre" is H_l, "post" relu(H_l), and layer L + 1 the outputs.
        spectrum: singular values of the uncentred class means, and their number above `rtol` times the largest.
        gram: distances of their Gram matrix at length one to an orthogonal frame and to a simplex.
    """

    layer: int
    tap: str
    spectrum: MeanSpectrum
    gram: GramDistances


def head_shape(
    features: Tensor, weights: Sequence[Tensor], labels: Tensor, activation: str = "relu", rtol: float = RANK_RTOL
) -> list[PlaceShape]:
    """Spectra and Gram distances of the class means at every place of a head, the outputs last.

    Args:
        features: ``(N, d_1)`` or ``(S, N, d_1)``; labels: int64 ``(N,)``.
        weights: W_l, ``(out, in)`` or ``(S, out, in)`` each.
        rtol: a singular value counts towards the rank if it exceeds this times the largest; between 0 and 1.
    """
    classes = weights[-1].shape[-2]
    outputs = forward(features, weights, activation)[-1]
    places = [*layer_taps(features, weights, activation), (len(weights) + 1, "pre", outputs)]
    return [
        PlaceShape(layer, tap, mean_spectrum(rows, labels, classes, rtol), gram_distances(rows, labels, classes))
        for layer, tap, rows in places
    ]


def head_curvature(
    features: Tensor, weights: Sequence[Tensor], labels: Tensor, activation: str = "relu", loss: str = "mse"
) -> CurvatureSummary:
    """Outliers of the Hessian of the data term in every weight, and the pairs of class means, ``(S, L)`` each.

    Also of a head on the features of a frozen network. The Hessian is never formed: see `LayerCurvature`.
    """
    members = num_members(features, weights)
    found = []
    for member in range(members):
        rows = features[member] if features.dim() == 3 and len(features) > 1 else features.reshape(features.shape[-2:])
        own = [weight[member % len(weight)] if weight.dim() == 3 else weight for weight in weights]
        layers = [LayerCurvature(rows, own, layer, labels, activation, loss) for layer in range(1, len(own) + 1)]
        summaries = [layer.summary() for layer in layers]
        found.append([torch.stack(values) for values in zip(*summaries, strict=True)])
    return CurvatureSummary(*(torch.stack(values) for values in zip(*found, strict=True)))


class HeadRegression(NamedTuple):
    """Regression collapse of what enters the last weight, of all members; see `pipeline.metrics.regression_collapse`.

    Attributes:
        collapse: NRC1, about the mean of the features, NRC2, and NRC3 at the gamma where it is least, ``(S,)`` each.
        explained_variance: shares of the features' first five principal components, ``(S, 5)``.
        r_squared: of the outputs, ``(S,)``.
    """

    collapse: RegressionCollapse
    explained_variance: Tensor
    r_squared: Tensor


def head_regression(
    features: Tensor,
    weights: Sequence[Tensor],
    targets: Tensor,
    activation: str = "relu",
    bias: Tensor | None = None,
) -> HeadRegression:
    """How far a head that is fitted to targets ``(N, n)`` is collapsed.

    Args:
        features: ``(N, d_1)`` or ``(S, N, d_1)``; weights: W_l ``(S, out, in)``, at least one.
        bias: of the outputs, ``(S, n)``.
    """
    for _, _, entering in layer_taps(features, weights, activation):  # keeps one layer alive
        last = entering
    members = num_members(features, weights)
    last, weight = last.expand(members, -1, -1), weights[-1].expand(members, -1, -1)
    outputs = last @ weight.mT if bias is None else last @ weight.mT + bias[..., None, :]
    collapse = regression_collapse(last, weight, targets)
    return HeadRegression(collapse, explained_variance(last), r_squared(outputs, targets))
