"""Train a backbone, freeze it, train a fresh DUFM head on its features (protocol (b) of the reproduction)."""

from pipeline.runs.heads import initial_head, solve_head
from pipeline.runs.run import Outcome, Run
from pipeline.runs.stages import extract_features, train_backbone


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
    return Outcome.on_images(run, head, features)
