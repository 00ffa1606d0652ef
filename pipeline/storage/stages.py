"""What a run keeps, in its folder, so that the same command started again goes on where it ended.

A finished stage leaves one safetensors file: its tensors and, in the file's metadata, the rows it had recorded and a
fingerprint of the settings it depends on. A stage in progress leaves such files too, the latest and the one before it
(`HalfDone`). Every file is written whole or not at all, so that tensors and rows never disagree, and carries a SHA-256
of both, so that a damaged one is noticed.
"""

import hashlib
import json
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from pipeline.config import Config
from pipeline.runtime import ranks, tensor_files
from pipeline.runtime.files import atomic
from pipeline.runtime.tensor_files import Kept
from pipeline.storage.record import Record, Row

log = logging.getLogger(__name__)

STAGES = "stages"
"""Folder, within the run's, of results that nobody needs once the run is complete."""
CHECKPOINT = "checkpoints/backbone.ckpt"
"""File, within the run's folder, that a training goes on from."""
VERSION = 3
"""Changes when a stage begins to record other things, so that what an older version kept is not taken for ours."""


def fingerprint(config: Config, sections: Sequence[str], *more: str) -> str:
    """SHA-256 of the named sections of the configuration and of ``more``."""
    settings = asdict(config) | {"data": config.data.relevant}
    depends = {section: settings[section] for section in sections}
    text = json.dumps([VERSION, depends, *more], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def before(path: Path) -> Path:
    """Where the checkpoint before the one at ``path`` lies."""
    return path.with_name(f"{path.stem}.previous{path.suffix}")


def replace_keeping_one(path: Path, content: bytes) -> None:
    """Write a checkpoint atomically; the one that was there becomes the one before it, and is whole at every moment."""
    with atomic(path) as temporary:
        temporary.write_bytes(content)
        if path.exists():
            os.replace(path, before(path))


@dataclass(frozen=True)
class Keeper:
    """Keeps and finds the results of a run's stages; the first rank reads and writes for all."""

    folder: Path
    record: Record

    def stage(
        self, file: str, key: str, make: Callable[[], dict[str, Tensor]], max_mb: float | None = None
    ) -> dict[str, Tensor]:
        """The tensors of a stage: those kept under ``key``, whose rows are then recorded again, or those made now.

        Args:
            file: path within the run folder.
            key: see `fingerprint`; what was kept under another one is replaced.
            make: the stage itself.
            max_mb: size in MiB above which nothing is kept.
        """
        path = self.folder / file
        found = ranks.broadcast(_read(path, key, "this stage is repeated") if ranks.is_first() else None)
        if found is not None:
            tensors, story = found
            log.info("found %s: this stage is not repeated", path)
            _restore(self.record, story)
            return tensors
        start = len(self.record.rows)
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in make().items()}
        small = max_mb is None or sum(tensor.nbytes for tensor in tensors.values()) <= max_mb * 2**20
        if ranks.is_first() and small:
            with atomic(path) as temporary:
                temporary.write_bytes(tensor_files.serialised(tensors, _story(self.record, start, key)))
        return tensors

    def half_done(self, file: str, key: str) -> "HalfDone":
        """The checkpoints of a stage that begins now."""
        return HalfDone(self.folder / file, key, self.record)


@dataclass
class HalfDone:
    """Checkpoints of a stage in progress: the rows it has recorded so far, tensors, and plain facts about them."""

    path: Path
    key: str
    record: Record
    start: int = field(init=False)

    def __post_init__(self) -> None:
        self.start = len(self.record.rows)

    def load(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Tensors and facts of the latest whole checkpoint, whose rows are recorded again; None if there is none."""
        found = ranks.broadcast(self._latest() if ranks.is_first() else None)
        if found is None:
            return None
        tensors, story = found
        _restore(self.record, story)
        return tensors, story["facts"]

    def _latest(self) -> Kept | None:
        for path, otherwise in ((self.path, "the one before it is used"), (before(self.path), "the stage is repeated")):
            found = _read(path, self.key, otherwise)
            if found is not None:
                log.info("going on from %s", path)
                return found
        return None

    def save(self, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        """Replace the latest checkpoint (on the first rank); the one before it is kept."""
        if ranks.is_first():
            story = _story(self.record, self.start, self.key) | {"facts": facts}
            replace_keeping_one(self.path, tensor_files.serialised(tensors, story))


def _story(record: Record, start: int, key: str) -> dict[str, Any]:
    undefined = [[*where, why] for where, why in record.undefined.items()]
    return {"key": key, "rows": record.rows[start:], "undefined": undefined}


def _restore(record: Record, story: dict[str, Any]) -> None:
    record.restore(*as_recorded(story["rows"], story["undefined"]))


def as_recorded(rows: list[list], undefined: list[list[str]]) -> tuple[list[Row], dict[tuple[str, ...], str]]:
    """Rows and reasons as the record holds them, from the plain lists that files hold."""
    return [Row(*values) for values in rows], {tuple(where): why for *where, why in undefined}


def _read(path: Path, key: str, otherwise: str) -> Kept | None:
    return tensor_files.read(path, key, otherwise, lambda story: as_recorded(story["rows"], story["undefined"]))
