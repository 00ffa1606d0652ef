"""Stages that involve a network: train a backbone (alone or under a head), extract its features.

Every stage takes the `Run` (configuration, inputs, record) and plain tensors, and writes what it measures into the
record; none of them knows which protocol it serves. What a stage leaves is kept in the run folder and found again when
the run is started once more (see `pipeline.storage.stages`).

Lightning takes seconds to import: what needs it is imported where a training begins, so that a protocol can be looked
up, and a configuration checked, without it.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pipeline.config.schema import CENTRES
from pipeline.dufm.descent import log_schedule
from pipeline.dufm.objectives import load_objective
from pipeline.measure import costs
from pipeline.measure.blocks import told
from pipeline.measure.extraction import SplitFeatures, backbone_features, in_words, readings, run_over
from pipeline.measure.layers import BackboneMeasurement, Entered
from pipeline.metrics.registry import CORE
from pipeline.networks import Backbone
from pipeline.runs.family_checks import path_of, stacks_of
from pipeline.runs.recording import (
    MeasureToo,
    check_features,
    has_collapsed_features,
    is_collapsed,
    measure_training,
    record_head,
    record_layers,
    record_regression,
)
from pipeline.runs.run import HEAD, TRAINING, Run
from pipeline.runs.solutions import Features, alignment, network_head
from pipeline.storage.stages import CHECKPOINT, STAGES

if TYPE_CHECKING:
    from pipeline.config import Config
    from pipeline.runs.training.learners import DufmNetwork, Learner
    from pipeline.runs.training.objective import WeightPenalty

log = logging.getLogger(__name__)

BACKBONE_FILE = "checkpoints/backbone.safetensors"


def train_backbone(run: Run) -> Backbone:
    """Train the backbone under a linear classifier (not if ``backbone.epochs`` is 0 or weights were given); freeze it.

    The loss, the accuracy and the metrics of every block are recorded before training and on a log-spaced schedule of
    epochs.
    """
    config, backbone, images, key = run.config, run.inputs.backbone, run.resident, run.key(*TRAINING)
    epochs = config.backbone.epochs if run.trains_backbone else 0
    run.planned_steps["backbone"] = epochs

    def make() -> dict[str, Tensor]:
        backbone.to(config.device)  # where it is measured, and where the cache of features asks for its rounding
        say_what_is_read(run)
        settle_norms(run)
        if epochs:
            learner = classifier_of(run, epochs)
            train_recorded(run, key, learner, lambda: has_collapsed_features(run))
        else:
            measured = run.feature_cache.measurement(backbone, images)
            for split, rows in (("train", measured.of_train), ("test", measured.of_test)):
                check_features(split, rows, "train_backbone", trained=False)
            record_layers(run, "backbone", 0, [config.seed], measured.layers)
        return backbone_state(backbone)

    with run.stopwatch.time("train_backbone"):
        backbone.load_state_dict(run.stage_cache.load_or_run(BACKBONE_FILE, key, make), strict=False)
    return backbone.to(config.device).eval().requires_grad_(False)


def classifier_of(run: Run, epochs: int) -> "Learner":
    """The run's backbone under a linear classifier, or fixed centres in place of one; they are drawn with the seed."""
    from pipeline.runs.training.fixed_centres import CentreLearner
    from pipeline.runs.training.learners import Classifier

    config = run.config
    if config.backbone.loss == CENTRES:
        return CentreLearner.drawn(
            run.inputs.backbone,
            list(run.inputs.images.class_counts("train").values()),
            config.backbone.centres,
            config.backbone.most_centres,
            config.backbone.angle,
            config.backbone.frame,
            config.seed,
            config.optimizer,
            epochs,
            _weight_penalty(config),
        )
    return Classifier(
        run.inputs.backbone,
        run.inputs.images.num_classes,
        load_objective(config.backbone.loss),
        config.optimizer,
        epochs,
        config.seed,
        bias=config.backbone.classifier_bias,
        scale=config.backbone.init_scale,
        std=config.backbone.init_std,
        penalty=_weight_penalty(config),
    )


def _weight_penalty(config: "Config") -> "WeightPenalty | None":
    from pipeline.runs.training.objective import WeightPenalty

    if config.protocol.regularization != "objective":
        return None
    return WeightPenalty(config.optimizer.weight_decay, config.protocol.penalty_weights)


def train_under_head(
    run: Run, weights: Sequence[Tensor], *, frozen_head: bool, reference: Tensor | None = None
) -> tuple[Backbone, tuple[Tensor, ...], Tensor | None]:
    """Train the backbone together with a DUFM head on top of it, or under a frozen one; freeze both.

    Recorded on a log-spaced schedule of epochs: all that `train_backbone` records, loss, fit and metrics of every layer
    of the head, and with a ``reference`` how close the features come to it.

    Args:
        weights: W_1 .. W_L at the start, ``(1, out, in)`` each.
        reference: features ``(K, d_1)`` of the DUFM that the head belongs to, one per class.

    Returns:
        The backbone, W_1 .. W_L as ``(1, out, in)`` float64, and the last layer's bias ``(1, K)`` if it has one.
    """
    from pipeline.runs.training.learners import DufmNetwork, DufmPenalty

    config, backbone, images = run.config, run.inputs.backbone, run.resident
    run.planned_steps.update(backbone=config.backbone.epochs, head=config.backbone.epochs)
    own, key = config.protocol.regularization == "dufm", run.key(*TRAINING, *HEAD)
    penalty = DufmPenalty(config.weight_decays, config.head.feature_decay, len(images.train)) if own else None
    learner = DufmNetwork(
        backbone,
        [weight[0] for weight in weights],
        config.head.activation,
        config.objective,
        penalty,
        config.optimizer,
        config.backbone.epochs,
        frozen_head=frozen_head,
        bias=config.head.bias == "last",
        bias_decay=config.head.bias_decay,
        decay=_weight_penalty(config),
        constraint=config.features.constraint,
    )

    def measure_too(epoch: int, measured: BackboneMeasurement) -> None:
        device = measured.train.device
        features = Features.of({"train": measured.train, "test": measured.test}, images, device)
        bias = None if learner.bias is None else learner.bias.detach().double()[None]
        features = features.constrained(config.features.constraint)
        head = network_head(config, features, _members(learner), frozen=frozen_head, bias=bias)
        record_head(run, "head", epoch, head, features)
        if features.goals is not None:
            record_regression(run, "head", epoch, head, features)
        if reference is not None:
            found = alignment(features, reference)
            run.record.add("head", epoch, [config.seed], {name: [value] for name, value in found.items()})

    def make() -> dict[str, Tensor]:
        say_what_is_read(run)
        settle_norms(run)
        if config.backbone.epochs:
            train_recorded(
                run, key, learner, lambda: is_collapsed(run, "head", [config.seed], first_layer=1), measure_too
            )
        else:
            measure_training(run, learner.to(config.device), 0, measure_too)
        head = {f"head/{layer}": weight for layer, weight in enumerate(learner.weights, start=1)}
        if learner.bias is not None:
            head["head/bias"] = learner.bias
        return backbone_state(backbone) | head

    with run.stopwatch.time("train_backbone"):
        kept = run.stage_cache.load_or_run(BACKBONE_FILE, key, make)
        trained = tuple(
            kept.pop(f"head/{layer + 1}").to(config.device, torch.float64)[None] for layer in range(len(weights))
        )
        bias = kept.pop("head/bias").to(config.device, torch.float64)[None] if learner.bias is not None else None
        backbone.load_state_dict(kept, strict=False)
    return backbone.to(config.device).eval().requires_grad_(False), trained, bias


def mean_feature(run: Run) -> Tensor:
    """Mean feature ``(d,)`` of the backbone as it was given to the run, over the training split."""
    with run.stopwatch.time("extract_features"):
        settle_norms(run)
        backbone = run.inputs.backbone.to(run.config.device)
        return backbone_features(backbone, run.resident, run.resident.train).double().mean(dim=0).clone()


def extract_features(run: Run, backbone: Backbone, *, shared_out: bool = False) -> Features:
    """Pass both splits once through the frozen backbone, or find what that gave in ``features.cache``.

    Args:
        shared_out: every rank gets the features of its own images alone; they are not kept for a run that goes on.

    Raises:
        RunError: a feature is NaN or infinite.
    """
    images, device = run.resident, run.config.device
    if shared_out:
        return _own_features(run, backbone)

    def make() -> dict[str, Tensor]:
        features = run.feature_cache.features(backbone, images)
        for name, rows in features.items():
            check_features(name, rows, "extract_features", trained=run.trains_backbone)
        return features

    with run.stopwatch.time("extract_features"):
        key, limit = run.key(*TRAINING, *HEAD), run.config.record.max_tensor_mb
        kept = run.stage_cache.load_or_run(f"{STAGES}/features.safetensors", key, make, limit)
    # Clones, because tensors born in inference mode may not be descended on.
    return Features.of({name: tensor.to(device).clone() for name, tensor in kept.items()}, images, device)


def _own_features(run: Run, backbone: Backbone) -> Features:
    images, parts = run.resident, {}
    with run.stopwatch.time("extract_features"):
        for name in ("train", "test"):
            found = SplitFeatures.of(run_over(backbone, images, getattr(images, name)))
            check_features(name, found, "extract_features", trained=run.trains_backbone)
            parts[name] = replace(found, own=found.own.clone())  # see above
        return Features.of_rank(parts, images, run.config.device)


def say_what_is_read(run: Run) -> None:
    found = readings(run.inputs.backbone, run.config.pooling)
    for text, blocks in in_words(found).items():
        log.info("reading %s: %s", blocks, text)
    settings, images = run.config.measure.settings, run.inputs.images
    if settings.families != (CORE,):
        widths = {place: width for place, (_, width, _) in found.items()}
        rows = len(images.train) + (0 if images.foreign is None else len(images.foreign))
        stacks = stacks_of(run.config, run.inputs.backbone)
        path = path_of(run.config, run.inputs.backbone, len(images.train))
        spent = costs.family_bytes(widths, images.num_classes, settings, len(images.groups), rows, stacks, path)
        log.info("%s", costs.in_words(spent, len(widths)))
        if stacks:
            log.info("%s", told(stacks, settings))


def backbone_state(backbone: Backbone) -> dict[str, Tensor]:
    """The state of a backbone as files hold it: tensors only, each with memory of its own where weights are tied."""
    return {name: value.clone() for name, value in backbone.state_dict().items() if isinstance(value, Tensor)}


def settle_norms(run: Run) -> None:
    """Batch norms of an untrained backbone normalise its training images; given weights keep their statistics."""
    from pipeline.runs.training.training import calibrate_norms

    config = run.config
    if run.inputs.weights is None and not config.backbone.pretrained:
        calibrate_norms(
            run.inputs.backbone.to(config.device),
            run.resident,
            config.backbone.batch_of(len(run.resident.train)),
            config.seed,
        )


def train_recorded(
    run: Run,
    key: str,
    learner: "Learner",
    collapsed: Callable[[], bool],
    measure_too: MeasureToo | None = None,
    entered: Callable[[], Entered] | None = None,
) -> None:
    """Train and measure on the schedule, from a checkpoint kept under ``key`` if there is one; ``collapsed`` is asked
    whether to stop, ``entered`` for the weights that places enter."""
    from pipeline.runs.training.checkpoints import TrainingCheckpoints
    from pipeline.runs.training.training import train

    config = run.config
    epochs, every = config.backbone.epochs, config.protocol.every
    schedule = log_schedule(epochs, config.descent.records_per_decade)
    if every is not None:
        schedule = [*range(0, epochs, every), epochs]

    def measure(epoch: int) -> str:
        run.record.note("backbone", epoch, learning_rate=learner.rate)
        return measure_training(run, learner, epoch, measure_too, entered)

    def finished() -> bool:
        done = collapsed()
        if done:
            log.info("backbone: collapsed, stopped")
        return done

    train(
        learner,
        run.resident,
        config,
        schedule,
        measure,
        TrainingCheckpoints(run.folder / CHECKPOINT, key, run.record, config.trainer.checkpoint_seconds),
        finished,
    )


def _members(learner: "DufmNetwork") -> tuple[Tensor, ...]:
    """W_1 .. W_L of a trained network as one member, ``(1, out, in)`` float64."""
    return tuple(weight.detach().double()[None] for weight in learner.weights)
