"""Norms of the features that enter each layer of a head, from the tensors a run has kept."""

from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.storage.record import Row
from pipeline.storage.summary import HEAD, RunSummary
from pipeline.views.wandb.content import ordered

if TYPE_CHECKING:
    from torch import Tensor

BINS = 64
METRIC = "feature_norms"


def feature_norms(folder: Path, summary: RunSummary, seed: int | None, activation: str) -> "dict[str, Tensor]":
    """Norms ``(S N,)`` of the rows that enter W_1 .. W_L, by keys ``feature_norms/head/layer_2/post``; of one
    seed, or of all.

    Without a head, those of the network's features; {} where a run has kept no tensors.

    Args:
        activation: of the head, "relu" or "linear".
    """
    import torch
    from safetensors.torch import load_file

    if not summary.written.get("tensors"):
        return {}
    kept = load_file(folder / summary.written["tensors"])
    if "features/1" not in kept:
        return {}
    features, seeds = kept["features/1"].double(), summary.written.get("seeds") or [None]
    depth = sum(name.startswith("weights/") for name in kept)
    weights = [kept[f"weights/{layer}"].double() for layer in range(1, depth + 1)]
    if not summary.has_head or not weights:
        return {f"{METRIC}/backbone/features": torch.linalg.vector_norm(features, dim=-1).flatten()}
    found = {}
    for layer, weight in enumerate(weights, start=1):
        rows = features if seed is None or features.ndim == 2 else features[seeds.index(seed)]
        row = Row(HEAD, 0, 0, str(layer), "pre" if layer == 1 else "post", METRIC, 0.0)
        found[ordered(row.key, "metric")] = torch.linalg.vector_norm(rows, dim=-1).flatten()
        features = features @ weight.mT
        features = features.relu() if activation == "relu" else features
    return found
