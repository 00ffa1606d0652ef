"""The deep unconstrained features model by itself: no images, values known to theory (experiments E1 and E2)."""

from pipeline.config import Config
from pipeline.runs.head_checks import check_dufm
from pipeline.runs.heads import solve_problem
from pipeline.runs.matrices import digest
from pipeline.runs.outcome import Outcome
from pipeline.runs.protocols import Stage, protocol
from pipeline.runs.run import Run
from pipeline.runs.sections import HeadSection
from pipeline.runs.shapes import class_sizes, shape_of
from pipeline.runs.solving import HeadProblem
from pipeline.runs.starts import start_of, terms_of, widths_of
from pipeline.runtime.memory import head_bytes, require_memory


def can_be_had(config: Config) -> None:
    """Refuse a model that is too large, and targets, anchors and starts that cannot be used.

    Raises:
        ConfigError: it needs more memory than there is, or a setting cannot be used.
    """
    head, protocol, seeds = config.head, config.protocol, config.descent.seeds
    sizes = class_sizes(protocol)
    needed = head_bytes(seeds, sum(sizes), widths_of(config), len(sizes), free=head.inputs == "free")
    samples = (
        f"protocol.samples_per_class={protocol.samples_per_class}"
        if protocol.class_sizes is None
        else f"protocol.class_sizes of {sum(sizes)} samples"
    )
    require_memory(
        needed,
        f"descent.seeds={seeds}, head.depth={head.depth}, head.width={head.width}, "
        f"protocol.num_classes={len(sizes)}, {samples} and protocol.num_features={protocol.num_features}",
        config.device,
    )
    check_dufm(config)


@protocol(
    head="descent",
    stages={"head": Stage("Head", unit="gradient step", layers="numbered")},
    check=can_be_had,
)
def dufm(run: Run) -> Outcome:
    """Descend on ``protocol.class_sizes`` or a matrix of targets, from where ``protocol.start`` says."""
    config, protocol = run.config, run.config.protocol
    shape = shape_of(config)
    start, terms = start_of(config, shape, terms_of(config, shape))
    problem = HeadProblem(
        features=start.features,
        weights=start.weights,
        labels=shape.labels,
        feature_decay=config.head.feature_decay if config.head.inputs == "free" else None,
        bias=start.bias,
        terms=terms,
    )
    files = (protocol.targets, protocol.start_file, config.features.anchor)
    head = solve_problem(run, problem, given="".join(digest(file) for file in files))
    return Outcome((HeadSection.on_features(run, head),))
