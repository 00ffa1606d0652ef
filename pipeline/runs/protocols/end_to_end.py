"""Train backbone and DUFM head together (protocol (a) of the reproduction)."""

from pipeline.runs.heads import initial_head
from pipeline.runs.run import Outcome, Run
from pipeline.runs.solutions import network_head
from pipeline.runs.stages import extract_features, train_under_head


def end_to_end(run: Run) -> Outcome:
    """One network, one seed: ``protocol.regularization`` says what is decayed."""
    config, images = run.config, run.inputs.images
    start = initial_head(run, run.inputs.backbone.num_features, images.num_classes, [config.seed])
    backbone, weights = train_under_head(run, start, frozen_head=False)
    features = extract_features(run, backbone)
    head = network_head(config, features, weights)
    return Outcome.on_images(run, head, features)
