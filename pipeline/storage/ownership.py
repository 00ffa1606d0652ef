"""Which files of a folder are a run's: a run touches these and no others, because people keep things beside them."""

import mmap
from collections.abc import Iterator
from pathlib import Path

from pipeline.runtime import tensor_files
from pipeline.storage.classes import FILE as CLASSES
from pipeline.storage.reading import Unreadable
from pipeline.storage.settings_files import CONFIG, HYDRA, OVERRIDES, kept_config
from pipeline.storage.stages import CHECKPOINT, STAGES, previous_checkpoint
from pipeline.storage.summary import FILE, STATUSES, USUAL_STAGES, read
from pipeline.storage.tensors import FILE as TENSORS

FOLDERS = ("", ".hydra", "checkpoints", "figures", STAGES, "wandb")
"""Those within which a run writes."""
SETTINGS = (CONFIG, HYDRA, OVERRIDES)
RESULTS = (FILE, "record.csv", CLASSES, TENSORS, "figures/collapse.png", "figures/collapse.pdf")
RESULTS += (CHECKPOINT, "checkpoints/backbone.safetensors", "wandb/run.json", "csv/metrics.csv", "mlflow/run.json")
_CALLBACK = b"TrainingCheckpoints"
"""Stands in every checkpoint of a training, as the name under which it finds its own state again."""
_STAGES = {f"{stage.name}{part}" for stage in USUAL_STAGES for part in ("", ".half", ".half.previous")} | {"features"}


def is_runs(folder: Path, *, by_settings: bool = True) -> bool:
    """Whether a run of ours was begun in the folder: its summary says so.

    Args:
        by_settings: the configuration that is kept says so too. Not if Hydra has just written one.
    """
    return read(folder).status in STATUSES or (by_settings and has_settings(folder))


def has_settings(folder: Path) -> bool:
    """Whether the configuration that Hydra keeps in the folder is one of ours."""
    try:
        return {"protocol", "head", "descent"} <= (kept_config(folder) or {}).keys()
    except Unreadable:
        return False


def in_the_way(folder: Path, *, by_settings: bool = True) -> Path | None:
    """Something of other people's that a run in this folder would replace; None if there is nothing."""
    if is_runs(folder, by_settings=by_settings):
        return None
    names = (*RESULTS, previous_checkpoint(Path(CHECKPOINT)), *(SETTINGS if by_settings else ()))
    taken = [folder / name for name in names if (folder / name).is_symlink() or (folder / name).exists()]
    return next(iter([*taken, *sorted((folder / STAGES).glob("*.safetensors"))]), None)


def remove_intermediate(folder: Path) -> None:
    """Remove what only served a run to go on with: results of stages, and the checkpoint before the last one."""
    for path in [*_of_stages(folder / STAGES), *_previous(folder)]:
        path.unlink(missing_ok=True)
    _remove_if_empty(folder / STAGES)


def remove_run(folder: Path) -> None:
    """Remove all that a run has left but its log and its lock."""
    remove_intermediate(folder)
    for name in (*RESULTS, *SETTINGS):
        if not (folder / name).is_dir():
            (folder / name).unlink(missing_ok=True)


def remove_settings(folder: Path) -> None:
    """Remove what Hydra has written for a run that never began."""
    for name in (*SETTINGS, Path("dnc.log")):
        if not (folder / name).is_dir():
            (folder / name).unlink(missing_ok=True)
    _remove_if_empty(folder / ".hydra")
    _remove_if_empty(folder)


def _of_stages(folder: Path) -> Iterator[Path]:
    """Files of finished stages and their checkpoints: they say so or, if they are damaged, bear such a name."""
    for path in folder.glob("*.safetensors") if folder.is_dir() and not folder.is_symlink() else ():
        kept = tensor_files.is_kept(path)
        if path.is_file() and (kept or (kept is None and path.stem in _STAGES)):
            yield path


def _previous(folder: Path) -> Iterator[Path]:
    path = previous_checkpoint(folder / CHECKPOINT)
    if path.is_file() and path.stat().st_size:
        with open(path, "rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
            found = content.find(_CALLBACK) >= 0
        if found:
            yield path


def _remove_if_empty(folder: Path) -> None:
    if folder.is_dir() and not folder.is_symlink() and not any(folder.iterdir()):
        folder.rmdir()
