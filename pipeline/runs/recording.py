"""What is measured at a stop of a training or a descent, written into the record; and whether that is enough."""

import logging
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pipeline.config import Config
from pipeline.dufm import forward
from pipeline.dufm.head_measures import head_regression
from pipeline.dufm.objectives import load_objective
from pipeline.dufm.verdict import all_collapsed, features_collapsed, judge
from pipeline.measure.extraction import SplitFeatures
from pipeline.measure.heads import measure_head
from pipeline.measure.layers import BackboneMeasurement, Entered, LayerMeasurement, measure_backbone
from pipeline.metrics import r_squared
from pipeline.metrics.registry import CORE
from pipeline.networks.token_backbone import counted
from pipeline.runs.known import known_of
from pipeline.runs.run import Run
from pipeline.runs.solutions import Features, HeadSolution
from pipeline.runtime import ranks
from pipeline.runtime.errors import RunError
from pipeline.storage.record import Record, Row
from pipeline.storage.summary import HEAD

if TYPE_CHECKING:
    from pipeline.runs.training.learners import Learner

log = logging.getLogger(__name__)

MeasureToo = Callable[[int, BackboneMeasurement], None]
"""Called with the number of epochs done and what was measured of the backbone after them."""


def measure_training(
    run: Run,
    learner: "Learner",
    epoch: int,
    measure_too: MeasureToo | None,
    entered: Callable[[], Entered] | None = None,
) -> str:
    """Record the whole network after an epoch, with the weights that the rows of its places enter, if they are given;
    returns the headline."""
    from pipeline.runs.training.objective import measured_objective

    images, seeds, numbers = run.resident, [run.config.seed], {}
    pooling, settings = run.config.pooling, run.config.measure.settings
    if epoch % run.config.measure.every and epoch < run.config.backbone.epochs:
        settings = replace(settings, families=(CORE,))
    weights = entered() if entered else None
    fitting = learner.leaky_fit
    measured = measure_backbone(learner.backbone, images, learner.decide, pooling, settings, weights, fitting)
    if epoch == 0:  # nothing that is trained on them would help
        check_features("train", measured.of_train, "train_backbone", trained=False)
    record_layers(run, "backbone", epoch, seeds, measured.layers)
    compares = getattr(learner.loss, "needs_labels", False)
    for name, rows, split in (("train", measured.of_train, images.train), ("test", measured.of_test, images.test)):
        loss, share = score(learner.score, rows, split.told, compares)
        numbers |= {f"{name}_loss": [loss]} | ({} if share is None else {f"{name}_accuracy": [share]})
    if learner.penalised is not None:
        numbers |= {name: [value] for name, value in measured_objective(learner, images).items()}
    run.record.add("backbone", epoch, seeds, numbers)
    if measure_too is not None:
        measure_too(epoch, measured)
    headline = f"loss {numbers['train_loss'][0]:.4g}"
    if "train_accuracy" in numbers:
        accuracies = [100 * numbers[f"{split}_accuracy"][0] for split in ("train", "test")]
        headline += f"  accuracy {accuracies[0]:.2f} % train, {accuracies[1]:.2f} % test"
    log.info("backbone  epoch %d/%d  %s", epoch, run.config.backbone.epochs, headline)
    return headline


def score(
    of_rows: Callable[[Tensor, Tensor], tuple[float, float | None]],
    features: SplitFeatures,
    labels: Tensor,
    compares: bool = False,
) -> tuple[float, float | None]:
    """Loss and accuracy, None if there is none, on the features of a split, as means over what ranks have of them;
    collective.

    Args:
        of_rows: gives both, means over the rows, of features and labels.
        labels: of all images.
        compares: whether the loss is no mean over rows, because it compares them: then all are gathered.
    """
    if compares or ranks.world_size() == 1:
        return of_rows(features.all, labels.to(features.all.device))
    rows, own = features.own, labels[features.images.start : features.images.stop].to(features.own.device)
    count = len(counted(rows, own)[1])
    told = ranks.gather((count, *(of_rows(rows, own) if count else (0.0, None))))
    total = sum(each for each, *_ in told)
    loss = math.fsum(each * loss for each, loss, _ in told) / total
    shares = [(each, share) for each, _, share in told if each]
    if any(share is None for _, share in shares):
        return loss, None
    return loss, round(math.fsum(each * share for each, share in shares)) / total


def check_features(split: str, features: Tensor | SplitFeatures, stage: str, *, trained: bool) -> None:
    """Refuse features `(N, d)` that are not finite; as ranks have them collective.

    Args:
        trained: whether a training has made them so; otherwise the images or the network's own weights have.

    Raises:
        RunError: a feature is NaN or infinite.
    """
    own, before = (features, 0) if isinstance(features, Tensor) else (features.own, features.images.start)
    broken = (before + (~torch.isfinite(own).flatten(1).all(dim=1)).nonzero().flatten()).tolist()
    if not isinstance(features, Tensor):
        broken = [image for each in ranks.gather(broken) for image in each]
    if broken:
        advice = (
            "a smaller optimizer.lr usually helps"
            if trained
            else "nothing was trained yet: look at these images (of a single colour, say) and at the network's weights"
        )
        raise RunError(
            f"{stage}: the backbone's features of {len(broken)} {split} image(s) hold NaN or infinity, first "
            f"of image {broken[0]}; {advice}."
        )


@dataclass(frozen=True)
class HeadMeasurement:
    """What is measured of a batch of heads, in plain numbers, one per seed: they travel between ranks."""

    seeds: list[int]
    losses: dict[str, list[float]]
    layers: list[tuple[str, str, dict[str, list[float]], dict[str, str]]]  # layer, tap, values, reasons


def measure_solution(config: Config, head: HeadSolution, test: Features | None) -> HeadMeasurement:
    """Losses, distance to the optimum where theory knows it, and every layer of a head; collective where its samples
    are shared out."""
    yardstick = known_of(head).yardstick
    losses = {"loss": head.objective.total, "fit": head.objective.fit}
    if yardstick is not None and yardstick.value:
        losses["relative_gap"] = head.objective.total / yardstick.value - 1
    like = head.weights[0] if head.weights else head.features
    other = None if test is None else (test.test.to(like), test.test_labels.to(head.labels.device))
    if other is not None and not head.terms.has_classes:
        other = (other[0], torch.zeros_like(other[1]))
    features = head.features.to(like)
    # A network computes in float32, whatever its features are kept in.
    computed_in = None if head.inputs == "free" else torch.float32
    activation = config.head.activation
    how = config.measure.settings
    layers = measure_head(
        features,
        head.weights,
        head.labels,
        head.num_classes,
        activation,
        other,
        computed_in,
        how,
        bias=head.bias,
        classifies=head.no_decisions is None,
        shared_out=head.shard is not None,
    )
    found = HeadMeasurement(
        list(head.seeds),
        {name: value.tolist() for name, value in losses.items()},
        [(at.layer, at.tap, {name: value.tolist() for name, value in at.values.items()}, at.reasons) for at in layers],
    )
    return found if head.shard is None else ranks.broadcast(found)


def joined_members(parts: Sequence[HeadMeasurement], num_members: int) -> HeadMeasurement:
    """One measurement of all members from those of consecutive parts; parts beyond the last member are left out."""
    parts = parts[:num_members]
    layers = []
    for same in zip(*(part.layers for part in parts), strict=True):
        layer, tap, *_ = same[0]
        reasons = {name: why for *_, found in same for name, why in found.items()}
        layers.append((layer, tap, _joined([values for _, _, values, _ in same]), reasons))
    seeds = [seed for part in parts for seed in part.seeds]
    return HeadMeasurement(seeds, _joined([part.losses for part in parts]), layers)


def _joined(parts: Sequence[dict[str, list[float]]]) -> dict[str, list[float]]:
    return {name: [number for part in parts for number in part[name]] for name in parts[0]}


def record_solution(run: Run, stage: str, step: int, found: HeadMeasurement) -> str:
    """Record what was measured of a head; returns the headline."""
    run.record.add(stage, step, found.seeds, found.losses)
    for layer, tap, values, reasons in found.layers:
        run.record.add(stage, step, found.seeds, values, layer=layer, tap=tap, reasons=reasons)
    return _headline(found.losses)


def record_head(run: Run, stage: str, step: int, head: HeadSolution, test: Features | None) -> str:
    """Measure and record losses and layers of a head; returns the headline."""
    return record_solution(run, stage, step, measure_solution(run.config, head, test))


def record_regression(run: Run, stage: str, step: int, head: HeadSolution, features: Features) -> None:
    """Record NRC1-3 of a head that is fitted to numbers of images, NRC3 where it is least, and R^2 of both splits."""
    found = head_regression(features.train, head.weights, features.goals, head.activation, head.bias)
    test = forward(features.test, head.weights, head.activation, head.bias)[-1]
    collapse = found.collapse
    values = {"nrc1": collapse.nrc1, "nrc2": collapse.nrc2, "nrc3": collapse.nrc3, "r_squared": found.r_squared}
    values["test_r_squared"] = r_squared(test, features.test_goals)
    reasons = {"nrc3": collapse.reason} if collapse.reason else {}
    run.record.add(
        stage, step, list(head.seeds), {name: each.tolist() for name, each in values.items()}, reasons=reasons
    )


def record_layers(run: Run, stage: str, step: int, seeds: list[int], layers: Iterable[LayerMeasurement]) -> None:
    """Record the metrics of several places, one value per seed, with the reasons of those that are undefined."""
    for at in layers:
        run.record.add(stage, step, seeds, at.values, layer=at.layer, tap=at.tap, reasons=at.reasons)


def is_collapsed(run: Run, stage: str, seeds: list[int], first_layer: int) -> bool:
    """Whether to stop: asked for, and every layer from ``first_layer`` on meets the verdict's thresholds."""
    if not run.config.stop_when_collapsed:
        return False
    objective = run.config.objective
    layers = run.record.final_layers(stage, seeds)
    return all_collapsed(objective, layers, run.config.thresholds_of(objective), first_layer)


def reached(config: Config) -> Callable[[Sequence[Row]], str | None]:
    """What says the verdict that all rows of a head at one step meet, None if they meet none."""

    def verdict(rows: Sequence[Row]) -> str | None:
        layers = Record(Path(), list(rows)).final_layers(HEAD, sorted({row.seed for row in rows}))
        objective = config.objective
        found = judge(objective, layers, [], config.thresholds_of(objective), theorem=None)
        return None if found["collapsed_from_layer"] is None else found["text"]

    return verdict


def has_collapsed_features(run: Run) -> bool:
    """The same for a backbone by itself: its features have what is promised of them under ``backbone.loss``."""
    if not run.config.stop_when_collapsed:
        return False
    objective = load_objective(run.config.backbone.loss)
    *_, last = run.record.final_layers("backbone", [run.config.seed])
    return features_collapsed(objective, last, run.config.thresholds_of(objective))


def _headline(losses: dict[str, list[float]]) -> str:
    best = {name: min(filter(math.isfinite, values), default=math.nan) for name, values in losses.items()}
    gap = f", gap to the optimum {best['relative_gap']:.2e}" if "relative_gap" in best else ""
    return f"loss {best['loss']:.6g}{gap}"
