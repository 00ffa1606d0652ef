"""The deep unconstrained features model by itself: no images, closed-form optimum (experiments E1 and E2)."""

import torch

from pipeline.config import Config
from pipeline.dufm import balanced_features, initial_features
from pipeline.runs.heads import initial_head, solve_head
from pipeline.runs.outcome import Outcome
from pipeline.runs.protocols import Stage, protocol
from pipeline.runs.run import Run
from pipeline.runs.sections import HeadSection
from pipeline.runtime.memory import head_bytes, require_memory
from pipeline.runtime.randomness import generator


def fits_into_memory(config: Config) -> None:
    """Refuse a model that is too large.

    Raises:
        ConfigError: it needs more memory than there is.
    """
    head, protocol, seeds = config.head, config.protocol, config.descent.seeds
    widths = [protocol.num_features] + [head.width] * (head.depth - 1)
    num_samples = protocol.num_classes * protocol.samples_per_class
    needed = head_bytes(seeds, num_samples, widths, protocol.num_classes, free=head.inputs == "free")
    require_memory(
        needed,
        f"descent.seeds={seeds}, head.depth={head.depth}, head.width={head.width}, "
        f"protocol.num_classes={protocol.num_classes}, protocol.samples_per_class={protocol.samples_per_class} and "
        f"protocol.num_features={protocol.num_features}",
        config.device,
    )


@protocol(
    head="descent",
    stages={"head": Stage("Head", unit="gradient step", layers="numbered")},
    check=fits_into_memory,
)
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
    return Outcome((HeadSection.on_features(run, head),))
