"""What protocols are made of: train a backbone, extract its features, solve the head, measure.

Every stage takes the `Run` (configuration, inputs, record) and plain tensors, and writes what it measures into the
record; none of them knows which protocol it serves.
"""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from pipeline import dufm
from pipeline.backbones import Backbone
from pipeline.config import Config
from pipeline.descent import Descent, descend, log_schedule
from pipeline.dufm import Objective, initial_weights
from pipeline.errors import RunError
from pipeline.inputs import Inputs
from pipeline.learners import Classifier
from pipeline.measuring import LayerMeasurement, backbone_features, measure_backbone, measure_head
from pipeline.progress import Progress
from pipeline.randomness import generator
from pipeline.record import Record, Stopwatch, atomic
from pipeline.theory import CollapsedOptimum, DufmProblem, collapsed_optimum
from pipeline.training import train

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Run:
    """What the stages of one run share."""

    config: Config
    inputs: Inputs
    folder: Path
    record: Record
    stopwatch: Stopwatch = field(default_factory=Stopwatch)

    @property
    def head_seeds(self) -> list[int]:
        """Seeds of the head's members."""
        return [self.config.seed + index for index in range(self.config.descent.seeds)]


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

    features: Tensor  # (N, d_1) shared and frozen, or (S, N, d_1)
    weights: tuple[Tensor, ...]  # W_l (S, d_{l+1}, d_l)
    labels: Tensor  # (N,)
    num_classes: int
    feature_decay: float | None  # None: the features are frozen
    objective: Objective
    diverged: dict[int, int]  # member -> step

    @property
    def widths(self) -> list[int]:
        """d_1 .. d_L, K."""
        return [self.features.shape[-1], *(weight.shape[-2] for weight in self.weights)]


@dataclass(frozen=True)
class Outcome:
    """What a protocol returns; accuracies are shares per seed."""

    head: HeadSolution
    train_accuracy: list[float | None]
    test_accuracy: list[float | None] | None
    classes: tuple[str, ...] | None


def train_backbone(run: Run) -> Backbone:
    """Train the backbone (unless ``backbone.epochs`` is 0) and freeze it.

    The loss, the accuracy and the metrics of every block are recorded before training and on a log-spaced schedule of
    epochs.
    """
    images, backbone, epochs = run.inputs.images, run.inputs.backbone, run.config.backbone.epochs
    schedule = log_schedule(epochs, run.config.descent.records_per_decade) if epochs else []
    with run.stopwatch.time("train_backbone"):
        if epochs:
            config = run.config
            learner = Classifier(
                backbone, images.num_classes, config.backbone.loss, config.optimizer, epochs, config.seed
            )
            train(learner, images, config, run.folder, schedule, lambda epoch: _measure_training(run, learner, epoch))
        else:
            _, layers = measure_backbone(backbone, images, images.train)
            _record_layers(run.record, "backbone", 0, [run.config.seed], layers)
        with atomic(run.folder / "checkpoints" / "backbone.safetensors") as path:
            save_file({name: tensor.cpu().contiguous() for name, tensor in backbone.state_dict().items()}, path)
    return backbone.to(run.config.device).eval().requires_grad_(False)


def extract_features(run: Run, backbone: Backbone) -> Features:
    """Pass both splits once through the frozen backbone.

    Raises:
        RunError: a feature is NaN or infinite.
    """
    images = run.inputs.images
    with run.stopwatch.time("extract_features"):
        train_features, test_features = (
            # A clone, because tensors born in inference mode may not be descended on.
            backbone_features(backbone, images, split).double().clone()
            for split in (images.train, images.test)
        )
    if not torch.isfinite(train_features).all():
        raise RunError("the backbone's features hold NaN or infinity; a smaller optimizer.lr usually helps.")
    device = train_features.device
    return Features(train_features, images.train.labels.to(device), test_features, images.test.labels.to(device))


def initial_head(run: Run, num_features: int, num_classes: int) -> list[Tensor]:
    """Random W_1 .. W_L, one member per seed: a member depends on its own seed only."""
    head = run.config.head
    widths = [num_features] + [head.width] * (head.depth - 1)
    sources = [generator(seed, "head weights") for seed in run.head_seeds]
    return initial_weights(widths, num_classes, sources, head.init_scale)


def solve_head(
    run: Run, features: Tensor, weights: Sequence[Tensor], labels: Tensor, feature_decay: float | None
) -> HeadSolution:
    """Descend from the given start, recording losses and every layer's metrics on a log-spaced schedule.

    Args:
        features: ``(N, d_1)`` frozen (``feature_decay`` None), or the free start ``(S, N, d_1)``.
        weights: W_l ``(S, d_{l+1}, d_l)``.
        labels: ``(N,)``.

    Raises:
        RunError: every member diverged.
    """
    config, device = run.config, run.config.device
    dtype = torch.float64 if config.descent.precision == "float64" else torch.float32
    descent = Descent(
        features.to(device, dtype),
        [weight.to(device, dtype) for weight in weights],
        labels.to(device),
        num_classes=weights[-1].shape[-2],
        lr=config.descent.lr,
        weight_decay=torch.tensor(config.weight_decays, dtype=torch.float64),
        feature_decay=feature_decay,
        momentum=config.descent.momentum,
        activation=config.head.activation,
        tf32=config.descent.precision == "tf32",
    )
    steps, num_classes = config.descent.steps, weights[-1].shape[-2]
    with run.stopwatch.time("solve_head"), Progress("head", steps, "step") as progress:
        for step in descend(descent, log_schedule(steps, config.descent.records_per_decade), progress.advance_to):
            solution = HeadSolution(
                descent.features,
                tuple(descent.weights),
                labels.to(device),
                num_classes,
                feature_decay,
                descent.objective(),
                dict(descent.diverged),
            )
            if step == 0:
                problem, _ = closed_form(config, solution)
                reference = None if problem is None else collapsed_optimum(problem)
            _record_head(run, step, solution, reference)
            progress.advance_to(step)
            progress.headline(_headline(solution.objective, reference))
    _report_divergence(run, solution)
    return solution


def closed_form(config: Config, head: HeadSolution) -> tuple[DufmProblem | None, str | None]:
    """This head's problem as theory knows it, or None and the reason why no closed form applies."""
    counts = torch.bincount(head.labels, minlength=head.num_classes)
    if head.feature_decay is None:
        return None, "the input features are frozen"
    if counts.min() != counts.max():
        return None, "the classes differ in size"
    if min(head.widths) < head.num_classes:
        return None, f"a layer is narrower than the number of classes ({min(head.widths)} < {head.num_classes})"
    samples, depth = int(counts[0]), config.head.depth
    return DufmProblem(head.num_classes, samples, depth, config.weight_decays, head.feature_decay), None


def accuracy(config: Config, head: HeadSolution, features: Tensor, labels: Tensor) -> list[float | None]:
    """Share of samples each seed's head decides rightly; None for a diverged seed.

    Args:
        features: ``(N, d_1)`` or ``(S, N, d_1)``.
    """
    outputs = dufm.forward(features.to(head.weights[0]), head.weights, config.head.activation)[-1]
    shares = (outputs.argmax(dim=-1) == labels.to(outputs.device)).double().mean(dim=-1)
    return [None if member in head.diverged else share for member, share in enumerate(shares.tolist())]


def _measure_training(run: Run, module: Classifier, epoch: int) -> None:
    images, numbers = run.inputs.images, {}
    features, layers = measure_backbone(module.backbone, images, images.train)
    _record_layers(run.record, "backbone", epoch, [run.config.seed], layers)
    test_features = backbone_features(module.backbone, images, images.test)
    for name, rows, split in (("train", features, images.train), ("test", test_features, images.test)):
        loss, share = module.score(rows, split.labels.to(rows.device))
        numbers |= {f"{name}_loss": [loss], f"{name}_accuracy": [share]}
    run.record.add("backbone", epoch, [run.config.seed], numbers)
    log.info(
        "backbone  epoch %d/%d  loss %.4g  accuracy %.2f %% train, %.2f %% test",
        epoch,
        run.config.backbone.epochs,
        numbers["train_loss"][0],
        100 * numbers["train_accuracy"][0],
        100 * numbers["test_accuracy"][0],
    )


def _record_head(run: Run, step: int, head: HeadSolution, reference: CollapsedOptimum | None) -> None:
    losses = {"loss": head.objective.total, "fit": head.objective.fit}
    if reference is not None:
        losses["relative_gap"] = head.objective.total / reference.loss - 1
    run.record.add("head", step, run.head_seeds, losses)
    layers = measure_head(head.features, head.weights, head.labels, head.num_classes, run.config.head.activation)
    _record_layers(run.record, "head", step, run.head_seeds, layers)


def _record_layers(record: Record, stage: str, step: int, seeds: list[int], layers: Iterable[LayerMeasurement]) -> None:
    for at in layers:
        record.add(stage, step, seeds, at.values, layer=at.layer, tap=at.tap, reasons=at.reasons)


def _headline(objective: Objective, reference: CollapsedOptimum | None) -> str:
    best = objective.total[objective.total.isfinite()].min() if objective.total.isfinite().any() else torch.nan
    gap = f", gap to the optimum {best / reference.loss - 1:.2e}" if reference else ""
    return f"loss {best:.6g}{gap}"


def _report_divergence(run: Run, head: HeadSolution) -> None:
    advice = f"a smaller descent.lr (now {run.config.descent.lr:g}) usually helps."
    for member, step in head.diverged.items():
        log.warning("head seed %d diverged (noticed at step %d); %s", run.head_seeds[member], step, advice)
    if len(head.diverged) == len(run.head_seeds):
        raise RunError(f"the head diverged for every seed (by step {max(head.diverged.values())}); {advice}")
