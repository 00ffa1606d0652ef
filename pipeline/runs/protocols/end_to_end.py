"""Train backbone and DUFM head together (protocol (a) of the reproduction)."""

from pipeline.runs.head_checks import check_images
from pipeline.runs.heads import initial_head
from pipeline.runs.outcome import Outcome
from pipeline.runs.protocols import Stage, protocol
from pipeline.runs.run import Run
from pipeline.runs.sections import HeadSection, NetworkSection
from pipeline.runs.solutions import network_head
from pipeline.runs.stages import extract_features, train_under_head


@protocol(
    images=True,
    network=True,
    head="joint",
    regresses=True,
    stages={"backbone": Stage("Backbone"), "head": Stage("Head", layers="numbered")},
    check_inputs=check_images,
)
def end_to_end(run: Run) -> Outcome:
    """One network, one seed: ``protocol.regularization`` says what is decayed."""
    config, images = run.config, run.inputs.images
    goals = images.train.goals
    outputs = images.num_classes if goals is None else goals.shape[1]
    start = initial_head(run, run.inputs.backbone.num_features, outputs, [config.seed])
    backbone, weights, bias = train_under_head(run, start, frozen_head=False)
    features = extract_features(run, backbone).constrained(config.features.constraint)
    head = network_head(config, features, weights, bias=bias)
    return Outcome((NetworkSection(), HeadSection.on_images(run, head, features)))
