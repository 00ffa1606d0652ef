"""What is measured at a stop of a training or a descent, written into the record; and whether that is enough."""

import logging
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pipeline.config import Config
from pipeline.learners import Learner
from pipeline.measuring import BackboneMeasurement, LayerMeasurement, measure_backbone, measure_head
from pipeline.run import Run
from pipeline.solutions import Features, HeadSolution, closed_form
from pipeline.theory import collapsed_optimum
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


@dataclass(frozen=True)
class HeadMeasurement:
    """What is measured of a batch of heads: losses by name, ``(S,)`` each, and the metrics of every layer."""

    seeds: tuple[int, ...]
    losses: dict[str, Tensor]
    layers: list[LayerMeasurement]


def measure_solution(config: Config, head: HeadSolution, test: Features | None) -> HeadMeasurement:
    """Losses, distance to the optimum where theory knows it, and every layer of a head; values lie on the CPU."""
    problem, _ = closed_form(head)
    losses = {"loss": head.objective.total, "fit": head.objective.fit}
    if problem is not None:
        losses["relative_gap"] = head.objective.total / collapsed_optimum(problem).loss - 1
    other = None if test is None else (test.test.to(head.weights[0]), test.test_labels.to(head.labels.device))
    features = head.features.to(head.weights[0])
    layers = measure_head(features, head.weights, head.labels, head.num_classes, config.head.activation, other)
    return HeadMeasurement(
        head.seeds,
        {name: value.cpu() for name, value in losses.items()},
        [replace(at, values={name: value.cpu() for name, value in at.values.items()}) for at in layers],
    )


def joined_members(parts: Sequence[HeadMeasurement], num_members: int) -> HeadMeasurement:
    """One measurement of all members from those of consecutive parts; parts beyond the last member are left out."""
    parts = parts[:num_members]
    layers = []
    for same in zip(*(part.layers for part in parts), strict=True):
        values = {name: torch.cat([at.values[name] for at in same]) for name in same[0].values}
        reasons = {name: why for at in same for name, why in at.reasons.items()}
        layers.append(replace(same[0], values=values, reasons=reasons))
    losses = {name: torch.cat([part.losses[name] for part in parts]) for name in parts[0].losses}
    return HeadMeasurement(tuple(seed for part in parts for seed in part.seeds), losses, layers)


def record_solution(run: Run, stage: str, step: int, found: HeadMeasurement) -> str:
    """Record what was measured of a head; returns the headline."""
    run.record.add(stage, step, list(found.seeds), found.losses)
    record_layers(run, stage, step, list(found.seeds), found.layers)
    return _headline(found.losses)


def record_head(run: Run, stage: str, step: int, head: HeadSolution, test: Features | None) -> str:
    """Measure and record losses and layers of a head; returns the headline."""
    return record_solution(run, stage, step, measure_solution(run.config, head, test))


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


def _headline(losses: dict[str, Tensor]) -> str:
    best = {name: value[value.isfinite()].min().item() for name, value in losses.items() if value.isfinite().any()}
    gap = f", gap to the optimum {best['relative_gap']:.2e}" if "relative_gap" in best else ""
    return f"loss {best.get('loss', math.nan):.6g}{gap}"
