"""Linear probe: ridge regression of one-hot targets, from counts, class means and pooled scatter, without training.

B = (S_T + r I)^-1 (1/N) sum (z - mu_G)(y - ybar)^T on the training rows, S_T their total covariance, r
`measure.probe_ridge`; outputs are B^T (z - mu_G) + ybar: ridge regression with penalty N r and free intercept. Judged
in a second look on both splits. [Derived.]
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from pipeline.metrics.engine.cases import MEANS_EXIST
from pipeline.metrics.engine.rows import Rows
from pipeline.metrics.engine.settings import MeasureSettings
from pipeline.metrics.engine.statistics import ClassStatistics, finite_part
from pipeline.metrics.registry import metric, optional, row_sum
from pipeline.metrics.spectrum import total_scatter

optional(__name__)

MOVED = ("rotation", "translation")


def probe_coefficients(reference: ClassStatistics, pooled: Tensor, settings: MeasureSettings) -> Tensor:
    """B, `(..., d, K)`, of the rows of `reference`; NaN where their scatter is."""
    samples, width = reference.counts.sum().clamp(min=1), reference.means.shape[-1]
    covariance = total_scatter(reference, pooled) / samples
    shift = settings.probe_ridge * torch.eye(width, dtype=covariance.dtype, device=covariance.device)
    # sum_i (z_i - mu_G)(y_i - ybar)^T = sum_c n_c (mu_c - mu_G) e_c^T, as the weighted means sum to zero.
    goals = (reference.counts / samples)[:, None] * reference.centred_means
    solved = torch.linalg.solve(finite_part(covariance) + shift, finite_part(goals.mT))
    return solved + 0 * covariance.sum((-2, -1), keepdim=True)


@row_sum(prepare=probe_coefficients, shape=lambda num_classes, num_features: (2,))
def probe_sums(rows: Rows, prepared: Tensor) -> Tensor:
    """How many rows the probe tells right, and the sum of half their squared errors, `(..., 2)`."""
    training, kept = rows.reference, rows.reference.counts > 0
    first = kept.byte().argmax().reshape(1)
    centre = training.drifts.index_select(-2, first) - training.centred_means.index_select(-2, first)
    # By a sample: an offset common to all rows cancels before anything rounds.
    offsets = (rows.own.anchors - training.anchors.index_select(-2, first)) - centre
    centred = rows.deviations + offsets.index_select(-2, rows.labels)
    counts = training.counts[kept]
    if prepared.shape[-1] != len(counts):  # fewer than two classes count: there is no probe
        return prepared.new_full((*prepared.shape[:-2], 2), float("nan"))
    outputs = centred @ prepared + counts / counts.sum()
    labels = (kept.cumsum(0) - 1).index_select(0, rows.labels)
    errors = (outputs - one_hot(labels, outputs.shape[-1])).square().sum((-2, -1)) / 2
    hits = (outputs.argmax(-1) == labels).sum(-1)
    return torch.stack([hits + 0 * errors, errors], -1)


@metric(*MEANS_EXIST, title="Accuracy of a linear probe", target=1.0, scale="linear", invariant=MOVED)
def probe_accuracy(reference: ClassStatistics, pooled: Tensor, probe_sums: Tensor, judged: Tensor | int) -> Tensor:
    """Share of samples that a ridge regression on the training split's rows tells right."""
    return probe_sums[..., 0] / judged


@metric(*MEANS_EXIST, title="Loss of a linear probe", target=0.0, invariant=MOVED)
def probe_loss(reference: ClassStatistics, pooled: Tensor, probe_sums: Tensor, judged: Tensor | int) -> Tensor:
    """Half the mean squared error of the ridge regression's outputs, summed over classes."""
    return probe_sums[..., 1] / judged
