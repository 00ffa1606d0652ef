"""A certificate of collapse for networks that end in linear layers (setting of arXiv 2410.04887; derived here)."""

import torch
from torch import Tensor

from pipeline.theory._problem import matrix


def within_bound(features: Tensor, previous_weight: Tensor, last_weight: Tensor, targets: Tensor) -> float:
    """What the variability within classes before the last layer cannot exceed, true of any weights.

    With Z = features previous_weight^T the rows that enter the last layer W_L, e1 = ||Z W_L^T - targets||_F, e2 =
    ||W_L^T W_L - W_{L-1} W_{L-1}^T||_2 and s_K the smallest of the K singular values of W_L,

        tr Sigma_W(Z) <= 1/N (e1 / s_K + sqrt(e2) ||features||_F)^2

    Split Z into the row space and the kernel of W_L: on the kernel W_{L-1} W_{L-1}^T is at most e2. Infinite where W_L
    has rank below K.

    Args:
        features: (N, d) rows that enter W_{L-1}.
        previous_weight: W_{L-1} (d', d).
        last_weight: W_L (K, d').
        targets: (N, K), equal within a class, e.g. one-hot labels.

    Raises:
        ValueError: naming what does not fit.
    """
    rows, previous = matrix("features", features), matrix("previous_weight", previous_weight)
    last, wanted = matrix("last_weight", last_weight), matrix("targets", targets)
    for name, found, needed in (
        ("previous_weight", previous.shape[1], rows.shape[1]),
        ("last_weight", last.shape[1], previous.shape[0]),
        ("targets", tuple(wanted.shape), (len(rows), len(last))),
    ):
        if found != needed:
            raise ValueError(f"{name} has {found} columns, must be {needed}")
    smallest = torch.linalg.svdvals(last)[-1] if len(last) <= last.shape[1] else torch.tensor(0.0)
    if not smallest > 0:
        return float("inf")
    misfit = torch.linalg.matrix_norm(rows @ previous.T @ last.T - wanted)
    unbalanced = torch.linalg.matrix_norm(last.T @ last - previous @ previous.T, ord=2)
    bound = misfit / smallest + unbalanced.sqrt() * torch.linalg.matrix_norm(rows)
    return float(bound.square() / len(rows))
