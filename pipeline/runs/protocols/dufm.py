"""The deep unconstrained features model by itself: no images, closed-form optimum (experiments E1 and E2)."""

import torch

from pipeline.dufm import balanced_features, initial_features
from pipeline.runs.heads import initial_head, solve_head
from pipeline.runs.run import Outcome, Run
from pipeline.runs.solutions import accuracy
from pipeline.runtime.randomness import generator


def dufm(run: Run) -> Outcome:
    """Descend from random or balanced features of ``protocol.num_classes`` classes of equal size."""
    config, protocol = run.config, run.config.protocol
    labels = torch.arange(protocol.num_classes).repeat_interleave(protocol.samples_per_class)
    weights = initial_head(run, protocol.num_features, protocol.num_classes)
    sources = [generator(seed, "features") for seed in run.head_seeds]
    if protocol.features == "balanced":
        features, weights[0] = balanced_features(
            weights[0], len(labels), config.weight_decays[0], config.head.feature_decay, sources
        )
    else:
        features = initial_features(len(labels), protocol.num_features, sources, config.head.init_scale)
    decay = config.head.feature_decay if config.head.inputs == "free" else None
    head = solve_head(run, features, weights, labels, decay)
    return Outcome(
        head, train_accuracy=accuracy(run.config, head, head.features, labels), test_accuracy=None, classes=None
    )
