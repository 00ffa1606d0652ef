"""A DUFM head as a result: its problem, its losses against theory, its layers, and the verdict on them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from pipeline.dufm.objectives import load_objective
from pipeline.dufm.verdict import judge, notes
from pipeline.runs.closed_form import ClosedForm
from pipeline.runs.outcome import Headline, Section
from pipeline.runs.sections.network import accuracy_entries, median
from pipeline.runs.solutions import Features, HeadSolution, accuracy, known_references, problem_of

if TYPE_CHECKING:
    from pipeline.runs.run import Run


@dataclass(frozen=True)
class HeadSection(Section):
    """A head that the run ends with.

    Args:
        head: its final state.
        train_accuracy, test_accuracy: shares per seed; None where there is no such split.
        classes: their names, if they have any.
        relative_gap: distance of the loss to an optimum that the head's own problem does not know, for the headline.
    """

    head: HeadSolution
    train_accuracy: list[float | None] | None = None
    test_accuracy: list[float | None] | None = None
    classes: tuple[str, ...] | None = None
    relative_gap: float | None = None
    name: ClassVar[str] = "head"

    @classmethod
    def on_images(
        cls, run: "Run", head: HeadSolution, features: Features, relative_gap: float | None = None
    ) -> "HeadSection":
        """Of a head on the features of the run's images; free inputs of the head stand in for the training features."""
        return cls(
            head,
            train_accuracy=accuracy(run.config, head, head.features, features.train_labels),
            test_accuracy=accuracy(run.config, head, features.test, features.test_labels),
            classes=run.inputs.images.classes,
            relative_gap=relative_gap,
        )

    @classmethod
    def on_features(cls, run: "Run", head: HeadSolution) -> "HeadSection":
        """Of a head on features that are no images': those it was solved on are all there are."""
        return cls(head, train_accuracy=accuracy(run.config, head, head.features, head.labels))

    def summary(self, run: "Run") -> dict[str, Any]:
        config, head, seeds = run.config, self.head, list(self.head.seeds)
        known, reason = known_references(head)
        total = head.objective.total.tolist()
        closed = ClosedForm(known, total) if known else None
        layers = run.record.final_layers("head", seeds)
        backbone_layers = run.record.final_layers("backbone", [config.seed])
        unpromised = head.loss.not_covered(head.num_classes, config.head.depth, config.head.activation)
        thresholds = config.thresholds_of(head.loss)
        verdict = judge(head.loss, layers, backbone_layers, thresholds, _not_covered(run, head), unpromised)
        verdict["notes"] = _notes(run, head, bool(backbone_layers))
        return {
            "problem": _problem(run, head, self.classes),
            "seeds": seeds,
            "loss": {
                "total": total,
                "fit": head.objective.fit,
                "optimum": closed and closed.optimum.value,
                "optimum_kind": closed and closed.kind,
                "optimum_reason": reason,
                "relative_gap": closed and closed.gaps,
                "sits_at": closed and closed.sits_at,
            },
            "diverged": {str(seeds[member]): step for member, step in head.diverged.items()},
            "layers": layers,
            "backbone_layers": backbone_layers,
            "accuracy": {"train": self.train_accuracy, "test": self.test_accuracy},
            "verdict": verdict | {"optimum": closed.sentence() if closed else f"no closed-form value: {reason}"},
        }

    def tensors(self) -> dict[str, Tensor]:
        """``labels`` (N,), ``features/1`` (N, d_1) or (S, N, d_1), ``weights/l`` (S, d_{l+1}, d_l)."""
        weights = {f"weights/{layer}": weight for layer, weight in enumerate(self.head.weights, start=1)}
        return {"labels": self.head.labels, "features/1": self.head.features} | weights

    def title(self, summary: Mapping[str, Any]) -> str | None:
        return summary["verdict"]["text"]

    def headline(self, summary: Mapping[str, Any]) -> list[Headline]:
        gaps = summary["loss"]["relative_gap"] or [self.relative_gap]
        last = [place for place in summary["verdict"]["layers"] if place["stage"] == "head"][-1]
        values = {name: (last[name] or {}).get("value") for name in summary["verdict"]["thresholds"]}
        return [
            Headline("gap_to_optimum", "gap", median(gaps)),
            *(Headline(name, name.upper(), value) for name, value in values.items()),
            Headline("collapse", "collapse", _where_collapsed(summary)),
            *accuracy_entries(summary["accuracy"]),
        ]

    def show(self, summary: Mapping[str, Any], console: Console) -> None:
        """The verdict as a compact table: one line per layer and tap, promised values marked."""
        verdict, seeds = summary["verdict"], len(summary["seeds"])
        table = Table(title=verdict["text"], title_style="bold", caption_justify="left")
        for column in ("stage", "layer", "tap"):
            table.add_column(column)
        for metric, threshold in verdict["thresholds"].items():
            table.add_column(f"{metric.upper()} <= {threshold:g}", justify="right")
        for place in verdict["layers"]:
            cells = [_cell(place[metric], seeds if place["stage"] == "head" else 1) for metric in verdict["thresholds"]]
            table.add_row(place["stage"], str(place["layer"]), place["tap"], *cells)
        console.print(table)
        starred = any(it["theorem"] for place in verdict["layers"] for it in place.values() if isinstance(it, Mapping))
        star = "; * promised at the DUFM's optimum" if starred else ""
        console.print(f"Median over seeds, and whether all seeds meet the threshold{star}.", style="dim")
        for note in verdict["notes"]:
            console.print(f"{note[:1].upper()}{note[1:]}.", style="dim")
        if verdict["theorem_reason"]:
            console.print(f"The theorem itself does not cover this run: {verdict['theorem_reason']}.", style="dim")

    def lines(self, summary: Mapping[str, Any]) -> Iterator[str]:
        losses = [value for value in summary["loss"]["total"] if value is not None]
        yield (
            f"Loss of the head: {min(losses):.6g} to {max(losses):.6g} over {len(summary['seeds'])} seed(s); "
            f"{summary['verdict']['optimum']}."
        )


def _problem(run: "Run", head: HeadSolution, classes: tuple[str, ...] | None) -> dict[str, Any]:
    counts = torch.bincount(head.labels, minlength=head.num_classes).tolist()
    return {
        "num_classes": head.num_classes,
        "classes": list(classes) if classes else None,
        "samples_per_class": counts[0] if len(set(counts)) == 1 else counts,
        "depth": run.config.head.depth,
        "widths": head.widths,
        "activation": run.config.head.activation,
        "loss": run.config.head.loss,
        "inputs": head.inputs,
        "weight_decay": list(head.weight_decays),
        "feature_decay": head.feature_decay,
    }


def _notes(run: "Run", head: HeadSolution, has_backbone: bool) -> list[str]:
    trained_apart = has_backbone and run.protocol.head != "joint" and run.config.backbone.epochs
    objectives = [head.loss, *([load_objective(run.config.backbone.loss)] if trained_apart else [])]
    return notes(objectives, head.num_classes, torch.bincount(head.labels, minlength=head.num_classes).tolist())


def _not_covered(run: "Run", head: HeadSolution) -> str | None:
    """Why the theorem does not cover this run; None when it does."""
    _, reason = problem_of(head)
    if reason is not None:
        return reason
    if head.inputs == "network":
        return "the features are a network's, not free variables"
    return head.loss.not_covered(head.num_classes, run.config.head.depth, run.config.head.activation)


def _where_collapsed(summary: Mapping[str, Any]) -> str:
    """The verdict in two words."""
    first, last = summary["verdict"]["collapsed_from_layer"], summary["problem"]["depth"]
    if first is None:
        return "none"
    return "every layer" if first == 1 else "last layer" if first == last else f"layers {first}..{last}"


def _cell(judged: Mapping[str, Any] | None, seeds: int) -> str:
    if judged is None:
        return ""
    value = "undefined" if judged["value"] is None else f"{judged['value']:.3g}"
    word = "yes" if judged["collapsed"] else "no"
    if not judged["collapsed"] and judged["seeds_collapsed"]:
        word = f"{judged['seeds_collapsed']}/{seeds}"
    return f"{value} {word}{'*' if judged['theorem'] else ' '}"
