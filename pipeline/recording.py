"""What is measured at a stop of a training or a descent, written into the record; and whether that is enough."""

import logging
from collections.abc import Callable, Iterable

import torch

from pipeline.dufm import Objective
from pipeline.learners import Learner
from pipeline.measuring import BackboneMeasurement, LayerMeasurement, measure_backbone, measure_head
from pipeline.run import Run
from pipeline.solutions import Features, HeadSolution, closed_form
from pipeline.theory import CollapsedOptimum, collapsed_optimum
from pipeline.verdict import all_collapsed

log = logging.getLogger(__name__)

MeasureToo = Callable[[int, BackboneMeasurement], None]
"""Called with the number of epochs done and what was measured of the backbone after them."""


def measure_training(run: Run, learner: Learner, epoch: int, measure_too: MeasureToo | None) -> str:
    """Record the whole network after an epoch; returns the headline."""
    images, seeds, numbers = run.inputs.images, [run.config.seed], {}
    measured = measure_backbone(learner.backbone, images, learner.decide)
    record_layers(run, "backbone", epoch, seeds, measured.layers)
    for name, rows, split in (("train", measured.train, images.train), ("test", measured.test, images.test)):
        loss, share = learner.score(rows, split.labels.to(rows.device))
        numbers |= {f"{name}_loss": [loss], f"{name}_accuracy": [share]}
    run.record.add("backbone", epoch, seeds, numbers)
    if measure_too is not None:
        measure_too(epoch, measured)
    accuracies = [100 * numbers[f"{split}_accuracy"][0] for split in ("train", "test")]
    headline = f"loss {numbers['train_loss'][0]:.4g}  accuracy {accuracies[0]:.2f} % train, {accuracies[1]:.2f} % test"
    log.info("backbone  epoch %d/%d  %s", epoch, run.config.backbone.epochs, headline)
    return headline


def record_head(run: Run, stage: str, step: int, head: HeadSolution, test: Features | None) -> str:
    """Record losses and layers of a head; returns the headline."""
    problem, _ = closed_form(head)
    reference = None if problem is None else collapsed_optimum(problem)
    losses = {"loss": head.objective.total, "fit": head.objective.fit}
    if reference is not None:
        losses["relative_gap"] = head.objective.total / reference.loss - 1
    seeds, activation = list(head.seeds), run.config.head.activation
    run.record.add(stage, step, seeds, losses)
    other = None if test is None else (test.test.to(head.weights[0]), test.test_labels.to(head.labels.device))
    features = head.features.to(head.weights[0])
    layers = measure_head(features, head.weights, head.labels, head.num_classes, activation, other)
    record_layers(run, stage, step, seeds, layers)
    return _headline(head.objective, reference)


def record_layers(run: Run, stage: str, step: int, seeds: list[int], layers: Iterable[LayerMeasurement]) -> None:
    """Record the metrics of several places, one value per seed, with the reasons of those that are undefined."""
    for at in layers:
        run.record.add(stage, step, seeds, at.values, layer=at.layer, tap=at.tap, reasons=at.reasons)


def is_collapsed(run: Run, stage: str, seeds: list[int], first_layer: int) -> bool:
    """Whether to stop: asked for, and every layer from ``first_layer`` on meets the verdict's thresholds."""
    if not run.config.stop_when_collapsed:
        return False
    return all_collapsed(run.record.final_layers(stage, seeds), vars(run.config.verdict), first_layer)


def has_collapsed_features(run: Run) -> bool:
    """The same for a backbone by itself, of whose features the theorem promises DNC1."""
    if not run.config.stop_when_collapsed:
        return False
    *_, last = run.record.final_layers("backbone", [run.config.seed])
    value = last["dnc1"][0]
    return value is not None and value <= run.config.verdict.dnc1


def _headline(objective: Objective, reference: CollapsedOptimum | None) -> str:
    best = objective.total[objective.total.isfinite()].min() if objective.total.isfinite().any() else torch.nan
    gap = f", gap to the optimum {best / reference.loss - 1:.2e}" if reference else ""
    return f"loss {best:.6g}{gap}"
