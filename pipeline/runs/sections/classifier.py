"""The linear classifier that a network ends with, as a result: its weight, and the features that enter it."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor

from pipeline.runs.networks import Measured
from pipeline.runs.outcome import Section
from pipeline.runs.solutions import Features

if TYPE_CHECKING:
    from pipeline.runs.run import Run


@dataclass(frozen=True)
class ClassifierSection(Section):
    """A network's features and what is on top of them."""

    measured: Measured
    features: Features
    name: ClassVar[str] = "classifier"

    def summary(self, run: "Run") -> dict[str, Any]:
        weight, given = self.measured.weight, run.inputs.weights
        known = None if weight is None else {"shape": tuple(weight.shape), "bias": self.measured.bias is not None}
        states = None if given is None else {"unit": given.unit, "steps": list(given.steps), "files": list(given.files)}
        return {"classifier": known, "states": states}

    def tensors(self) -> dict[str, Tensor]:
        """``labels`` (N,), ``features/1`` (N, d), and of a classifier ``weights/1`` (K, d) and ``bias/1`` (K,)."""
        found = {"weights/1": self.measured.weight, "bias/1": self.measured.bias}
        of_rows = {"labels": self.features.train_labels, "features/1": self.features.train}
        return of_rows | {name: tensor for name, tensor in found.items() if tensor is not None}
