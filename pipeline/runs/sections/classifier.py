"""The linear classifier that a network ends with, as a result: its weight, and the features that enter it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor

from pipeline.metrics import ClassStatistics
from pipeline.runs.network_references import reference_of
from pipeline.runs.networks import Measured
from pipeline.runs.outcome import Headline, Section
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
        found = {"classifier": known, "states": states}
        found |= (_loss(run) if given is None and known else {}) | self._certificate(run)
        return found | {"references": list(_references(found))}

    def _certificate(self, run: "Run") -> dict[str, Any]:
        """The bound of the scatter of what enters the last weight, where the family `tail` was measured; of linear
        tails alone, because nothing may stand between the last two weights."""
        if not run.config.backbone.linear_tail:
            return {}
        places = run.record.final_layers(self.measured.stage, [run.config.seed])
        bounds = [place["within_bound"][0] for place in places if (place.get("within_bound") or [None])[0] is not None]
        if not bounds:
            return {}
        rows, labels = self.features.train, self.features.train_labels
        scatter = float(ClassStatistics.from_features(rows, labels, run.inputs.images.num_classes).within_trace)
        certificate = {"within_bound": bounds[-1], "within": scatter, "holds": scatter <= bounds[-1]}
        return {"certificate": certificate}

    def headline(self, summary: Mapping[str, Any]) -> list[Headline]:
        gaps = (summary.get("loss") or {}).get("relative_gap")
        return [Headline("gap_to_optimum", "gap", gaps[0])] if gaps else []

    def lines(self, summary: Mapping[str, Any]) -> Iterator[str]:
        loss = summary.get("loss")
        if loss and loss["optimum"] is not None:
            yield (
                f"Loss {loss['total'][0]:.6g}, {loss['relative_gap'][0]:.2e} above the optimum {loss['optimum']:.6g} "
                f"of the problem of its last layer ({loss['optimum_kind']})."
            )
        if certificate := summary.get("certificate"):
            yield (
                f"Certificate of the linear tail: within-class scatter {certificate['within']:.4g} of what enters the "
                f"last weight, at most {certificate['within_bound']:.4g} by its error and its balance."
            )

    def tensors(self) -> dict[str, Tensor]:
        """``labels`` (N,), ``features/1`` (N, d), and of a classifier ``weights/1`` (K, d) and ``bias/1`` (K,)."""
        found = {"weights/1": self.measured.weight, "bias/1": self.measured.bias}
        of_rows = {"labels": self.features.train_labels, "features/1": self.features.train}
        return of_rows | {name: tensor for name, tensor in found.items() if tensor is not None}


def _loss(run: "Run") -> dict[str, Any]:
    """The objective against what theory knows of it, in the words that heads have for it."""
    config, record = run.config, run.record
    known, reason = reference_of(config, run.inputs.backbone, run.inputs.images)
    total = record.last("backbone", "loss") or record.last("backbone", "objective")
    return {
        "loss": {
            "total": total or record.last("backbone", "train_loss"),
            "fit": record.last("backbone", "train_loss"),
            "optimum": known and known.value,
            "optimum_kind": known and known.name,
            "optimum_reason": reason,
            "relative_gap": record.last("backbone", "relative_gap"),
            "sits_at": None,
        }
    }


def _references(found: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """What is known of the network, in the words that heads have for it: nothing comes below, or above."""
    loss, certificate = found.get("loss") or {}, found.get("certificate")
    if loss.get("optimum") is not None:
        yield {"name": loss["optimum_kind"], "value": loss["optimum"], "kind": "bound"}
    if certificate:
        name = "most within-class scatter of what enters the last weight"
        yield {"name": name, "value": certificate["within_bound"], "kind": "bound"}
