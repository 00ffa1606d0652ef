"""Files of a run as wandb artifacts, with their lineage: a run that takes over a backbone uses that of another."""

import logging
from pathlib import Path
from threading import Thread

import wandb

from pipeline.storage.reading import Unreadable, json_of
from pipeline.storage.summary import RunSummary

log = logging.getLogger(__name__)

BACKBONE = "checkpoints/backbone.safetensors"
IDENTITY = "wandb/run.json"


def send_files(run: wandb.Run, folder: Path, summary: RunSummary, from_run: str | None, seconds: float) -> None:
    """Log what the run has kept, and note the backbone of another run that it began with as used.

    Args:
        from_run: that run's folder. seconds: at most, to wait until the server has taken note.

    wandb joins the two by name and content: the run that trained the backbone logs ``backbone-ID`` with its own id, and
    the run that takes it over uses an artifact of that name with the same file.
    """
    taken = _taken_over(from_run)
    if taken is not None:
        use = Thread(target=_use, args=(run, *taken), daemon=True, name="use_artifact")
        use.start()
        use.join(seconds)
    if (folder / BACKBONE).exists() and (taken is None or summary.uses.head == "joint"):
        _log(run, f"backbone-{run.id}", "model", "the trained backbone", folder / BACKBONE)
    if tensors := summary.written.get("tensors"):
        _log(run, f"tensors-{run.id}", "tensors", "final features and weights", folder / tensors)


def _log(run: wandb.Run, name: str, kind: str, description: str, file: Path) -> None:
    run.log_artifact(_artifact(name, kind, description, file))


def _artifact(name: str, kind: str, description: str, file: Path) -> wandb.Artifact:
    artifact = wandb.Artifact(name, type=kind, description=description)
    artifact.add_file(str(file))
    return artifact


def _use(run: wandb.Run, name: str, file: Path) -> None:
    try:
        run.use_artifact(_artifact(name, "model", "the trained backbone", file))
    except Exception as error:  # offline, wandb takes none; else it raises its own
        log.debug("wandb: %s is not noted as used (%s)", name, error)


def _taken_over(from_run: str | None) -> tuple[str, Path] | None:
    """The artifact's name, and the file, of the backbone of another run."""
    source = Path(from_run).expanduser() if from_run else None
    if source is None or not (source / BACKBONE).exists():
        return None
    try:
        owner = json_of(source / IDENTITY, {"id": str})["id"]
    except (OSError, Unreadable):
        owner = source.name
    return f"backbone-{owner}", source / BACKBONE
