"""Solve the DUFM, freeze its weights as the head, train the backbone under it (protocol (c) of the reproduction).

Do networks recover the unconstrained features? The optimum of the DUFM is one of many, equal up to an orthogonal map of
the feature space. The one that is frozen is chosen so that a network can reach it:

* its features are non-negative, because those of a backbone that ends in a ReLU are; this costs nothing, since the
  optimal value is attained there too (a non-negative orthogonal frame);
* then the axes are flipped where the untrained backbone's mean feature is negative, so that the samples enter where the
  units of layer 2 are active. A sample for which all of them are dead gets no gradient and stays where it is.
"""

import torch

from pipeline.dufm import initial_features
from pipeline.runs.heads import initial_head, solve_head
from pipeline.runs.inputs import dufm_of
from pipeline.runs.run import Outcome, Run
from pipeline.runs.solutions import HeadSolution, alignment, network_head, unseen_share
from pipeline.runs.stages import extract_features, mean_feature, train_under_head
from pipeline.runtime.randomness import generator
from pipeline.storage.record import finite_or_none
from pipeline.theory import diagnose_among, lowest


def fixed_head(run: Run) -> Outcome:
    """Report how near the network comes to the DUFM: loss, alignment of the features, collapse of every layer."""
    config = run.config
    solved = _constructed(run) if config.protocol.solution == "constructed" else _descended(run)
    best = int(solved.objective.total.nan_to_num(nan=torch.inf).argmin())
    weights, reference = [weight[best : best + 1].clone() for weight in solved.weights], solved.features[best].clone()
    signs = torch.where(mean_feature(run) < 0, -1.0, 1.0).to(reference)
    weights[0] *= signs
    reference *= signs

    backbone, weights = train_under_head(run, weights, frozen_head=True, reference=reference)
    features = extract_features(run, backbone)
    head = network_head(config, features, weights)
    return Outcome.on_images(
        run, head, features, fixed_head=_report(run, solved, best, head, alignment(features, reference))
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
        constraint=lambda features: features.clamp_(min=0),
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


def _report(
    run: Run, solved: HeadSolution, best: int, head: HeadSolution, aligned: dict[str, float]
) -> dict[str, object]:
    """The ``fixed_head`` section of the summary."""
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
