"""What the stages of one run share."""

import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from pipeline.config import Config
from pipeline.data import ImageData
from pipeline.measure.feature_cache import FeatureCache
from pipeline.metrics import registry
from pipeline.runs.inputs import Inputs, trains_backbone
from pipeline.runs.protocols import Protocol, protocol_named
from pipeline.runs.training.acceleration import decide
from pipeline.runtime.environment import Stopwatch
from pipeline.storage.classes import ClassTable
from pipeline.storage.record import Record
from pipeline.storage.stages import StageCache, fingerprint

TRAINING = ("seed", "data", "backbone", "optimizer", "protocol", "stop_when_collapsed", "verdict", "measure")
"""The sections of the configuration that the training of a backbone depends on."""
HEAD = ("head", "descent", "measure", "features")
"""Those that a head depends on beside its features, and so does a backbone that is trained under it."""


@dataclass(frozen=True)
class Run:
    """What the stages of one run share.

    planned_steps: how many steps each stage takes unless it stops early; stages note it as they begin.
    """

    config: Config
    inputs: Inputs
    folder: Path
    record: Record
    stopwatch: Stopwatch = field(default_factory=Stopwatch)
    planned_steps: dict[str, int] = field(default_factory=dict)

    @classmethod
    def start(cls, config: Config, inputs: Inputs, folder: Path) -> "Run":
        """A run with an empty record."""
        stages = protocol_named(config.protocol.name).stages
        numbered = frozenset(name for name, stage in stages.items() if stage.layers == "numbered")
        names = () if inputs.images is None else inputs.images.classes
        return cls(config, inputs, folder, Record(folder, numbered=numbered, classes=ClassTable(names=names)))

    @cached_property
    def protocol(self) -> Protocol:
        """What is run."""
        return protocol_named(self.config.protocol.name)

    @cached_property
    def resident(self) -> ImageData:
        """The images on the run's device, where they are trained on and measured: brought there once."""
        images = self.inputs.images
        return images if self.config.device.type == "cpu" else images.to(self.config.device)

    @property
    def trains_backbone(self) -> bool:
        """Whether the backbone's weights change: given ones are measured as they are, unless a head is trained too."""
        return trains_backbone(self.config, self.inputs)

    @property
    def head_seeds(self) -> list[int]:
        """Seeds of the members of a descent."""
        return [self.config.seed + index for index in range(self.config.descent.seeds)]

    @property
    def stage_cache(self) -> StageCache:
        """Where the results of stages are kept."""
        return StageCache(self.folder, self.record)

    @cached_property
    def feature_cache(self) -> FeatureCache:
        """Where features of frozen backbones are looked for."""
        return FeatureCache(self.config.features.cache, self.config.pooling, self.config.measure.settings)

    @property
    def feature_sections(self) -> tuple[str, ...]:
        """The sections of the configuration that the features of a head depend on."""
        if self.inputs.backbone is not None:
            return TRAINING
        return ("seed", "protocol", "verdict", *(("data",) if self.inputs.images is not None else ()))

    def key(self, *sections: str) -> str:
        """Fingerprint of what a stage depends on: sections of the configuration, weights that were given, and, if the
        backbone is one of the sections, how it is trained."""
        given = self.inputs.weights
        # With the metrics of the families, so that stages are measured anew when these change.
        metrics = registry.signature(self.config.measure.families)
        more = [str(self.config.descent.records_per_decade), given.digest if given else "", metrics]
        return fingerprint(self.config, sections, *more, self._training if "backbone" in sections else "")

    @cached_property
    def _training(self) -> str:
        if self.inputs.backbone is None:
            return ""
        callbacks = self.config.trainer.callbacks  # what they do to a training is theirs to know
        way = decide(self.config, self.inputs.backbone, self.inputs.images).key
        return f"{way}, callbacks={json.dumps(callbacks, sort_keys=True)}" if callbacks else way
