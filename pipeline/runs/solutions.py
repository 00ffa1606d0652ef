"""The head a run ends with: its factors, what they cost, and how well it decides."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pipeline import dufm
from pipeline.config import Config
from pipeline.data import ImageData
from pipeline.dufm import Anchor, ObjectiveValue
from pipeline.dufm.constraints import mapped
from pipeline.dufm.objectives import Objective
from pipeline.dufm.shards import Shard
from pipeline.measure.extraction import SplitFeatures
from pipeline.metrics import feature_alignment
from pipeline.metrics.core import RANK_RTOL
from pipeline.networks.token_backbone import counted


@dataclass(frozen=True)
class Features:
    """Features of both splits, float64 rows, and their labels.

    shard, test_shard: where the rows are those of this rank's images alone; None: of all.
    """

    train: Tensor  # (N, d)
    train_labels: Tensor  # (N,)
    test: Tensor
    test_labels: Tensor
    goals: Tensor | None = None  # (N, n) float64, what outputs are fitted to instead of the labels
    test_goals: Tensor | None = None
    shard: Shard | None = None
    test_shard: Shard | None = None

    def constrained(self, constraint: str) -> "Features":
        """As a head takes them, before which they are mapped onto a set."""
        return replace(self, train=mapped(self.train, constraint), test=mapped(self.test, constraint))

    @classmethod
    def of(cls, rows: Mapping[str, Tensor], images: ImageData, device: torch.device) -> "Features":
        """The rows of the splits ``train`` and ``test``; of text every position that has a label is one."""
        splits = ((rows[name].double(), getattr(images, name).targets.to(device)) for name in ("train", "test"))
        (train, train_labels), (test, test_labels) = (counted(*split) for split in splits)
        goals = (getattr(images, name).goals for name in ("train", "test"))
        return cls(train, train_labels, test, test_labels, *(None if it is None else it.to(device) for it in goals))

    @classmethod
    def of_rank(cls, parts: Mapping[str, SplitFeatures], images: ImageData, device: torch.device) -> "Features":
        """This rank's rows of the splits ``train`` and ``test``; collective."""
        found, shards = [], []
        for name, part in parts.items():
            labels = getattr(images, name).targets[part.images.start : part.images.stop].to(device)
            rows, labels = counted(part.own.to(device).double(), labels)
            found += [rows, labels]
            shards.append(Shard.of(labels, images.num_classes))
        return cls(*found, shard=shards[0], test_shard=shards[1])


@dataclass(frozen=True)
class Terms:
    """What a head's problem has beside labels, decays and a loss.

    targets: ``(N, K)`` instead of the labels; None: these.
    num_classes: of the metrics; None: as many as there are outputs.
    has_classes: whether the labels mean anything.
    constraint: of the features, a name of `pipeline.dufm.CONSTRAINTS`.
    anchor: what free features are tied to.
    """

    targets: Tensor | None = None
    num_classes: int | None = None
    has_classes: bool = True
    constraint: str = "none"
    anchor: Anchor | None = None


PLAIN = Terms()


@dataclass(frozen=True)
class Polish:
    """How the end of a descent was polished (`pipeline.dufm.polish`): from which step, by how many iterations of L-BFGS
    and steps of heavy-ball descent of each member, and the norm of its gradient at the end; None for a diverged
    member."""

    from_step: int
    iterations: list[int | None]
    gradient_norm: list[float | None]
    heavy_ball_steps: list[int | None]


@dataclass(frozen=True)
class HeadSolution:
    """The final state of all members; a diverged member reads as NaN."""

    features: Tensor  # (N, d_1) shared, or (S, N, d_1)
    weights: tuple[Tensor, ...]  # W_l (S, d_{l+1}, d_l); none at depth 0
    labels: Tensor  # (N,)
    inputs: str  # what the features are: "frozen", "free", or "network" (trained with or under the head)
    weight_decays: tuple[float, ...]
    feature_decay: float | None  # None: the features carry no penalty
    loss: Objective
    objective: ObjectiveValue
    diverged: dict[int, int]  # member -> step
    seeds: tuple[int, ...]
    activation: str = "relu"
    bias: Tensor | None = None  # of the last layer, (S, K)
    bias_decay: float = 0.0
    terms: Terms = PLAIN
    without_direction: int = 0  # rows of features that a constraint has put on an axis
    polish: Polish | None = None  # None: as descent left it
    switched: dict[int, int] | None = None  # member -> step from which products were in float64; None: all of them
    shard: Shard | None = None  # features and labels are this rank's; None: all

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
        *,
        bias: Tensor | None = None,
        terms: Terms = PLAIN,
        without_direction: int = 0,
        polish: Polish | None = None,
        switched: dict[int, int] | None = None,
        shard: Shard | None = None,
    ) -> "HeadSolution":
        """The state of the members with these seeds, by default ``config.seed``, ``config.seed + 1``, ..., and the
        objective that was descended on; with a ``shard`` collective."""
        seeds = seeds or tuple(config.seed + member for member in range(dufm.num_members(features, weights)))
        table = torch.tensor(weight_decays, dtype=torch.float64)
        loss, activation = config.objective, config.head.activation
        bias_decay = 0.0 if bias is None else config.head.bias_decay
        targets = terms.targets
        if shard is not None:
            targets = shard.targets(labels, weights[-1].shape[-2], features.dtype)
        value = dufm.objective(
            features,
            weights,
            labels,
            table,
            feature_decay,
            activation,
            loss,
            bias=bias,
            targets=targets,
            num_classes=None if weights else terms.num_classes,
            anchor=terms.anchor,
            bias_decay=bias_decay,
        )
        value = value if shard is None else shard.objective(value)
        return cls(
            features,
            weights,
            labels,
            inputs,
            weight_decays,
            feature_decay,
            loss,
            value,
            diverged,
            seeds,
            activation,
            bias,
            bias_decay,
            terms,
            without_direction,
            polish,
            switched,
            shard,
        )

    @property
    def num_classes(self) -> int:
        """Of the metrics."""
        return self.terms.num_classes or self.num_outputs

    @property
    def num_outputs(self) -> int:
        """K."""
        return self.weights[-1].shape[-2] if self.weights else self.features.shape[-1]

    @property
    def class_sizes(self) -> list[int]:
        """Samples of each class."""
        if self.shard is not None:
            return list(self.shard.class_sizes)
        return torch.bincount(self.labels, minlength=self.num_classes).tolist()

    @property
    def widths(self) -> list[int]:
        """d_1 .. d_L, K; at depth 0 d_1 alone, which is what comes out."""
        return [self.features.shape[-1], *(weight.shape[-2] for weight in self.weights)]

    @property
    def no_decisions(self) -> str | None:
        """Why outputs decide between no classes, so that there is no accuracy; None if they do."""
        if not self.loss.classifies:
            return f"outputs under {self.loss.title} are no scores of classes"
        if self.terms.targets is not None:
            return "the targets are a matrix, not classes"
        return None


def network_head(
    config: Config, features: Features, weights: Sequence[Tensor], *, frozen: bool = False, bias: Tensor | None = None
) -> HeadSolution:
    """A head of one member on a network's training features, with the penalties it was trained with.

    Args:
        frozen: the weights are a DUFM's, which training leaves as they are: then the objective is the DUFM's, whatever
            the regularisation of the backbone.
        bias: of the last layer, ``(1, K)``.
    """
    own = config.protocol.regularization == "dufm" or frozen
    decays = config.weight_decays if own else (config.optimizer.weight_decay,) * len(weights)
    classes = None if weights else int(features.train_labels.max()) + 1
    labels, terms = features.train_labels, Terms(num_classes=classes, constraint=config.features.constraint)
    if features.goals is not None:  # of classes nothing is asked
        labels = torch.zeros_like(labels)
        terms = replace(terms, targets=features.goals, num_classes=2, has_classes=False)
    return HeadSolution.of(
        config,
        features.train if weights else features.train[None],
        tuple(weights),
        labels,
        "network",
        config.head.feature_decay if own else None,
        decays,
        {},
        bias=bias,
        terms=terms,
    )


def accuracy(
    config: Config, head: HeadSolution, features: Tensor, labels: Tensor, shard: Shard | None = None
) -> list[float | None] | None:
    """Share of samples each seed's head decides rightly; None for a diverged seed, and if it decides nothing.

    Args:
        features: ``(N, d_1)`` or ``(S, N, d_1)``.
        shard: where features and labels are those of this rank alone; then collective.
    """
    if head.no_decisions:
        return None
    outputs = dufm.forward(features.to(head.features), head.weights, config.head.activation, head.bias)[-1]
    shares = (outputs.argmax(dim=-1) == labels.to(outputs.device)).double().mean(dim=-1)
    shares = shares if shard is None else shard.mean(shares)
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
