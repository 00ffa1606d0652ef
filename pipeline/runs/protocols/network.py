"""Train a network under its own classifier, measure it, stop: no head descends.

The classifier is the last place, and its weight is measured as that of a head's last layer is. With
``backbone.checkpoints`` (or one ``backbone.checkpoint``, or ``backbone.from_run``) nothing is trained: the states that
somebody else's training has left are measured in a row.
"""

from pipeline.runs.networks import fit_network, measure_given, train_network
from pipeline.runs.outcome import Outcome
from pipeline.runs.protocols import Stage, protocol
from pipeline.runs.run import Run
from pipeline.runs.sections import ClassifierSection, NetworkSection
from pipeline.runs.stages import extract_features


@protocol(
    images=True,
    network=True,
    states=True,
    stages={
        "backbone": Stage("Network"),
        "steps": Stage("Network", unit="step"),
        "checkpoints": Stage("Network", unit="checkpoint"),
    },
)
def network(run: Run) -> Outcome:
    """One network, one seed."""
    if run.inputs.weights is not None:
        measured = measure_given(run)
    else:
        measured = fit_network(run) if hasattr(run.inputs.backbone.network, "fit") else train_network(run)
    features = extract_features(run, measured.backbone)
    return Outcome((NetworkSection(measured.stage), ClassifierSection(measured, features)))
