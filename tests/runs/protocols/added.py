"""Protocols that somebody adds: each is one file, and one file of settings, in a copy of the package."""

ORTHOGONAL = '''"""A head on features that are orthogonal and collapsed from the start: no images, no network."""

import torch

from pipeline.runs.heads import initial_head, solve_head
from pipeline.runs.outcome import Outcome
from pipeline.runs.protocols import Stage, protocol
from pipeline.runs.run import Run
from pipeline.runs.sections import HeadSection


@protocol(head="descent", stages={"head": Stage("Head", unit="gradient step", layers="numbered")})
def orthogonal(run: Run) -> Outcome:
    """Descend on one unit vector per class."""
    classes, samples = run.config.protocol.num_classes, run.config.protocol.samples_per_class
    labels = torch.arange(classes).repeat_interleave(samples)
    features = torch.eye(classes, dtype=torch.float64)[labels]
    head = solve_head(run, features, initial_head(run, classes, classes), labels, None)
    return Outcome((HeadSection.on_features(run, head),))
'''

TRAINED_ONLY = '''"""A network trained as it is, and measured: no head."""

from pipeline.runs.outcome import Outcome
from pipeline.runs.protocols import Stage, protocol
from pipeline.runs.run import Run
from pipeline.runs.sections import NetworkSection
from pipeline.runs.stages import train_backbone


@protocol(images=True, network=True, stages={"backbone": Stage("Network")})
def trained_only(run: Run) -> Outcome:
    """Train under the classifier and measure every block."""
    train_backbone(run)
    return Outcome((NetworkSection(),))
'''

PIXELS = '''"""The pixels themselves, measured: images, but neither a network nor a head, and a figure of its own."""

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure

from pipeline.config import Config
from pipeline.runs.outcome import Outcome
from pipeline.runs.protocols import Stage, protocol
from pipeline.runs.run import Run
from pipeline.runs.sections import FactsSection
from pipeline.runtime.errors import ConfigError


def at_most_ten(config: Config) -> None:
    if config.head.depth > 10:
        raise ConfigError(f"head.depth={config.head.depth} is of no use to protocol=pixels; allowed: 1..10.")


class Pixels(FactsSection):
    def figure(self, record: Any, summary: Mapping[str, Any]) -> Figure:
        figure = Figure()
        figure.subplots().bar(["train"], [self.facts["mean"]])
        return figure


@protocol(images=True, stages={"pixels": Stage("Pixels", unit="look")}, check=at_most_ten)
def pixels(run: Run) -> Outcome:
    """Record the mean pixel."""
    images = run.inputs.images.train.images.double()
    run.record.add("pixels", 0, [run.config.seed], {"mean": [images.mean().item()]})
    facts = {"mean": images.mean(), "undefined": float("nan"), "shape": tuple(images.shape[1:])}
    return Outcome((Pixels("pixels", facts, {"mean": "mean pixel"}, "the pixels are grey", {"mean": images.mean(0)}),))
'''


def files_of(**protocols: str) -> dict[str, str]:
    """The files of protocols, name -> code: path -> text."""
    code = {f"pipeline/runs/protocols/{name}.py": text for name, text in protocols.items()}
    return code | {f"conf/protocol/{name}.yaml": f"name: {name}\n" for name in protocols}
