"""Gram matrices of the class means per head layer, from ``tensors.safetensors``: the one thing a report computes."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open

from pipeline.runtime.text import printable
from pipeline.views.html.charts import Chart, Figure

MOST_CLASSES = 100
"""Above it a cell is smaller than a pixel, and the page larger than anyone wants to send."""
NAMED_CLASSES = 10
"""Up to here cells show their numbers and axes the classes."""


@dataclass(frozen=True)
class Gram:
    """M^T M of one layer's class means M (columns), ``(K, K)`` float64, scaled to mean diagonal 1.

    ``matrix`` is None where all means are zero.
    """

    layer: int
    tap: str
    matrix: np.ndarray | None


def gram_matrices(folder: Path, summary: Mapping[str, Any]) -> tuple[list[Gram], int]:
    """The Gram matrices of every place of the head, and the seed they are of: the first that did not diverge.

    Layer 1 has a matrix before the ReLU, the others before and after it.

    Raises:
        LookupError: they cannot be had; the message says why.
    """
    problem, path = summary.get("problem"), folder / "tensors.safetensors"
    if not problem or "seeds" not in summary or not path.is_file():
        raise LookupError(summary.get("tensors_reason") or "the run has no tensors.safetensors")
    if problem.get("has_classes") is False:
        raise LookupError("the targets are a matrix without classes, so there are no class means")
    if problem["num_classes"] > MOST_CLASSES:
        raise LookupError(f"{problem['num_classes']} classes are more than the {MOST_CLASSES} that are drawn")
    diverged = summary.get("diverged") or {}
    member = next((index for index, seed in enumerate(summary["seeds"]) if str(seed) not in diverged), None)
    if member is None:
        raise LookupError("all seeds diverged")
    relu, classes = problem["activation"] == "relu", problem["num_classes"]
    try:
        labels, features, weights = _read(path, member, problem["depth"])
        if set(np.unique(labels)) != set(range(classes)):
            raise ValueError(f"its labels are not those of {classes} classes")
        with np.errstate(all="ignore"):
            grams = list(_grams(labels, features, weights, classes, relu))
    except Exception as error:  # of a file that may be anything
        why = printable(str(error).partition("\n")[0]) or type(error).__name__
        raise LookupError(f"tensors.safetensors is unreadable: {why}") from error
    return grams, summary["seeds"][member]


def gram_chart(gram: Gram, classes: list[str], relu: bool) -> Chart:
    """A heat map; the page gives it its colours, whose middle is zero."""
    title = f"ReLU(H{gram.layer})" if gram.tap == "post" and relu else f"H{gram.layer}"
    few = gram.matrix is not None and len(classes) <= NAMED_CLASSES
    matrix = [] if gram.matrix is None else [[float(f"{value:.4g}") for value in row] for row in gram.matrix]
    heat = {
        "type": "heatmap",
        "z": matrix,
        "x": list(range(len(classes))),
        "y": list(range(len(classes))),
        "zmin": -1,
        "zmax": 1,
        "showscale": False,
        "hovertemplate": "classes %{x} and %{y}: %{z:.3g}<extra></extra>",
        "meta": {"role": "gram", "colors": [], "keys": {}},
    }
    heat |= {"texttemplate": "%{z:.2f}"} if few else {}
    ticks = {"tickvals": list(range(len(classes))), "ticktext": [_short(name) for name in classes], "visible": few}
    ticks |= {"automargin": True}
    figure = Figure({"xaxis": {**ticks, "constrain": "domain"}, "yaxis": _downwards(ticks)}, [heat])
    if gram.matrix is None:
        return Chart(title, f"{title}: all class means are zero.", figure, "All class means are zero.")
    return Chart(title, f"{title}: Gram matrix of the class means, {_in_words(gram.matrix)}.", figure)


def _in_words(matrix: np.ndarray) -> str:
    beside = matrix[~np.eye(len(matrix), dtype=bool)]
    diagonal = np.diag(matrix)
    return (
        f"diagonal {diagonal.min():.3g} to {diagonal.max():.3g}, beside it {beside.min():.3g} to {beside.max():.3g} "
        "(the identity is DNC2)"
    )


def _short(name: str) -> str:
    return escape(name if len(name) <= 8 else name[:7] + "…", quote=False)


def _downwards(ticks: Mapping[str, Any]) -> dict[str, Any]:
    return {**ticks, "autorange": "reversed", "scaleanchor": "x", "constrain": "domain"}


def _read(path: Path, member: int, depth: int) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """Labels ``(N,)``, features ``(N, d)`` and W_1..W_{L-1} of one seed, float64."""
    with safe_open(path, framework="numpy") as stream:
        labels, stored = stream.get_tensor("labels"), stream.get_slice("features/1")
        features = stored[member] if len(stored.get_shape()) == 3 else stored[:]
        weights = [stream.get_slice(f"weights/{layer}")[member] for layer in range(1, depth)]
    return labels, features.astype(np.float64), [weight.astype(np.float64) for weight in weights]


def _grams(
    labels: np.ndarray, features: np.ndarray, weights: list[np.ndarray], num_classes: int, relu: bool
) -> Iterator[Gram]:
    yield Gram(1, "pre", _gram(features, labels, num_classes))
    entering = features
    for layer, weight in enumerate(weights, start=2):
        before = entering @ weight.T
        entering = np.maximum(before, 0) if relu else before
        yield Gram(layer, "pre", _gram(before, labels, num_classes))
        if relu:
            yield Gram(layer, "post", _gram(entering, labels, num_classes))


def _gram(features: np.ndarray, labels: np.ndarray, num_classes: int) -> np.ndarray | None:
    """Scaled Gram matrix of the class means of ``features`` ``(N, d)``."""
    means = np.stack([features[labels == index].mean(axis=0) for index in range(num_classes)])
    gram = means @ means.T
    scale = np.trace(gram) / num_classes
    found = gram / scale if np.isfinite(scale) and scale > 0 else None
    return found if found is not None and np.isfinite(found).all() else None
