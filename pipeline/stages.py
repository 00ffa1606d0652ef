"""What protocols are made of: train a backbone (alone or under a head), extract its features, solve the head.

Every stage takes the `Run` (configuration, inputs, record) and plain tensors, and writes what it measures into the
record; none of them knows which protocol it serves. What a stage leaves is kept in the run folder and found again when
the run is started once more (see `pipeline.resume`).
"""

import logging
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from pipeline.backbones import Backbone
from pipeline.descent import Descent, descend, log_schedule
from pipeline.descent_torch import Constraint
from pipeline.dufm import initial_weights
from pipeline.errors import RunError
from pipeline.learners import Classifier, DufmNetwork, DufmPenalty, Learner
from pipeline.measuring import BackboneMeasurement, backbone_features, measure_backbone
from pipeline.progress import Progress
from pipeline.randomness import generator
from pipeline.recording import (
    MeasureToo,
    has_collapsed_features,
    is_collapsed,
    measure_training,
    record_head,
    record_layers,
)
from pipeline.resume import STAGES
from pipeline.run import Run
from pipeline.solutions import Features, HeadSolution, alignment, network_head
from pipeline.training import settle_norms, train

log = logging.getLogger(__name__)

BACKBONE_FILE = "checkpoints/backbone.safetensors"
TRAINING = ("seed", "data", "backbone", "optimizer", "protocol", "stop_when_collapsed", "verdict")
"""The sections of the configuration that the training of a backbone depends on."""
HEAD = ("head", "descent")
"""Those that a head depends on beside its features, and so does a backbone that is trained under it."""


def train_backbone(run: Run) -> Backbone:
    """Train the backbone under a linear classifier (not if ``backbone.epochs`` is 0 or weights were given); freeze it.

    The loss, the accuracy and the metrics of every block are recorded before training and on a log-spaced schedule of
    epochs.
    """
    config, backbone, images = run.config, run.inputs.backbone, run.inputs.images

    def make() -> dict[str, Tensor]:
        _settle(run)
        if config.backbone.epochs and run.inputs.weights is None:
            settings = config.backbone
            learner = Classifier(
                backbone, images.num_classes, settings.loss, config.optimizer, settings.epochs, config.seed
            )
            _train(run, learner, lambda: has_collapsed_features(run))
        else:
            record_layers(run, "backbone", 0, [config.seed], measure_backbone(backbone, images).layers)
        return _weights(backbone)

    with run.stopwatch.time("train_backbone"):
        backbone.load_state_dict(run.keeper.stage(BACKBONE_FILE, run.key(*TRAINING), make), strict=False)
    return backbone.to(config.device).eval().requires_grad_(False)


def train_under_head(
    run: Run, weights: Sequence[Tensor], *, frozen_head: bool, reference: Tensor | None = None
) -> tuple[Backbone, tuple[Tensor, ...]]:
    """Train the backbone together with a DUFM head on top of it, or under a frozen one; freeze both.

    Recorded on a log-spaced schedule of epochs: all that `train_backbone` records, loss, fit and metrics of every layer
    of the head, and with a ``reference`` how close the features come to it.

    Args:
        weights: W_1 .. W_L at the start, ``(1, out, in)`` each.
        reference: features ``(K, d_1)`` of the DUFM that the head belongs to, one per class.

    Returns:
        The backbone, and W_1 .. W_L as ``(1, out, in)`` float64.
    """
    config, backbone, images = run.config, run.inputs.backbone, run.inputs.images
    own = config.protocol.regularization == "dufm"
    penalty = DufmPenalty(config.weight_decays, config.head.feature_decay, len(images.train)) if own else None
    learner = DufmNetwork(
        backbone,
        [weight[0] for weight in weights],
        config.head.activation,
        penalty,
        config.optimizer,
        config.backbone.epochs,
        frozen_head=frozen_head,
    )

    def measure_too(epoch: int, measured: BackboneMeasurement) -> None:
        device = measured.train.device
        labels = [split.labels.to(device) for split in (images.train, images.test)]
        features = Features(measured.train.double(), labels[0], measured.test.double(), labels[1])
        record_head(run, "head", epoch, network_head(config, features, _members(learner)), features)
        if reference is not None:
            found = alignment(features, reference)
            run.record.add("head", epoch, [config.seed], {name: [value] for name, value in found.items()})

    def make() -> dict[str, Tensor]:
        _settle(run)
        if config.backbone.epochs:
            _train(run, learner, lambda: is_collapsed(run, "head", [config.seed], first_layer=1), measure_too)
        else:
            measure_training(run, learner, 0, measure_too)
        head = {f"head/{layer}": weight for layer, weight in enumerate(learner.weights, start=1)}
        return _weights(backbone) | head

    with run.stopwatch.time("train_backbone"):
        kept = run.keeper.stage(BACKBONE_FILE, run.key(*TRAINING, *HEAD), make)
        trained = tuple(
            kept.pop(f"head/{layer + 1}").to(config.device, torch.float64)[None] for layer in range(len(weights))
        )
        backbone.load_state_dict(kept, strict=False)
    return backbone.to(config.device).eval().requires_grad_(False), trained


def mean_feature(run: Run) -> Tensor:
    """Mean feature ``(d,)`` of the backbone as it was given to the run, over the training split."""
    with run.stopwatch.time("extract_features"):
        _settle(run)
        backbone = run.inputs.backbone.to(run.config.device)
        return backbone_features(backbone, run.inputs.images, run.inputs.images.train).double().mean(dim=0).clone()


def extract_features(run: Run, backbone: Backbone) -> Features:
    """Pass both splits once through the frozen backbone.

    Raises:
        RunError: a feature is NaN or infinite.
    """
    images, device = run.inputs.images, run.config.device

    def make() -> dict[str, Tensor]:
        splits = {"train": images.train, "test": images.test}
        return {name: backbone_features(backbone, images, split) for name, split in splits.items()}

    with run.stopwatch.time("extract_features"):
        key, limit = run.key(*TRAINING, *HEAD), run.config.record.max_tensor_mb
        kept = run.keeper.stage(f"{STAGES}/features.safetensors", key, make, limit)
    # Clones, because tensors born in inference mode may not be descended on.
    rows = {name: tensor.to(device).double().clone() for name, tensor in kept.items()}
    if not torch.isfinite(rows["train"]).all():
        raise RunError("the backbone's features hold NaN or infinity; a smaller optimizer.lr usually helps.")
    return Features(rows["train"], images.train.labels.to(device), rows["test"], images.test.labels.to(device))


def initial_head(run: Run, num_features: int, num_classes: int, seeds: Sequence[int] | None = None) -> list[Tensor]:
    """Random W_1 .. W_L, one member per seed (those of the descent by default): each depends on its own seed only."""
    head = run.config.head
    widths = [num_features] + [head.width] * (head.depth - 1)
    sources = [generator(seed, "head weights") for seed in (run.head_seeds if seeds is None else seeds)]
    return initial_weights(widths, num_classes, sources, head.init_scale)


def solve_head(
    run: Run,
    features: Tensor,
    weights: Sequence[Tensor],
    labels: Tensor,
    feature_decay: float | None,
    *,
    stage: str = "head",
    test: Features | None = None,
    constraint: Constraint | None = None,
) -> HeadSolution:
    """Descend from the given start, recording losses and every layer's metrics on a log-spaced schedule.

    Args:
        features: ``(N, d_1)`` frozen (``feature_decay`` None), or the free start ``(S, N, d_1)``.
        weights: W_l ``(S, d_{l+1}, d_l)``.
        labels: ``(N,)``.
        stage: what the record calls it.
        test: features whose test split is measured too.
        constraint: projects the free features in place after every step.

    Raises:
        RunError: every member diverged.
    """
    free, decays = feature_decay is not None, run.config.weight_decays

    def make() -> dict[str, Tensor]:
        solution = _descend(run, features, weights, labels, feature_decay, stage, test, constraint)
        kept = {f"weights/{layer}": weight for layer, weight in enumerate(solution.weights, start=1)}
        if free:
            kept["features"] = solution.features
        return kept | {f"diverged/{member}": torch.tensor(step) for member, step in solution.diverged.items()}

    with run.stopwatch.time("solve_head" if stage == "head" else f"solve_{stage}"):
        sections = TRAINING if run.inputs.images is not None else ("seed", "protocol", "verdict")
        key, limit = run.key(*sections, *HEAD, "stop_when_collapsed"), run.config.record.max_tensor_mb
        kept = run.keeper.stage(f"{STAGES}/{stage}.safetensors", key, make, limit)
    device = run.config.device
    diverged = {int(name.removeprefix("diverged/")): int(step) for name, step in kept.items() if "diverged" in name}
    final = tuple(kept[f"weights/{layer}"].to(device) for layer in range(1, len(weights) + 1))
    inputs = kept["features"].to(device) if free else features.to(device, final[0].dtype)
    return HeadSolution.of(
        run.config, inputs, final, labels.to(device), "free" if free else "frozen", feature_decay, decays, diverged
    )


def _weights(backbone: Backbone) -> dict[str, Tensor]:
    """The state of a backbone as files hold it: tensors only, each with memory of its own where weights are tied."""
    return {name: value.clone() for name, value in backbone.state_dict().items() if isinstance(value, Tensor)}


def _settle(run: Run) -> None:
    """Batch norms of an untrained backbone normalise its training images; given weights keep their statistics."""
    config = run.config
    if run.inputs.weights is None and not config.backbone.pretrained:
        settle_norms(run.inputs.backbone.to(config.device), run.inputs.images, config.backbone.batch_size, config.seed)


def _train(run: Run, learner: Learner, collapsed: Callable[[], bool], measure_too: MeasureToo | None = None) -> None:
    """Train and measure on the schedule; ``collapsed`` is asked whether to stop."""
    config = run.config
    schedule = log_schedule(config.backbone.epochs, config.descent.records_per_decade)

    def finished() -> bool:
        done = collapsed()
        if done:
            log.info("backbone: collapsed, stopped")
        return done

    train(
        learner,
        run.inputs.images,
        config,
        run.folder,
        schedule,
        lambda epoch: measure_training(run, learner, epoch, measure_too),
        finished,
    )


def _descend(
    run: Run,
    features: Tensor,
    weights: Sequence[Tensor],
    labels: Tensor,
    feature_decay: float | None,
    stage: str,
    test: Features | None,
    constraint: Constraint | None,
) -> HeadSolution:
    config, device, decays = run.config, run.config.device, run.config.weight_decays
    dtype = torch.float64 if config.descent.precision == "float64" else torch.float32
    descent = Descent(
        features.to(device, dtype),
        [weight.to(device, dtype) for weight in weights],
        labels.to(device),
        num_classes=weights[-1].shape[-2],
        lr=config.descent.lr,
        weight_decay=torch.tensor(decays, dtype=torch.float64),
        feature_decay=feature_decay,
        momentum=config.descent.momentum,
        activation=config.head.activation,
        constraint=constraint,
        tf32=config.descent.precision == "tf32",
    )
    steps, inputs = config.descent.steps, "frozen" if feature_decay is None else "free"
    with Progress(stage, steps, "step") as progress:
        for step in descend(descent, log_schedule(steps, config.descent.records_per_decade), progress.advance_to):
            solution = HeadSolution.of(
                config,
                descent.features,
                tuple(descent.weights),
                labels.to(device),
                inputs,
                feature_decay,
                decays,
                dict(descent.diverged),
            )
            progress.advance_to(step)
            progress.headline(record_head(run, stage, step, solution, test))
            # Layer 1 of frozen features stays what it is, whatever the head does. A DUFM solved on the way to something
            # else is wanted to the end.
            first_layer = 2 if feature_decay is None else 1
            if step and stage == "head" and is_collapsed(run, stage, run.head_seeds, first_layer):
                log.info("%s: collapsed at step %d, stopped", stage, step)
                break
    _report_divergence(run, solution)
    return solution


def _members(learner: DufmNetwork) -> tuple[Tensor, ...]:
    """W_1 .. W_L of a trained network as one member, ``(1, out, in)`` float64."""
    return tuple(weight.detach().double()[None] for weight in learner.weights)


def _report_divergence(run: Run, head: HeadSolution) -> None:
    advice = f"a smaller descent.lr (now {run.config.descent.lr:g}) usually helps."
    for member, step in head.diverged.items():
        log.warning("head seed %d diverged (noticed at step %d); %s", head.seeds[member], step, advice)
    if len(head.diverged) == len(head.seeds):
        raise RunError(f"the head diverged for every seed (by step {max(head.diverged.values())}); {advice}")
