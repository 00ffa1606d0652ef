"""The supervised contrastive loss (Kini et al., arXiv 2306.07960, its SCL): samples of a class attract each other."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pipeline import theory
from pipeline.dufm.choices import TEMPERATURE
from pipeline.dufm.objectives import Objective, Promise
from pipeline.theory import DufmProblem, Problem, Reference


class SupervisedContrastive(Objective):
    """1/N sum_i 1/(n_{y_i} - 1) sum_{j != i, y_j = y_i} log sum_{l != i} exp((z_i.z_l - z_i.z_j) / tau).

    The mean over anchors i; the paper states the sum. Outputs enter as they are: on the unit sphere
    (``features.constraint=sphere`` at depth 0) this is the loss of the paper. Non-negative unit outputs minimise it as
    an orthogonal frame, whatever the sizes of classes; without the sign, equal classes do as a simplex (arXiv
    2306.07960, read; derived in two lines by Jensen). Both are collapsed and, centred, a simplex where classes are of
    one size. Outputs are no scores of classes: there is no accuracy.
    """

    title = "the supervised contrastive loss"
    collapse = (
        Promise("dnc1", lambda layer, tap, depth: True),
        Promise("nc2_simplex", lambda layer, tap, depth: depth == 0, threshold=0.1),
    )
    classifies = False
    needs_labels = True
    smallest_class = 2
    takes_bias = False

    def __init__(self, temperature: float = TEMPERATURE) -> None:
        self.temperature = temperature

    def configured(self, head: Any) -> Objective:
        return type(self)(head.temperature)

    def value(self, outputs: Tensor, targets: Tensor) -> Tensor:
        similar, pairs = self._similarities(outputs), _positive_pairs(targets)
        return (similar.logsumexp(dim=-1) - _masked_mean(similar, pairs)).sum(dim=-1) / targets.shape[0]

    def gradient_(self, outputs: Tensor, targets: Tensor) -> None:
        pull = self._similarities(outputs).softmax(dim=-1).sub_(_positive_pairs(targets))
        pull += pull.mT.clone()
        outputs.copy_((pull @ outputs).div_(self.temperature * targets.shape[0]))

    def on_batch(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """The mean over the samples of the batch that have another one of their class in it; 0 if none has."""
        same = labels[:, None] == labels
        others = same.sum(dim=1) - 1
        pairs = same.to(outputs.dtype).fill_diagonal_(0) / others.clamp(min=1)[:, None]
        similar = self._similarities(outputs[None])[0]
        each = similar.logsumexp(dim=-1) - _masked_mean(similar, pairs)
        return torch.where(others > 0, each, 0.0).sum() / (others > 0).sum().clamp(min=1)

    def _similarities(self, outputs: Tensor) -> Tensor:
        """z_i.z_j / tau `(S, N, N)`, -inf on the diagonal."""
        found = (outputs @ outputs.mT) / self.temperature
        alone = torch.eye(outputs.shape[-2], dtype=torch.bool, device=outputs.device)
        return found.masked_fill(alone, -torch.inf)

    def references(self, problem: Problem | DufmProblem, widths: Sequence[int] | None = None) -> tuple[Reference, ...]:
        return () if isinstance(problem, DufmProblem) else theory.references(problem, widths)

    def not_covered(self, num_classes: int, depth: int, activation: str) -> str | None:
        return None if depth == 0 else "for the supervised contrastive loss the theorem is about depth 0"


def _positive_pairs(targets: Tensor) -> Tensor:
    """1/(n_{y_i} - 1) where samples i != j are of one class, else 0, `(N, N)`."""
    return (targets @ targets.mT).div_((targets @ (targets.sum(dim=0) - 1))[:, None]).fill_diagonal_(0)


def _masked_mean(similar: Tensor, pairs: Tensor) -> Tensor:
    """sum_j pairs_ij similar_ij; the diagonal, which is -inf, does not count."""
    return (similar.masked_fill(pairs == 0, 0.0) * pairs).sum(dim=-1)


OBJECTIVE = SupervisedContrastive()
