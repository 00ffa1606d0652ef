"""What the stages of one run share, and what a protocol returns."""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from pipeline.config import Config
from pipeline.measure.feature_cache import FeatureCache
from pipeline.runs.inputs import Inputs
from pipeline.runs.solutions import Features, HeadSolution, accuracy
from pipeline.runs.training.acceleration import decide
from pipeline.runtime.environment import Stopwatch
from pipeline.storage.record import Record
from pipeline.storage.stages import Keeper, fingerprint

TRAINING = ("seed", "data", "backbone", "optimizer", "protocol", "stop_when_collapsed", "verdict")
"""The sections of the configuration that the training of a backbone depends on."""
HEAD = ("head", "descent")
"""Those that a head depends on beside its features, and so does a backbone that is trained under it."""


@dataclass(frozen=True)
class Run:
    """What the stages of one run share."""

    config: Config
    inputs: Inputs
    folder: Path
    record: Record
    stopwatch: Stopwatch = field(default_factory=Stopwatch)

    @property
    def head_seeds(self) -> list[int]:
        """Seeds of the members of a descent."""
        return [self.config.seed + index for index in range(self.config.descent.seeds)]

    @property
    def keeper(self) -> Keeper:
        """Where the results of stages are kept."""
        return Keeper(self.folder, self.record)

    @cached_property
    def feature_cache(self) -> FeatureCache:
        """Where features of frozen backbones are looked for."""
        return FeatureCache(self.config.features.cache, self.config.backbone.pooling)

    def key(self, *sections: str) -> str:
        """Fingerprint of what a stage depends on: sections of the configuration, weights that were given, and, where
        one of them is the backbone, how it is trained."""
        given = self.inputs.weights
        more = [str(self.config.descent.records_per_decade), given.digest if given else ""]
        return fingerprint(self.config, sections, *more, self._training if "backbone" in sections else "")

    @cached_property
    def _training(self) -> str:
        return decide(self.config, self.inputs.backbone, self.inputs.images).key


@dataclass(frozen=True)
class Outcome:
    """What a protocol returns; accuracies are shares per seed, ``more`` is what only this protocol has to say."""

    head: HeadSolution
    train_accuracy: list[float | None]
    test_accuracy: list[float | None] | None
    classes: tuple[str, ...] | None
    more: dict[str, object] = field(default_factory=dict)

    @classmethod
    def on_images(cls, run: Run, head: HeadSolution, features: Features, **more: object) -> "Outcome":
        """Of a head on the features of the run's images; free inputs of the head stand in for the training features."""
        config = run.config
        return cls(
            head,
            train_accuracy=accuracy(config, head, head.features, features.train_labels),
            test_accuracy=accuracy(config, head, features.test, features.test_labels),
            classes=run.inputs.images.classes,
            more=more,
        )
