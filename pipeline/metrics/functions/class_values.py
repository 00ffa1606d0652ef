"""What there is of every class, for a table: curves and the record have numbers of all classes together."""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.metrics.cosine import intra
from pipeline.metrics.engine.checks import check_features, check_weight
from pipeline.metrics.engine.statistics import ClassStatistics
from pipeline.runtime.devices import where_float64_is


@where_float64_is
def class_values(features: Tensor, labels: Tensor, num_classes: int, weight: Tensor | None = None) -> dict[str, Tensor]:
    """Values of each class by name, float64 `(K,)`, of rows `(N, d)`; NaN for a class without samples.

    `samples`: how many; `variance`: v_c, the mean of ||z - mu_c||^2; `norm`: ||mu_c - mu_*||, mu_* the unweighted mean
    of the class means; `cos_intra`: mean cosine of two rows of the class; `ncm_recall`: share of its rows whose nearest
    class mean is its own; with the last weight `(K, d)` also `dual`: cos(w_c, mu_c - mu_*).

    Raises:
        ValueError: for malformed arguments, and a weight without one row per class.
    """
    check_features(features, labels, num_classes)
    found = ClassStatistics.from_features(features, labels, num_classes, views=("unit",))
    there, counts = found.counts > 0, found.counts.clamp(min=1)
    means = found.means[there]
    offsets = torch.full_like(found.means, float("nan"))
    offsets[there] = means - means.mean(0)
    rows = features.detach().double()
    nearest = torch.where(there, torch.cdist(rows, found.means.nan_to_num()), float("inf")).argmin(-1)
    told = torch.zeros_like(counts).index_add_(0, labels, (nearest == labels).to(counts))
    values = {
        "variance": found.scatter / counts,
        "norm": torch.linalg.vector_norm(offsets, dim=-1),
        "cos_intra": intra(found.views["unit"]),
        "ncm_recall": told / counts,
    }
    if weight is not None:
        check_weight(weight, features)
        if weight.shape[-2] != num_classes:
            raise ValueError(f"weight must have num_classes = {num_classes} rows, got shape {tuple(weight.shape)}.")
        values["dual"] = torch.nn.functional.cosine_similarity(weight.detach().double(), offsets, dim=-1, eps=0.0)
    return {"samples": found.counts} | {name: torch.where(there, value, float("nan")) for name, value in values.items()}
