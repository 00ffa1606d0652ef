"""The end of a run: ``summary.json`` as a value, and the verdict as a table on the terminal."""

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from pipeline.dufm.verdict import judge
from pipeline.runs.closed_form import ClosedForm
from pipeline.runs.run import Outcome, Run
from pipeline.runs.solutions import HeadSolution, known_references, problem_of
from pipeline.runtime.environment import environment
from pipeline.storage.record import COMPLETED, SCHEMA_VERSION, finite_or_none


def opening(run: Run) -> dict[str, Any]:
    """The summary a run starts with; whoever finds it later knows that the run did not end well."""
    return {
        "schema_version": SCHEMA_VERSION,
        "protocol": run.config.protocol.name,
        "status": "running",
        "environment": environment(run.config.device.type),
    }


def closing(run: Run, outcome: Outcome, tensors_skipped: str | None) -> dict[str, Any]:
    """The complete ``summary.json`` of a finished run."""
    config, head, seeds = run.config, outcome.head, list(outcome.head.seeds)
    known, reason = known_references(head)
    total = head.objective.total.tolist()
    closed = ClosedForm(known, total) if known else None
    layers = run.record.final_layers("head", seeds)
    backbone_layers = run.record.final_layers("backbone", [config.seed])
    verdict = judge(head.loss, layers, backbone_layers, config.thresholds_of(head.loss), _not_covered(run, head))
    closed_summary = {
        "status": COMPLETED,
        "problem": _problem(run, head, outcome.classes),
        "seeds": seeds,
        "loss": {
            "total": [finite_or_none(value) for value in total],
            "fit": [finite_or_none(value) for value in head.objective.fit.tolist()],
            "optimum": closed and closed.optimum.value,
            "optimum_kind": closed and closed.kind,
            "optimum_reason": reason,
            "relative_gap": closed and closed.gaps,
            "sits_at": closed and closed.sits_at,
        },
        "diverged": {str(seeds[member]): step for member, step in head.diverged.items()},
        "layers": layers,
        "backbone_layers": backbone_layers,
        "accuracy": {"train": outcome.train_accuracy, "test": outcome.test_accuracy},
        "verdict": verdict | {"optimum": closed.sentence() if closed else f"no closed-form value: {reason}"},
        "tensors": "tensors.safetensors" if tensors_skipped is None else None,
        "tensors_reason": tensors_skipped,
        "step_units": _step_units(run),
        "stopped_early": _stopped_early(run),
        "data": _data(run),
        "backbone_weights": _given_weights(run),
        "timings": run.stopwatch.seconds,
    }
    return opening(run) | closed_summary | outcome.more


def _problem(run: Run, head: HeadSolution, classes: tuple[str, ...] | None) -> dict[str, Any]:
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


def _step_units(run: Run) -> dict[str, str]:
    """What the steps of every stage in the record count."""
    joint = run.config.trains_head_with_backbone
    units = {"backbone": "epoch", "head": "epoch" if joint else "gradient step", "dufm": "gradient step"}
    stages = {row.stage for row in run.record.rows}
    return {stage: unit for stage, unit in units.items() if stage in stages}


def _stopped_early(run: Run) -> dict[str, int]:
    """Stages that ended before their last step because everything had collapsed, and where."""
    last: dict[str, int] = {}
    for row in run.record.rows:
        last[row.stage] = max(row.step, last.get(row.stage, 0))
    config = run.config
    planned = {"backbone": config.backbone.epochs, "head": config.descent.steps}
    if config.trains_head_with_backbone:
        planned["head"] = config.backbone.epochs
    if run.inputs.weights is not None and not config.trains_head_with_backbone:
        planned["backbone"] = 0  # the backbone was given and not trained
    return {stage: step for stage, step in last.items() if step < planned.get(stage, 0)}


def _data(run: Run) -> dict[str, Any] | None:
    """Images per class and split, and how unequal the classes are (largest over smallest)."""
    images = run.inputs.images
    if images is None:
        return None
    return {
        "name": images.name,
        "image_shape": list(images.image_shape),
        "train": images.class_counts("train"),
        "test": images.class_counts("test"),
        "imbalance": images.imbalance,
    }


def _given_weights(run: Run) -> dict[str, str] | None:
    given = run.inputs.weights
    return None if given is None else {"path": str(given.path), "sha256": given.digest}


def _not_covered(run: Run, head: HeadSolution) -> str | None:
    """Why the theorem does not cover this run; None when it does."""
    _, reason = problem_of(head)
    if reason is not None:
        return reason
    if head.inputs == "network":
        return "the features are a network's, not free variables"
    return head.loss.not_covered(head.num_classes, run.config.head.depth, run.config.head.activation)


def print_verdict(summary: Mapping[str, Any], console: Console) -> None:
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
    console.print(
        "Median over seeds, and whether all seeds meet the threshold; * promised at the DUFM's optimum.", style="dim"
    )
    if verdict["theorem_reason"]:
        console.print(f"The theorem itself does not cover this run: {verdict['theorem_reason']}.", style="dim")
    if summary["data"] and (summary["data"]["imbalance"] or 1) > 1:
        counts = ", ".join(f"{name} {count}" for name, count in summary["data"]["train"].items())
        console.print(f"The classes differ in size (ratio {summary['data']['imbalance']:.3g}): {counts}.", style="dim")
    for stage, step in summary["stopped_early"].items():
        console.print(f"Stopped when collapsed: {stage} after {summary['step_units'][stage]} {step}.")
    if "fixed_head" in summary:
        print_fixed_head(summary["fixed_head"], console)
    losses = [value for value in summary["loss"]["total"] if value is not None]
    console.print(
        f"Loss of the head: {min(losses):.6g} to {max(losses):.6g} over {seeds} seed(s); {verdict['optimum']}."
    )
    for split, values in summary["accuracy"].items():
        known = [value for value in values or [] if value is not None]
        if known:
            console.print(f"Accuracy ({split}): {100 * min(known):.2f} % to {100 * max(known):.2f} %.")


def left_behind(folder: Path) -> Iterator[str]:
    """What a run has left in its folder, one line each, and the commands that make something of it."""
    names = {
        "record": "record.csv",
        "summary": "summary.json",
        "tensors": "tensors.safetensors",
        "figures": "figures/collapse.png",
        "checkpoints": "checkpoints",
        "log": "dnc.log",
        "wandb": "wandb",
    }
    for name, path in names.items():
        if (folder / path).exists():
            yield f"{name:<12}{folder / path}"
    runs = folder / "wandb"
    if any(runs.glob("offline-run-*")):
        yield f"{'  upload':<12}wandb sync {shlex.quote(str(runs))}/offline-run-*"
    yield f"{'report':<12}dnc report {shlex.quote(str(folder))}"


def print_fixed_head(found: Mapping[str, Any], console: Console) -> None:
    """How close the network came to the DUFM whose weights are its head."""
    cosine, cosine_rotated = (
        "undefined (the features are zero)" if found[name] is None else f"{found[name]:.4f}"
        for name in ("alignment", "alignment_rotated")
    )
    unseen = ""
    if found["unseen_share"] is not None:
        unseen = (
            f" ({found['relative_gap_without_unseen']:.2e} without the {100 * found['unseen_share']:.1f} % of their "
            "squared norm that the head cannot see)"
        )
    console.print(
        f"DUFM of the head ({found['solution']}): {found['dufm_sits_at']}, {found['dufm_relative_gap']:.2e} above its "
        f"optimum {found['dufm_optimum']:.6g}; with the network's features {found['relative_gap']:.2e} above it"
        f"{unseen}.\n"
        f"Features against the DUFM's: cosine {cosine}, after the best rotation {cosine_rotated}; "
        f"relative distance {found['feature_distance']:.3f} and {found['feature_distance_rotated']:.3f}."
    )


def _cell(judged: Mapping[str, Any] | None, seeds: int) -> str:
    if judged is None:
        return ""
    value = "undefined" if judged["value"] is None else f"{judged['value']:.3g}"
    word = "yes" if judged["collapsed"] else "no"
    if not judged["collapsed"] and judged["seeds_collapsed"]:
        word = f"{judged['seeds_collapsed']}/{seeds}"
    return f"{value} {word}{'*' if judged['theorem'] else ' '}"
