"""Train a backbone, freeze it, train a fresh DUFM head on its features (protocol (b) of the reproduction)."""

from pipeline.runs.heads import initial_head, solve_head
from pipeline.runs.outcome import Outcome
from pipeline.runs.protocols import Stage, protocol
from pipeline.runs.run import Run
from pipeline.runs.sections import HeadSection, NetworkSection
from pipeline.runs.stages import extract_features, train_backbone


@protocol(
    images=True,
    network=True,
    head="descent",
    stages={"backbone": Stage("Backbone"), "head": Stage("Head", unit="gradient step", layers="numbered")},
)
def frozen_features(run: Run) -> Outcome:
    """The main job. With ``head.inputs=free`` the features are only where the head's own variables start."""
    images = run.inputs.images
    backbone = train_backbone(run)
    features = extract_features(run, backbone)
    weights = initial_head(run, features.train.shape[1], images.num_classes)
    free = run.config.head.inputs == "free"
    head = solve_head(
        run,
        features.train.expand(run.config.descent.seeds, -1, -1) if free else features.train,
        weights,
        features.train_labels,
        run.config.head.feature_decay if free else None,
        test=features,
    )
    return Outcome((NetworkSection(), HeadSection.on_images(run, head, features)))
