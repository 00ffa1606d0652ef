"""Training towards several fixed unit centres per class (`backbone.loss=centres`), after NCMC (NeurIPS 2024).

The paper's loss and the rule for the number of centres could not be read: both are ours.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.config import OptimizerConfig
from pipeline.metrics import centre_alignment
from pipeline.networks import Backbone
from pipeline.runs.training.learners import Learner
from pipeline.runs.training.objective import WeightPenalty
from pipeline.runtime.errors import ConfigError
from pipeline.runtime.randomness import generator


def centre_counts(class_sizes: Sequence[int], centres: int, most: int) -> list[int]:
    """f_c = min(most, round(f (n_max/n_c)^(1/2))): smaller classes have more; f for a class without samples."""
    largest = max(class_sizes)
    return [min(most, round(centres * (largest / size) ** 0.5)) if size else min(most, centres) for size in class_sizes]


def make_centres(counts: Sequence[int], dim: int, angle: float, source: torch.Generator) -> list[Tensor]:
    """Unit centres cos(angle) v_cj + sin(angle) w_c, ``(f_c, dim)`` float64 for every class.

    The w and then the v are orthonormal as far as the dimension goes, and beyond that in random blocks of ``dim``.
    """
    needed, blocks = len(counts) + sum(counts), []
    while sum(map(len, blocks)) < needed:
        blocks.append(torch.linalg.qr(torch.randn(dim, dim, generator=source, dtype=torch.float64)).Q.mT)
    own, *parts = torch.cat(blocks)[:needed].split([len(counts), *counts])
    angle = torch.tensor(angle, dtype=torch.float64)
    made = [angle.cos() * part + angle.sin() * own[number] for number, part in enumerate(parts)]
    return [F.normalize(part, dim=-1) for part in made]


def make_simplex(classes: int, dim: int, source: torch.Generator) -> list[Tensor]:
    """One unit centre ``(1, dim)`` float64 of every class: the vertices of a simplex, turned at random.

    The fixed classifier of SETF (arXiv 2203.09081, [M]), here with the loss of the centres, 1 - cos.
    """
    centring = torch.eye(classes, dtype=torch.float64) - 1 / classes
    corners = torch.linalg.eigh(centring).eigenvectors[:, 1:]  # (K, K - 1), cosines -1/(K-1)
    turn = torch.linalg.qr(torch.randn(dim, classes - 1, generator=source, dtype=torch.float64)).Q
    return list(F.normalize(corners @ turn.mT, dim=-1)[:, None])


def least_loss(centres: Sequence[Tensor], shares: Tensor) -> float:
    """sum_c share_c (1 - ||mean of the centres of c||): what no features come below."""
    lengths = torch.stack([part.mean(dim=0).norm() for part in centres])
    return float((shares * (1 - lengths)).sum())


class CentreHead(nn.Module):
    """Outputs ``(n, K)``: the mean cosine of a row with the centres of each class, nothing of which is trained."""

    def __init__(self, centres: Sequence[Tensor]) -> None:
        super().__init__()
        self.register_buffer("weight", torch.stack([part.mean(dim=0) for part in centres]).float())

    def forward(self, features: Tensor) -> Tensor:
        return F.normalize(features, dim=-1) @ self.weight.mT


class CentreLoss:
    """1/N sum_i (1 - z_{i, y_i}) of outputs z that are mean cosines."""

    classifies = True

    def on_batch(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Scalar, of outputs ``(n, K)`` and labels ``(n,)``."""
        return 1 - outputs.gather(1, labels[:, None]).mean()


class CentreLearner(Learner):
    """A backbone alone, drawn towards the centres of its classes: 1/N sum_i (1 - mean_j cos(h_i, W_{y_i j}))."""

    def __init__(
        self,
        backbone: Backbone,
        centres: Sequence[Tensor],
        optimizer: OptimizerConfig,
        epochs: int,
        penalty: WeightPenalty | None = None,
    ) -> None:
        super().__init__(backbone, CentreHead(centres).to(next(backbone.parameters()).dtype), optimizer, epochs)
        self.loss = CentreLoss()
        self.centres, self.penalised, self.decayed = list(centres), penalty, penalty is None

    @classmethod
    def drawn(
        cls,
        backbone: Backbone,
        class_sizes: Sequence[int],
        centres: int,
        most: int,
        angle: float,
        frame: str,
        seed: int,
        optimizer: OptimizerConfig,
        epochs: int,
        penalty: WeightPenalty | None = None,
    ) -> "CentreLearner":
        """With centres of the seed.

        Raises:
            ConfigError: the features are too few for a simplex.
        """
        counts, dim, source = (
            centre_counts(class_sizes, centres, most),
            backbone.num_features,
            generator(seed, "centres"),
        )
        if frame == "simplex" and dim < len(counts) - 1:
            raise ConfigError(
                f"backbone.frame=simplex needs {len(counts) - 1} features for {len(counts)} classes, and the backbone "
                f"has {dim}; allowed: backbone.frame=orthonormal, or a wider last layer."
            )
        simplex = frame == "simplex"
        made = make_simplex(len(counts), dim, source) if simplex else make_centres(counts, dim, angle, source)
        return cls(backbone, made, optimizer, epochs, penalty)

    def decide(self, features: Tensor) -> Tensor:
        return self.head(features.to(self.head.weight))

    def objective(self, features: Tensor, outputs: Tensor, labels: Tensor) -> Tensor:
        return self.fit(features, outputs, labels)

    def fit(self, features: Tensor, outputs: Tensor, labels: Tensor) -> Tensor:
        return self.loss.on_batch(outputs, labels)

    def measured(self, features: Tensor, labels: Tensor) -> dict[str, float]:
        """How far rows are from the sum of their class's centres, the least loss, the accuracy of the average class."""
        found = centre_alignment(features, labels, self.centres)
        right = (self.decide(features).argmax(dim=1) == labels).double()
        counts = torch.bincount(labels, minlength=len(self.centres)).double()
        shares = torch.bincount(labels, weights=right, minlength=len(self.centres))[counts > 0] / counts[counts > 0]
        return {
            "centre_mean": float(found.mean),
            "centre_std": float(found.std),
            "least_loss": least_loss(self.centres, (counts / counts.sum()).cpu()),
            "balanced_accuracy": float(shares.mean()),
        }
