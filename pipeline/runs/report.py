"""The end of a run: ``summary.json`` as a value, and what the terminal says."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from pipeline.data import ImageData
from pipeline.metrics.registry import metrics
from pipeline.runs.outcome import Headline, Outcome
from pipeline.runs.run import Run
from pipeline.runtime.command_line import installed_command, own_command
from pipeline.runtime.environment import environment
from pipeline.storage.classes import FILE as CLASSES
from pipeline.storage.record import COMPLETED, SCHEMA_VERSION, finite_or_none
from pipeline.storage.stages import CHECKPOINT
from pipeline.storage.tensors import FILE as TENSORS

TRAINED, BATCHES = ("backbone", 0), "batches_per_step"
"""Where a training notes what a step of Lightning's is."""
MOST_CLASSES = 20
"""Of which the size of each is told."""


def initial_summary(run: Run) -> dict[str, Any]:
    """The summary a run starts with; whoever finds it later knows that the run did not end well."""
    return {
        "schema_version": SCHEMA_VERSION,
        "protocol": run.protocol.name,
        "status": "running",
        "uses": run.protocol.uses,
        "environment": environment(run.config.device.type),
    }


def ended_summary(run: Run, status: str, error: BaseException) -> dict[str, Any]:
    """The summary of a run that did not complete, and why."""
    ended = {"status": status, "error": f"{type(error).__name__}: {error}"}
    return initial_summary(run) | ended | _recorded(run)


def final_summary(run: Run, outcome: Outcome, tensors_reason: str | None) -> dict[str, Any]:
    """The complete summary of a finished run.

    Args:
        tensors_reason: why there is no tensors.safetensors; None if there is.

    Raises:
        ValueError: a section uses a key that belongs to every run.
    """
    of_every_run = initial_summary(run) | {
        "status": COMPLETED,
        "title": "",
        "headline": [],
        "sections": outcome.names,
        "tensors": TENSORS if tensors_reason is None else None,
        "tensors_reason": tensors_reason,
        **_recorded(run),
        **_ended(run),
        "parameters": _parameters(run, outcome),
        "data": _data(run),
        "backbone_weights": _given_weights(run),
        "timings": run.stopwatch.seconds,  # itself, because the figures still take time
    }
    parts: dict[str, Any] = {}
    for section in outcome.sections:
        part = section.summary(run)
        if reserved := of_every_run.keys() & part.keys():
            raise ValueError(f"section {section.name}: the key {min(reserved)} belongs to every run")
        parts |= _plain(part)
    summary = of_every_run | parts
    titles = [title for section in outcome.sections if (title := section.title(summary))]
    summary["title"] = titles[-1] if titles else f"protocol {run.protocol.name} is done"
    summary["headline"] = _headline(outcome, summary)
    return summary


def _headline(outcome: Outcome, summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Entries of all sections, the last section's first: it is what the run was for."""
    entries: dict[str, Headline] = {}
    for section in reversed(outcome.sections):
        entries |= {entry.name: entry for entry in section.headline(summary) if entry.name not in entries}
    return [_plain(entry._asdict()) for entry in entries.values()]


def _recorded(run: Run) -> dict[str, Any]:
    """What a reader has to know of the record: stages, what their steps count, and the registered metrics."""
    recorded = {row.metric for row in run.record.rows}
    stages = run.protocol.described_stages({row.stage for row in run.record.rows})
    return {
        "step_units": {name: stage["unit"] for name, stage in stages.items()},
        "stages": stages,
        "metrics": {
            name: {key: value for key, value in asdict(metric).items() if key in ("title", "target", "scale", "panel")}
            for name, metric in metrics().items()
            if name in recorded
        },
    }


def _stopped_early(run: Run) -> dict[str, int]:
    """Stages that ended before their last step because everything had collapsed, and where."""
    last: dict[str, int] = {}
    for row in run.record.rows:
        last[row.stage] = max(row.step, last.get(row.stage, 0))
    return {stage: step for stage, step in last.items() if step < run.planned_steps.get(stage, 0)}


def _ended(run: Run) -> dict[str, Any]:
    """Which stages ended early, which of them a callback has ended, and what a step of Lightning's was."""
    early = _stopped_early(run)
    found: dict[str, Any] = {"stopped_early": early}
    if early and run.config.trainer.callbacks:
        from pipeline.runs.training.checkpoints import COLLAPSED, ended_by  # loads Lightning, which has been loaded

        why = ended_by(run.folder / CHECKPOINT)
        units = {name: stage.unit for name, stage in run.protocol.stages.items()}
        trained = [stage for stage in early if units.get(stage) == "epoch"]
        if why not in (None, COLLAPSED):
            found["stopped_by"] = dict.fromkeys(trained, why)
    step = run.record.asides.get(TRAINED, {}).get(BATCHES)
    return found if step is None else found | {"training": {BATCHES: int(step)}}


def _parameters(run: Run, outcome: Outcome) -> dict[str, int]:
    """How many numbers the backbone has, and the head or classifier on it (one seed's)."""
    kept, found = outcome.tensors(), {}
    if run.inputs.backbone is not None:
        found["backbone"] = sum(parameter.numel() for parameter in run.inputs.backbone.parameters())
    sizes = [tensor.shape[-2:].numel() for name, tensor in kept.items() if name.startswith("weights/")]
    sizes += [tensor.shape[-1] for name, tensor in kept.items() if name in ("bias", "bias/1")]
    return found | ({"head": sum(sizes)} if sizes else {})


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
        **_options(images),
    }


def _options(images: ImageData) -> dict[str, Any]:
    """What was done to the data, where something was: samples of each group, labels given otherwise, foreign rows."""
    found: dict[str, Any] = {}
    if images.groups:
        for split in ("train", "test"):
            counts = torch.bincount(getattr(images, split).groups.cpu(), minlength=len(images.groups)).tolist()
            found[f"{split}_groups"] = dict(zip(images.groups, counts, strict=True))
    if images.train.given is not None:
        found["given_otherwise"] = int((images.train.given != images.train.labels).sum())
    if images.foreign is not None:
        found["foreign"] = len(images.foreign)
    if images.sha256 is not None:
        found["sha256"] = images.sha256
    return found


def _given_weights(run: Run) -> dict[str, str] | None:
    given = run.inputs.weights
    return None if given is None else {"path": str(given.path), "sha256": given.digest}


def _plain(value: Any) -> Any:
    """The same as JSON can hold it: tensors as lists, numbers that are not finite as None."""
    if isinstance(value, Tensor):
        return _plain(value.tolist())
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return finite_or_none(value)
    return str(value) if isinstance(value, Path) else value


def print_results(outcome: Outcome, summary: Mapping[str, Any], console: Console) -> None:
    """The sections' tables, then sentences, of the run and of the sections."""
    for section in outcome.sections:
        section.show(summary, console)
    if summary["data"] and (summary["data"]["imbalance"] or 1) > 1:
        sizes = summary["data"]["train"]
        counts = ", ".join(f"{name} {count}" for name, count in sizes.items())
        if len(sizes) > MOST_CLASSES:
            counts = f"{len(sizes)} classes of {min(sizes.values())} to {max(sizes.values())}"
        console.print(f"The classes differ in size (ratio {summary['data']['imbalance']:.3g}): {counts}.", style="dim")
    for stage, step in summary["stopped_early"].items():
        why = (summary.get("stopped_by") or {}).get(stage)
        told = f"Stopped by {why}" if why else "Stopped when collapsed"
        console.print(f"{told}: {stage} after {summary['step_units'][stage]} {step}.", highlight=False)
    for section in outcome.sections:
        for line in section.lines(summary):
            console.print(line)
    for split, values in (summary.get("accuracy") or {}).items():
        known = [value for value in values or [] if value is not None]
        if known:
            ends = dict.fromkeys(f"{100 * share:.2f} %" for share in (min(known), max(known)))
            console.print(f"Accuracy ({split}): {' to '.join(ends)}.")


def files_left(folder: Path) -> Iterator[str]:
    """What a run has left in its folder, one line each, and the commands that make something of it."""
    names = {
        "record": "record.csv",
        "classes": CLASSES,
        "summary": "summary.json",
        "tensors": TENSORS,
        "figures": "figures/collapse.png",
        "checkpoints": "checkpoints",
        "log": "dnc.log",
        "wandb": "wandb",
        "csv": "csv/metrics.csv",
        "tensorboard": "tensorboard",
        "mlflow": "mlflow",
    }
    for name, path in names.items():
        if (folder / path).exists():
            yield f"{name:<12}{folder / path}"
    runs = folder / "wandb"
    if any(runs.glob("offline-run-*")):
        yield f"{'  upload':<12}{installed_command('wandb')} sync {shlex.quote(str(runs))}/offline-run-*"
    yield f"{'report':<12}{own_command()} report {shlex.quote(str(folder))}"
