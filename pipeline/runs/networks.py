"""Stages of `protocol=network`: a network trained under a linear classifier, or its states in files of others, measured
with the weight that the rows of each place enter; the classifier is the last place."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.config.schema import CENTRES
from pipeline.dufm.objectives import load_objective
from pipeline.measure.layers import CLASSIFIER, BackboneMeasurement, Entered, measure_backbone
from pipeline.measure.second_look import Entering
from pipeline.metrics.registry import TEST
from pipeline.networks import Backbone, load_weights
from pipeline.networks.beside import classifier_in
from pipeline.networks.links import CLASSIFIER as ON_TOP
from pipeline.networks.links import Links, find_links
from pipeline.networks.rows import Layout
from pipeline.networks.taps import Tap
from pipeline.networks.token_backbone import counted
from pipeline.runs.network_references import gap, reference_of
from pipeline.runs.recording import check_features, has_collapsed_features, measure_training, record_layers, score
from pipeline.runs.run import TRAINING, Run
from pipeline.runs.stages import BACKBONE_FILE, backbone_state, classifier_of, say_what_is_read, settle_norms
from pipeline.runs.stages import train_recorded as train
from pipeline.runtime.checkpoint_timer import CheckpointTimer
from pipeline.runtime.interruption import interruption
from pipeline.runtime.progress import Progress
from pipeline.storage.stages import STAGES

log = logging.getLogger(__name__)

STAGE_OF = {"epoch": "backbone", "step": "steps", "checkpoint": "checkpoints"}
"""The stage under which states of a network are recorded, by what they count."""
IN_FILE = "classifier."
"""Begins the names of the classifier's tensors beside the backbone's in the run's own file."""


@dataclass(frozen=True)
class Measured:
    """What a network ends as: frozen, with the classifier ``(K, d)``, ``(K,)`` on top if that is known, and the stage
    under which it is recorded."""

    backbone: Backbone
    weight: Tensor | None
    bias: Tensor | None
    stage: str = "backbone"


def weights_entered(backbone: Backbone, links: Links, classifier: Tensor | None, num_classes: int) -> Entered:
    """The weights that rows enter as they are, by place, each with the next one where it is known.

    One with a row per class that is no classifier, and of which nobody knows what follows, is left out: its rows would
    be taken for those of classes.
    """

    def weight_of(linear: str | None) -> Tensor | None:
        if linear is None or linear == ON_TOP:
            return classifier if linear else None
        return backbone.get_submodule(linear).weight

    found: dict[tuple[str, str], Entering] = {}
    end = links.own_classifier if CLASSIFIER in backbone.taps else ON_TOP
    for block, linear in links.entered.items():
        follows = links.following.get(linear)
        weight, after = weight_of(linear), weight_of(follows)
        last = linear in (ON_TOP, links.own_classifier)
        if weight is not None and (last or after is not None or len(weight) != num_classes):
            found[block, "post"] = Entering(weight, after, linear in links.bare and follows == end)
    own = backbone.get_submodule(end).weight if CLASSIFIER in backbone.taps else None
    if classifier is not None or own is not None:
        found[CLASSIFIER] = Entering(classifier if own is None else own)
    return found


def train_network(run: Run) -> Measured:
    """Train the backbone under a linear classifier, and freeze both; with ``backbone.epochs=0`` they stay as drawn.

    Loss, accuracy and the metrics of every place are recorded before training, and every ``protocol.every`` epochs or
    on a log-spaced schedule.
    """
    config, backbone, images = run.config, run.inputs.backbone, run.resident
    key, epochs = run.key(*TRAINING), config.backbone.epochs
    run.planned_steps["backbone"] = epochs

    def make() -> dict[str, Tensor]:
        say_what_is_read(run)
        settle_norms(run)
        learner, links = classifier_of(run, epochs), find_links(backbone)
        reference, _ = reference_of(config, backbone, images)

        def entered() -> Entered:
            return weights_entered(backbone, links, learner.head.weight, images.num_classes)

        def compare(epoch: int, measured: BackboneMeasurement) -> None:
            if config.backbone.loss == CENTRES:
                of_splits = (("", measured.train, images.train), (TEST, measured.test, images.test))
                found = {
                    f"{prefix}{name}": [value]
                    for prefix, rows, split in of_splits
                    for name, value in learner.measured(*counted(rows, split.targets.to(rows.device))).items()
                }
                run.record.add("backbone", epoch, [config.seed], found)
            if reference is None:
                return
            total = reference.total(learner, measured.train, images.train.targets.to(measured.train.device))
            found = {"loss": [total], "relative_gap": [gap(total, reference.value)]}
            run.record.add("backbone", epoch, [config.seed], found)

        if epochs:
            train(run, key, learner, lambda: has_collapsed_features(run), compare, entered)
        else:
            measure_training(run, learner.to(config.device), 0, compare, entered)
        head = {f"{IN_FILE}{name}": value.clone() for name, value in learner.head.state_dict().items()}
        return backbone_state(backbone) | head

    with run.stopwatch.time("train_backbone"):
        kept = run.stage_cache.load_or_run(BACKBONE_FILE, key, make)
        head = {name: kept.pop(name).to(config.device) for name in list(kept) if name.startswith(IN_FILE)}
        backbone.load_state_dict(kept, strict=False)
    frozen = backbone.to(config.device).eval().requires_grad_(False)
    return Measured(frozen, head[f"{IN_FILE}weight"], head.get(f"{IN_FILE}bias"))


def fit_network(run: Run) -> Measured:
    """Let a network that is solved, and not trained, fit itself to the training images; recorded before (step 0) and
    after it (step 1)."""
    config, backbone, images = run.config, run.inputs.backbone, run.resident
    network, train_split = backbone.network, images.train
    run.planned_steps["backbone"] = 1

    def make() -> dict[str, Tensor]:
        say_what_is_read(run)
        links = find_links(backbone)
        _measure_state(run, "backbone", 0, links, None)
        rows = images.standardise(train_split.images.to(config.device))
        network.fit(rows, train_split.targets.to(config.device), images.num_classes)
        _measure_state(run, "backbone", 1, links, None, network.decide)
        return backbone_state(backbone)

    with run.stopwatch.time("train_backbone"):
        backbone.to(config.device)
        backbone.load_state_dict(run.stage_cache.load_or_run(BACKBONE_FILE, run.key(*TRAINING), make), strict=False)
    return Measured(backbone.eval(), None, None)


def measure_given(run: Run) -> Measured:
    """Measure a network in each of the states that were given, by the steps that the files tell; nothing is trained.

    A run that goes on begins with the state after the last one it has kept.
    """
    config, backbone, given = run.config, run.inputs.backbone, run.inputs.weights
    stage, prefix = STAGE_OF[given.unit], config.backbone.checkpoint_prefix
    classifier = partial(classifier_in, num_classes=run.inputs.images.num_classes, key=given.key, prefix=prefix)
    partly = run.stage_cache.partial(f"{STAGES}/states.safetensors", run.key(*TRAINING))
    kept = partly.load()
    done = 0 if kept is None else kept[1]["done"]
    run.planned_steps[stage] = max(given.steps)
    timer, count = CheckpointTimer(config.trainer.checkpoint_seconds), len(given.files)
    backbone.to(config.device).eval().requires_grad_(False)
    if not done:
        say_what_is_read(run)
    with run.stopwatch.time("measure_states"), interruption.deferred(), Progress("states", count, "file") as progress:
        links = find_links(backbone)
        if classifier(backbone, given.files[0]) is None:
            _take_own_classifier(backbone, links, run.inputs.images.num_classes)
        for number, (path, step) in list(enumerate(zip(given.files, given.steps, strict=True)))[done:]:
            load_weights(backbone, path, given.key, prefix)
            _measure_state(run, stage, step, links, classifier(backbone, path))
            progress.advance_to(number + 1)
            if timer.due():
                partly.save({}, {"done": number + 1})
                timer.restart_or_exit()
        partly.save({}, {"done": count})
    load_weights(backbone, given.files[-1], given.key, prefix)
    weight, bias = _on_device(classifier(backbone, given.files[-1]), config.device)
    return Measured(backbone, weight, bias, stage)


def _take_own_classifier(backbone: Backbone, links: Links, num_classes: int) -> None:
    """Where a network ends in its classifier, that one's rows are the last place, and not the outputs."""
    own = links.own_classifier
    if own is not None and backbone.get_submodule(own).out_features == num_classes:
        kept = {place: tap for place, tap in backbone.taps.items() if place[0] != own}
        backbone.taps = kept | {CLASSIFIER: Tap(own, "pre", layout=Layout())}


def _on_device(
    classifier: tuple[Tensor, Tensor | None] | None, device: torch.device
) -> tuple[Tensor | None, Tensor | None]:
    weight, bias = classifier or (None, None)
    return (None if weight is None else weight.float().to(device)), (None if bias is None else bias.float().to(device))


def _measure_state(
    run: Run,
    stage: str,
    step: int,
    links: Links,
    found: tuple[Tensor, Tensor | None] | None,
    decide: Callable[[Tensor], Tensor] | None = None,
) -> None:
    """Record what a network is as it stands; its decisions, loss and accuracy where there is a classifier for them."""
    config, backbone, images = run.config, run.inputs.backbone, run.resident
    weight, bias = _on_device(found, config.device)
    decide = decide or _decide(backbone, links, weight, bias, images.num_classes)
    entered = weights_entered(backbone, links, weight, images.num_classes)
    measured = measure_backbone(backbone, images, decide, config.pooling, config.measure.settings, entered)
    for split, rows in (("train", measured.of_train), ("test", measured.of_test)):
        check_features(split, rows, "measure_states", trained=False)
    record_layers(run, stage, step, [config.seed], measured.layers)
    numbers = {} if decide is None else _scores(run, measured, decide)
    if numbers:
        run.record.add(stage, step, [config.seed], numbers)
    told = "".join(f"  {name} {value[0]:.4g}" for name, value in numbers.items())
    unit, last = next(unit for unit, name in STAGE_OF.items() if name == stage), run.planned_steps[stage]
    log.info("%s %d of %d%s", unit, step, last, told)


def _decide(
    backbone: Backbone, links: Links, weight: Tensor | None, bias: Tensor | None, num_classes: int
) -> Callable[[Tensor], Tensor] | None:
    """Outputs on features: by the classifier of the file, or the features themselves where the network ends in one."""
    if weight is not None:
        return lambda features: F.linear(features.to(weight), weight, bias)
    linear = None if links.own_classifier is None else backbone.get_submodule(links.own_classifier)
    return nn.Identity() if linear is not None and linear.out_features == num_classes else None


def _scores(run: Run, measured: BackboneMeasurement, decide: Callable[[Tensor], Tensor]) -> dict[str, list[float]]:
    loss, images, found = load_objective(run.config.backbone.loss), run.resident, {}

    def of_rows(rows: Tensor, labels: Tensor) -> tuple[float, float]:
        with torch.inference_mode():
            rows, labels = counted(rows, labels)
            outputs = decide(rows)
            right = (outputs.argmax(dim=1) == labels).double().mean()
            return float(loss.on_batch(outputs, labels)), float(right)

    for name, rows, split in (("train", measured.of_train, images.train), ("test", measured.of_test, images.test)):
        value, share = score(of_rows, rows, split.labels, loss.needs_labels)
        found |= {f"{name}_loss": [value], f"{name}_accuracy": [share]}
    return found
