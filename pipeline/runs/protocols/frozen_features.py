"""Train a backbone, freeze it, train a fresh DUFM head on its features (protocol (b) of the reproduction)."""

from pipeline.runs.head_checks import check_images
from pipeline.runs.heads import initial_head, solve_head
from pipeline.runs.outcome import Outcome
from pipeline.runs.protocols import Stage, protocol
from pipeline.runs.run import Run
from pipeline.runs.sections import HeadSection, NetworkSection
from pipeline.runs.sharding import is_sharded
from pipeline.runs.solutions import Terms
from pipeline.runs.stages import extract_features, train_backbone
from pipeline.runs.starts import anchor_on


@protocol(
    images=True,
    network=True,
    head="descent",
    stages={"backbone": Stage("Backbone"), "head": Stage("Head", unit="gradient step", layers="numbered")},
    check_inputs=check_images,
)
def frozen_features(run: Run) -> Outcome:
    """The main job. With ``head.inputs=free`` the features are only where the head's own variables start."""
    images = run.inputs.images
    backbone = train_backbone(run)
    sharded = is_sharded(run.config, run.protocol, images, backbone.num_features)
    features = extract_features(run, backbone, shared_out=sharded)
    num_classes = images.num_classes
    weights = initial_head(run, features.train.shape[1], num_classes)
    free, bound = run.config.head.inputs == "free", run.config.features
    head = solve_head(
        run,
        features.train.expand(run.config.descent.seeds, -1, -1) if free else features.train,
        weights,
        features.train_labels,
        run.config.head.feature_decay if free else None,
        test=features,
        terms=Terms(constraint=bound.constraint, anchor=anchor_on(run.config, features.train), num_classes=num_classes),
    )
    return Outcome((NetworkSection(), HeadSection.on_images(run, head, features)))
