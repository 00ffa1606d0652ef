"""Solve the DUFM, freeze its weights as the head, train the backbone under it (protocol (c) of the reproduction).

Do networks recover the unconstrained features? The optimum of the DUFM is one of many, equal up to an orthogonal map of
the feature space. The one that is frozen is chosen so that a network can reach it:

* its features are non-negative, because those of a backbone that ends in a ReLU are; this costs nothing, since the
  optimal value is attained there too (a non-negative orthogonal frame);
* then the axes are flipped where the untrained backbone's mean feature is negative, so that the samples enter where the
  units of layer 2 are active. A sample for which all of them are dead gets no gradient and stays where it is.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from pipeline.config import Config
from pipeline.data import ImageData
from pipeline.dufm import initial_features
from pipeline.dufm.objectives import known_objectives, load_objective
from pipeline.runs.heads import initial_head, solve_head
from pipeline.runs.inputs import Inputs, check_head_memory
from pipeline.runs.outcome import Outcome, Section
from pipeline.runs.protocols import Stage, protocol
from pipeline.runs.run import Run
from pipeline.runs.sections import HeadSection, NetworkSection
from pipeline.runs.solutions import HeadSolution, Terms, alignment, network_head, unseen_share
from pipeline.runs.stages import extract_features, mean_feature, train_under_head
from pipeline.runtime.errors import ConfigError
from pipeline.runtime.randomness import generator
from pipeline.runtime.settings import shown
from pipeline.storage.record import finite_or_none
from pipeline.theory import DufmProblem, diagnose_among, lowest


def dufm_of(config: Config, images: ImageData) -> DufmProblem:
    """The DUFM whose optimum is the head, with one sample per class standing for all of the class.

    The n samples of a collapsed class cost as much as one with feature decay n lambda_{H_1} (`pipeline.theory`).
    Classes that differ in size are taken for equal ones of their mean size N / K.
    """
    mean_size = len(images.train) / images.num_classes
    head = config.head
    return DufmProblem(images.num_classes, 1, head.depth, config.weight_decays, head.feature_decay * mean_size)


def has_an_optimum(config: Config, inputs: Inputs) -> None:
    """Refuse a DUFM without a collapsed optimum to freeze.

    Raises:
        ConfigError: a layer is narrower than there are classes, the optimum is zero, or memory does not suffice.
    """
    head, classes, width = config.head, inputs.images.num_classes, inputs.backbone.num_features
    check_head_memory(config, inputs, config.descent.seeds, classes, free=True)
    if width < classes or (head.depth > 1 and head.width < classes):
        raise ConfigError(
            f"protocol=fixed_head needs every layer at least as wide as there are classes ({classes}), but "
            f"head.width={head.width} and the backbone has {width} features; allowed: wider ones."
        )
    if config.features.constraint != "none":
        raise ConfigError(
            f"features.constraint={config.features.constraint} does not go with protocol=fixed_head, whose DUFM has "
            "non-negative features as it is; allowed: none."
        )
    decays = (*config.weight_decays, head.feature_decay)
    if head.bias != "none" or not head.depth or not all(decays):
        key = "weight_decay" if head.feature_decay and head.depth else "feature_decay" if head.depth else "depth"
        key = key if head.bias == "none" else "bias"
        raise ConfigError(
            f"head.{key}={shown(getattr(head, key))} has no closed form, which protocol=fixed_head measures its head "
            "by; allowed: a depth from 1, decays > 0 and no bias."
        )
    problem = dufm_of(config, inputs.images)
    known = config.objective.references(problem)
    if not known:
        others = [name for name in known_objectives() if load_objective(name).references(problem)]
        raise ConfigError(
            f"head.loss={head.loss} has no closed form, which protocol=fixed_head measures its head by; allowed: "
            f"{', '.join(others)}."
        )
    if lowest(known).is_zero:
        raise ConfigError(
            f"head.weight_decay={head.weight_decay} and head.feature_decay={head.feature_decay} are so large that the "
            "optimum of the DUFM, whose weights protocol=fixed_head freezes, is zero; allowed: smaller ones."
        )


def penalises_the_head(config: Config) -> None:
    """Refuse a penalty that is not the frozen head's.

    Raises:
        ConfigError: ``protocol.regularization=objective``.
    """
    if config.protocol.regularization == "objective":
        raise ConfigError(
            "protocol.regularization=objective does not go with protocol=fixed_head, whose objective is the DUFM's; "
            "allowed: dufm, standard."
        )


@protocol(
    images=True,
    network=True,
    head="joint",
    stages={
        "backbone": Stage("Backbone"),
        "head": Stage("Head", layers="numbered"),
        "dufm": Stage("DUFM solved for the fixed head", unit="gradient step", layers="numbered", intermediate=True),
    },
    check=penalises_the_head,
    check_inputs=has_an_optimum,
)
def fixed_head(run: Run) -> Outcome:
    """Report how near the network comes to the DUFM: loss, alignment of the features, collapse of every layer."""
    config = run.config
    solved = _constructed(run) if config.protocol.solution == "constructed" else _descended(run)
    best = int(solved.objective.total.nan_to_num(nan=torch.inf).argmin())
    weights, reference = [weight[best : best + 1].clone() for weight in solved.weights], solved.features[best].clone()
    signs = torch.where(mean_feature(run) < 0, -1.0, 1.0).to(reference)
    weights[0] *= signs
    reference *= signs

    backbone, weights, _ = train_under_head(run, weights, frozen_head=True, reference=reference)
    features = extract_features(run, backbone)
    head = network_head(config, features, weights, frozen=True)
    found = _report(run, solved, best, head, alignment(features, reference))
    on_images = HeadSection.on_images(run, head, features, relative_gap=found["relative_gap"])
    return Outcome((NetworkSection(), FixedHeadSection(found), on_images))


@dataclass(frozen=True)
class FixedHeadSection(Section):
    """How near the network came to the DUFM whose weights are its head."""

    found: Mapping[str, Any]
    name: ClassVar[str] = "fixed_head"

    def summary(self, run: Run) -> dict[str, Any]:
        return {self.name: self.found}

    def lines(self, summary: Mapping[str, Any]) -> Iterator[str]:
        found = summary[self.name]
        cosine, cosine_rotated = (
            "undefined (the features are zero)" if found[name] is None else f"{found[name]:.4f}"
            for name in ("alignment", "alignment_rotated")
        )
        unseen = ""
        if found["unseen_share"] is not None:
            unseen = (
                f" ({found['relative_gap_without_unseen']:.2e} without the {100 * found['unseen_share']:.1f} % of "
                "their squared norm that the head cannot see)"
            )
        yield (
            f"DUFM of the head ({found['solution']}): {found['dufm_sits_at']}, {found['dufm_relative_gap']:.2e} above "
            f"its optimum {found['dufm_optimum']:.6g}; with the network's features {found['relative_gap']:.2e} above "
            f"it{unseen}."
        )
        yield (
            f"Features against the DUFM's: cosine {cosine}, after the best rotation {cosine_rotated}; "
            f"relative distance {found['feature_distance']:.3f} and {found['feature_distance_rotated']:.3f}."
        )


def _descended(run: Run) -> HeadSolution:
    """Minima found by descent from ``descent.seeds`` starts; the best one is frozen."""
    config, width = run.config, run.inputs.backbone.num_features
    problem = dufm_of(config, run.inputs.images)
    sources = [generator(seed, "features") for seed in run.head_seeds]
    return solve_head(
        run,
        initial_features(problem.num_classes, width, sources, config.head.init_scale).abs(),
        initial_head(run, width, problem.num_classes),
        torch.arange(problem.num_classes),
        problem.feature_decay,
        stage="dufm",
        terms=Terms(constraint="nonnegative"),
    )


def _constructed(run: Run) -> HeadSolution:
    """The closed form, written down."""
    config, problem = run.config, dufm_of(run.config, run.inputs.images)
    widths = [run.inputs.backbone.num_features] + [config.head.width] * (config.head.depth - 1)
    source = generator(config.seed, "constructed optimum")
    optimum = lowest(config.objective.references(problem))
    point = optimum.construct(widths, source, nonnegative_features=True)
    features, labels, *weights = (
        tensor.to(config.device) for tensor in (point.features[None], point.labels, *(w[None] for w in point.weights))
    )
    return HeadSolution.of(
        config, features, tuple(weights), labels, "free", problem.feature_decay, problem.weight_decays, {}
    )


def _report(run: Run, solved: HeadSolution, best: int, head: HeadSolution, aligned: dict[str, float]) -> dict[str, Any]:
    """The `fixed_head` part of the summary."""
    known = run.config.objective.references(dufm_of(run.config, run.inputs.images))
    entering, *_ = run.record.final_layers("head", [run.config.seed])
    unseen = finite_or_none(unseen_share(head.features, head.weights[0][0]))
    optimum, dufm_loss = lowest(known).value, float(solved.objective.total[best])
    loss, unseen_penalty = float(head.objective.total), (unseen or 0.0) * float(head.objective.feature_penalty)
    return {
        "solution": run.config.protocol.solution,
        "dufm_seed": solved.seeds[best],
        "dufm_loss": dufm_loss,
        "dufm_optimum": optimum,
        "dufm_relative_gap": dufm_loss / optimum - 1,
        "dufm_sits_at": diagnose_among(known, dufm_loss).name,
        "loss": loss,
        "relative_gap": loss / optimum - 1,
        "unseen_share": unseen,
        "relative_gap_without_unseen": (loss - unseen_penalty) / optimum - 1,
        **{name: finite_or_none(value) for name, value in aligned.items()},
        **{f"features_{name}": entering[name][0] for name in ("dnc1", "dnc2")},
    }
