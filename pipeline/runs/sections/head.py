"""A DUFM head as a result: its problem, its losses against theory, its layers, and the verdict on them."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from rich.console import Console
from rich.table import Table
from torch import Tensor

from pipeline.dufm.objectives import load_objective
from pipeline.dufm.verdict import judge, notes
from pipeline.runs.closed_form import ClosedForm, sitting
from pipeline.runs.known import Known, is_known_to_theory, known_of, problem_of
from pipeline.runs.outcome import Headline, Section
from pipeline.runs.sections.anchored_path import anchored_path
from pipeline.runs.sections.network import accuracy_entries, median
from pipeline.runs.sections.regression import regression_facts
from pipeline.runs.shapes import NO_CLASSES
from pipeline.runs.solutions import Features, HeadSolution, accuracy

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
            train_accuracy=accuracy(run.config, head, head.features, features.train_labels, head.shard),
            test_accuracy=accuracy(run.config, head, features.test, features.test_labels, features.test_shard),
            classes=run.inputs.images.classes if head.terms.has_classes else None,
            relative_gap=relative_gap,
        )

    @classmethod
    def on_features(cls, run: "Run", head: HeadSolution) -> "HeadSection":
        """Of a head on features that are no images': those it was solved on are all there are."""
        return cls(head, train_accuracy=accuracy(run.config, head, head.features, head.labels))

    def summary(self, run: "Run") -> dict[str, Any]:
        config, head, seeds = run.config, self.head, list(self.head.seeds)
        known, total = known_of(head), head.objective.total.tolist()
        closed = ClosedForm(known, total) if known.yardstick is not None else None
        reason, found = known.reason, sitting(known, total)
        layers = run.record.final_layers("head", seeds)
        backbone_layers = run.record.final_layers("backbone", [config.seed])
        thresholds = config.thresholds_of(head.loss) if head.terms.has_classes else {}
        verdict = judge(head.loss, layers, backbone_layers, thresholds, _not_covered(head), unpromised(head, known))
        if not head.terms.has_classes:
            text = "no classes, so nothing is said of their collapse"
            verdict |= {"text": text, "collapsed": None, "holds_from_layer": {}}
        verdict["notes"] = _notes(run, head, bool(backbone_layers))
        return {
            "problem": _problem(run, head, self.classes),
            "seeds": seeds,
            "loss": {
                "total": total,
                "fit": head.objective.fit,
                "weight_penalty": head.objective.weight_penalty,
                "feature_penalty": head.objective.feature_penalty,
                **({} if head.terms.anchor is None else {"anchor_penalty": head.objective.anchor_penalty}),
                **({"bias_penalty": head.objective.bias_penalty} if head.bias_decay else {}),
                "optimum": closed and closed.optimum.value,
                "optimum_kind": closed and closed.kind,
                "optimum_reason": reason,
                "relative_gap": closed and closed.gaps,
                "sits_at": closed and closed.sits_at,
            },
            **regression_facts(head),
            **_path(run, head),
            "references": [{"name": it.name, "value": it.value, "kind": it.kind} for it in known.references],
            "sits_at": [{"name": it.name, "gap": it.gap} for it in found] or None,
            **({"without_direction": head.without_direction} if "sphere" in head.terms.constraint else {}),
            **({} if head.polish is None else {"polish": asdict(head.polish)}),
            **({} if head.switched is None else {"float64_from": _switches(head)}),
            "diverged": {str(seeds[member]): step for member, step in head.diverged.items()},
            "layers": layers,
            "backbone_layers": backbone_layers,
            "accuracy": {"train": self.train_accuracy, "test": self.test_accuracy},
            "verdict": verdict | {"optimum": closed.sentence() if closed else f"no closed-form value: {reason}"},
        }

    def tensors(self) -> dict[str, Tensor]:
        """``labels`` (N,), ``features/1`` (N, d_1) or (S, N, d_1), ``weights/l`` (S, d_{l+1}, d_l); ``bias`` (S, K),
        ``targets`` (N, K) and ``anchor`` (N, d_1) or (S, N, d_1), where there are such. Samples that are shared out
        among ranks leave no ``labels`` and ``features/1``."""
        weights = {f"weights/{layer}": weight for layer, weight in enumerate(self.head.weights, start=1)}
        anchor = self.head.terms.anchor
        more = {"bias": self.head.bias, "targets": self.head.terms.targets, "anchor": anchor and anchor.features}
        rows = {} if self.head.shard else {"labels": self.head.labels, "features/1": self.head.features}
        found = rows | weights
        return found | {name: tensor for name, tensor in more.items() if tensor is not None}

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
        ends = " to ".join(dict.fromkeys(f"{end:.6g}" for end in (min(losses), max(losses))))
        seeds = len(summary["seeds"])
        yield f"Loss of the head: {ends} over {seeds} seed{'s' * (seeds > 1)}; {summary['verdict']['optimum']}."
        if (switches := summary.get("float64_from")) is not None:
            yield f"Products of the descent were in float32; in float64 {_when(list(switches.values()))}."
        if how := summary.get("polish"):
            counts = [count for count in how["iterations"] if count is not None]
            norms = [norm for norm in how["gradient_norm"] if norm is not None]
            steps = max((count for count in how.get("heavy_ball_steps", []) if count is not None), default=0)
            rolled = f" after at most {steps} steps of heavy-ball descent" if steps else ""
            yield (
                f"Polished by L-BFGS from step {how['from_step']}{rolled}, {max(counts)} iterations at most; gradient "
                f"norm at the end at most {max(norms):.2g}."
            )


def _switches(head: HeadSolution) -> dict[str, int | None]:
    """Seed -> step from which its products were in float64; None for never."""
    return {str(seed): head.switched.get(member) for member, seed in enumerate(head.seeds)}


def _when(steps: list[int | None]) -> str:
    """Of `_switches`, in words."""
    known = [step for step in steps if step is not None]
    if not known:
        return "never"
    never = f", never for {len(steps) - len(known)} of {len(steps)} seeds" if None in steps else ""
    return f"from step {' to '.join(dict.fromkeys((str(min(known)), str(max(known)))))}{never}"


def _problem(run: "Run", head: HeadSolution, classes: tuple[str, ...] | None) -> dict[str, Any]:
    counts, terms = head.class_sizes, head.terms
    if not terms.has_classes:
        counts = counts[:1]
    extra = {
        "num_outputs": head.num_outputs if terms.targets is not None or not head.weights else None,
        "targets_matrix": None if terms.targets is None else run.config.protocol.targets,
        "num_samples": None if terms.targets is None else len(head.labels),
        "has_classes": None if terms.has_classes else False,
        "bias": None if head.bias is None else run.config.head.bias,
        "bias_decay": head.bias_decay or None,
        "constraint": None if terms.constraint == "none" else terms.constraint,
        "anchor": None if terms.anchor is None else run.config.features.anchor,
        "anchor_strength": None if terms.anchor is None else terms.anchor.strength,
        "temperature": getattr(head.loss, "temperature", None),
    }
    return {
        "num_classes": head.num_classes if terms.has_classes else len(counts),
        "classes": list(classes) if classes else None,
        "samples_per_class": counts[0] if len(set(counts)) == 1 else counts,
        "depth": run.config.head.depth,
        "widths": head.widths,
        "activation": run.config.head.activation,
        "loss": run.config.head.loss,
        "inputs": head.inputs,
        "weight_decay": list(head.weight_decays),
        "feature_decay": head.feature_decay,
        **{name: value for name, value in extra.items() if value is not None},
    }


def _path(run: "Run", head: HeadSolution) -> dict[str, Any]:
    """Metrics along the path of an anchor of several steps."""
    config, steps = run.config, run.config.features.anchor_steps
    if head.terms.anchor is None or steps == 1 or not head.terms.has_classes:
        return {}
    path = anchored_path(head, steps, tuple(config.thresholds_of(head.loss)), config.measure.settings)
    return {"anchored_path": path}


def _notes(run: "Run", head: HeadSolution, has_backbone: bool) -> list[str]:
    trained_apart = has_backbone and run.protocol.head != "joint" and run.config.backbone.epochs
    objectives = [head.loss, *([load_objective(run.config.backbone.loss)] if trained_apart else [])]
    found = (
        []
        if head.terms.has_classes
        else [
            f"{'the targets are numbers of images' if head.inputs == 'network' else NO_CLASSES}: metrics of classes "
            "and accuracy are undefined; losses, weights, their ranks are measured"
        ]
    )
    if head.no_decisions and head.terms.has_classes:
        found.append(f"there is no accuracy: {head.no_decisions}")
    if not head.terms.has_classes:
        return found
    return found + notes(objectives, head.num_classes, head.class_sizes)


def unpromised(head: HeadSolution, known: Known) -> str | None:
    """Why no theorem promises collapse to the optima of such a head with free features; None if one does.

    With plain features the objective says it. What binds or shifts them is another problem, of which theory's
    references tell whether an optimum is proven; collapse is meant for classes of one size then.
    """
    terms, depth = head.terms, len(head.weights)
    named = {
        "a bias": head.bias is not None,
        "an anchor": terms.anchor is not None,
        "a matrix of targets": terms.targets is not None,
        f"{terms.constraint.replace('_', ' ')} features": terms.constraint != "none",
    }
    changes = [name for name, given in named.items() if given]
    words = " and ".join(changes) or "such a head"
    if terms.targets is not None or terms.anchor is not None:
        return f"no theorem on collapse is known for {words}"
    reason = head.loss.not_covered(head.num_classes, depth, head.activation)
    if not changes and depth:
        return reason
    sizes = [size for size in head.class_sizes if size]
    alike = len(set(sizes)) == 1 or terms.constraint == "nonnegative_sphere"
    if reason is not None or (known.has_theorem and alike):
        return reason
    return f"no theorem on collapse is known for {words}" + ("" if alike else " and classes that differ in size")


def _not_covered(head: HeadSolution) -> str | None:
    """Why the theorem does not cover this run; None when it does."""
    problem, reason = problem_of(head)
    if problem is None and reason is not None and is_known_to_theory(head.loss):
        return reason
    if not all(decay > 0 for decay in head.weight_decays):
        return "a weight decay is zero"
    if len(set(head.class_sizes)) > 1 and head.weights and head.terms.constraint == "none" and head.terms.has_classes:
        return "the classes differ in size"
    if min(head.widths) < head.num_classes and head.terms.has_classes:
        return f"a layer is narrower than the number of classes ({min(head.widths)} < {head.num_classes})"
    if head.inputs == "network":
        return "the features are a network's, not free variables"
    return unpromised(head, known_of(head))


def _where_collapsed(summary: Mapping[str, Any]) -> str:
    """The verdict in two words."""
    first, last = summary["verdict"]["collapsed_from_layer"], max(1, summary["problem"]["depth"])
    if not summary["verdict"]["thresholds"]:
        return "undefined"
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
