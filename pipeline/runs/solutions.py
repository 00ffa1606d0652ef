"""The head a run ends with: its factors, what they cost, and what theory says of that."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline import dufm
from pipeline.config import Config
from pipeline.dufm import ObjectiveValue
from pipeline.dufm.objectives import Objective
from pipeline.metrics import feature_alignment
from pipeline.metrics.core import RANK_RTOL
from pipeline.theory import DufmProblem, Reference


@dataclass(frozen=True)
class Features:
    """Features of both splits, float64 rows, and their labels."""

    train: Tensor  # (N, d)
    train_labels: Tensor  # (N,)
    test: Tensor
    test_labels: Tensor


@dataclass(frozen=True)
class HeadSolution:
    """The final state of all members; a diverged member reads as NaN."""

    features: Tensor  # (N, d_1) shared, or (S, N, d_1)
    weights: tuple[Tensor, ...]  # W_l (S, d_{l+1}, d_l)
    labels: Tensor  # (N,)
    inputs: str  # what the features are: "frozen", "free", or "network" (trained with or under the head)
    weight_decays: tuple[float, ...]
    feature_decay: float | None  # None: the features carry no penalty
    loss: Objective
    objective: ObjectiveValue
    diverged: dict[int, int]  # member -> step
    seeds: tuple[int, ...]

    @classmethod
    def of(
        cls,
        config: Config,
        features: Tensor,
        weights: tuple[Tensor, ...],
        labels: Tensor,
        inputs: str,
        feature_decay: float | None,
        weight_decays: tuple[float, ...],
        diverged: dict[int, int],
        seeds: tuple[int, ...] | None = None,
    ) -> "HeadSolution":
        """The state of the members with these seeds, by default ``config.seed``, ``config.seed + 1``, ..., and its
        objective."""
        seeds = seeds or tuple(config.seed + member for member in range(len(weights[0])))
        table = torch.tensor(weight_decays, dtype=torch.float64)
        loss = config.objective
        value = dufm.objective(features, weights, labels, table, feature_decay, config.head.activation, loss)
        return cls(features, weights, labels, inputs, weight_decays, feature_decay, loss, value, diverged, seeds)

    @property
    def num_classes(self) -> int:
        """K."""
        return self.weights[-1].shape[-2]

    @property
    def widths(self) -> list[int]:
        """d_1 .. d_L, K."""
        return [self.features.shape[-1], *(weight.shape[-2] for weight in self.weights)]


def network_head(
    config: Config, features: Features, weights: Sequence[Tensor], *, frozen: bool = False
) -> HeadSolution:
    """A head of one member on a network's training features, with the penalties it was trained with.

    Args:
        frozen: the weights are a DUFM's, which training leaves as they are: then the objective is the DUFM's, whatever
            the regularisation of the backbone.
    """
    own = config.protocol.regularization == "dufm" or frozen
    decays = config.weight_decays if own else (config.optimizer.weight_decay,) * len(weights)
    return HeadSolution.of(
        config,
        features.train,
        tuple(weights),
        features.train_labels,
        "network",
        config.head.feature_decay if own else None,
        decays,
        {},
    )


def problem_of(head: HeadSolution) -> tuple[DufmProblem | None, str | None]:
    """This head's problem as theory states it, or None and the reason why it is not one of those."""
    counts = torch.bincount(head.labels, minlength=head.num_classes)
    if head.feature_decay is None:
        frozen = head.inputs == "frozen"
        return None, "the input features are frozen" if frozen else "the features carry no penalty of their own"
    if not all(decay > 0 for decay in head.weight_decays):
        return None, "a weight decay is zero"
    if counts.min() != counts.max():
        return None, "the classes differ in size"
    if min(head.widths) < head.num_classes:
        return None, f"a layer is narrower than the number of classes ({min(head.widths)} < {head.num_classes})"
    samples, depth = int(counts[0]), len(head.weights)
    return DufmProblem(head.num_classes, samples, depth, head.weight_decays, head.feature_decay), None


def known_references(head: HeadSolution) -> tuple[tuple[Reference, ...], str | None]:
    """The values that theory knows of this head's problem and objective, or () and the reason why there are none."""
    problem, reason = problem_of(head)
    if problem is None:
        return (), reason
    known = head.loss.references(problem)
    return known, None if known else f"none is known for {head.loss.title}"


def accuracy(config: Config, head: HeadSolution, features: Tensor, labels: Tensor) -> list[float | None]:
    """Share of samples each seed's head decides rightly; None for a diverged seed.

    Args:
        features: ``(N, d_1)`` or ``(S, N, d_1)``.
    """
    outputs = dufm.forward(features.to(head.weights[0]), head.weights, config.head.activation)[-1]
    shares = (outputs.argmax(dim=-1) == labels.to(outputs.device)).double().mean(dim=-1)
    return [None if member in head.diverged else share for member, share in enumerate(shares.tolist())]


def alignment(features: Features, reference: Tensor) -> dict[str, float]:
    """How close training features come to those of the DUFM, by the names they have in record and summary."""
    found = feature_alignment(features.train, features.train_labels, reference.to(features.train))
    return {
        "alignment": found.cosine.item(),
        "alignment_rotated": found.cosine_rotated.item(),
        "feature_distance": found.distance.item(),
        "feature_distance_rotated": found.distance_rotated.item(),
    }


def unseen_share(features: Tensor, first_weight: Tensor) -> float:
    """Share of ||H_1||_F^2 that lies outside the row space of W_1, where it costs and changes no output.

    Nothing but the feature penalty drives it out. Directions in which W_1 is below `RANK_RTOL` of its largest singular
    value count as outside.

    Args:
        features: ``(N, d_1)``.
        first_weight: W_1 ``(d_2, d_1)``.
    """
    _, singular_values, directions = torch.linalg.svd(first_weight.double(), full_matrices=False)
    seen = features.double() @ directions[singular_values > RANK_RTOL * singular_values[0]].mT
    return float(1 - dufm.squared_norm(seen) / dufm.squared_norm(features.double()))
