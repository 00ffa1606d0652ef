"""How far rows of another data set are from those of the classes.

After NECO (ICLR 2024, arXiv 2310.06823): nc5 is the mean over classes of |cos(mu_c, mu_foreign)|, both means
uncentred; the score of a row h is ||P h|| / ||h||, P on the leading directions of the training rows (of their
covariance about their mean; h itself is not centred, which is our reading: the official code standardises first, from
memory). Known rows are the positive ones.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.metrics.engine.cases import MEANS_EXIST, ZERO_MEANS
from pipeline.metrics.engine.rows import Rows
from pipeline.metrics.engine.settings import MeasureSettings
from pipeline.metrics.engine.statistics import ClassStatistics, finite_part
from pipeline.metrics.engine.undefined import Exceptional
from pipeline.metrics.registry import metric, optional, row_value

optional(__name__)

KEPT = 0.95
"""The share of known rows that the threshold of `neco_fpr95` keeps."""
TIE = 1e-12
"""Scores that differ by no more are the same: those of rows in one direction (a single active unit) round apart."""
ABOUT_ZERO = ("rotation", "scaling")


def _mean(foreign: ClassStatistics) -> Tensor:
    return foreign.means[..., 0, :]


NO_FOREIGN = Exceptional("there are no foreign rows", lambda *a: torch.as_tensor(_foreign_of(a).counts.sum() == 0))
FOREIGN_NOT_FINITE = Exceptional("the foreign rows are not finite", lambda *a: ~_foreign_of(a).finite)
FOREIGN_ZERO = Exceptional("the mean of the foreign rows is zero", lambda *a: _foreign_of(a).mean_norms[..., 0] == 0)
NO_SCORES = Exceptional(
    "there are no known rows or no foreign ones",
    lambda scores, others: torch.as_tensor(scores.shape[-1] == 0 or others.shape[-1] == 0),
)
NO_SCORE = Exceptional(
    "a row has no score (its features are not finite)",
    lambda scores, others: scores.isnan().any(-1) | others.isnan().any(-1),
)


def _foreign_of(arguments: tuple[object, ...]) -> ClassStatistics:
    return arguments[1]


def leading_directions(reference: ClassStatistics, pooled: Tensor, settings: MeasureSettings) -> Tensor:
    """Leading eigenvectors `(..., d, q)` of the covariance of the training rows, q = K - 1 unless told otherwise."""
    classes, width = reference.means.shape[-2:]
    most = min(settings.foreign_directions or classes - 1, width)
    centred = reference.centred_means
    total = pooled + (reference.counts[:, None] * centred).mT @ centred
    return torch.linalg.eigh(finite_part(total)).eigenvectors[..., -most:]


@row_value(prepare=leading_directions)
def neco(rows: Rows, leading_directions: Tensor) -> Tensor:
    """||P h|| / ||h|| of each row, `(..., n)`; 0 for a row of norm zero."""
    exact = rows.features.to(torch.float64)
    lengths = torch.linalg.vector_norm(exact, dim=-1)
    scores = torch.linalg.vector_norm(exact @ leading_directions, dim=-1) / torch.where(lengths > 0, lengths, 1.0)
    return torch.where(lengths.isfinite(), scores, float("nan"))


@metric(
    *MEANS_EXIST,
    ZERO_MEANS,
    NO_FOREIGN,
    FOREIGN_NOT_FINITE,
    FOREIGN_ZERO,
    title="NC5: class means to the mean of foreign rows",
    target=0.0,
    invariant=ABOUT_ZERO,
)
def nc5(statistics: ClassStatistics, foreign: ClassStatistics) -> Tensor:
    """(1/K) sum_c |cos(mu_c, mu_foreign)|, means uncentred: 0 if foreign rows lie across the class means."""
    other = _mean(foreign)
    norms = statistics.mean_norms * torch.linalg.vector_norm(other, dim=-1)[..., None]
    products = (statistics.means @ other[..., None]).squeeze(-1)
    return torch.where(norms > 0, products / torch.where(norms > 0, norms, 1.0), 0.0).abs().mean(-1)


@metric(NO_SCORES, NO_SCORE, title="NECO: AUROC of known against foreign", target=1.0, scale="linear")
def neco_auroc(neco: Tensor, foreign_neco: Tensor) -> Tensor:
    """Probability that a known row has a higher NECO score than a foreign one, ties counting half."""
    ordered = foreign_neco.sort(-1).values.contiguous()
    below = torch.searchsorted(ordered, (neco - TIE).contiguous())
    up_to = torch.searchsorted(ordered, (neco + TIE).contiguous(), right=True)
    return (below + up_to).to(torch.float64).mean(-1) / (2 * max(1, ordered.shape[-1]))


@metric(NO_SCORES, NO_SCORE, title="NECO: foreign rows let through", target=0.0, scale="linear")
def neco_fpr95(neco: Tensor, foreign_neco: Tensor) -> Tensor:
    """Share of foreign rows with at least the largest score that keeps 95 % of the known rows."""
    known = neco.shape[-1]
    if not known:
        return neco.new_full(neco.shape[:-1], float("nan"))
    threshold = neco.sort(-1, descending=True).values[..., max(0, -int(-KEPT * known // 1)) - 1 :][..., :1]
    return (foreign_neco >= threshold - TIE).to(torch.float64).mean(-1)
