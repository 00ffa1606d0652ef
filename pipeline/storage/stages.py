"""What a run keeps in its folder so that the same command, started again, goes on where it ended.

A finished stage leaves one safetensors file: its tensors and, in the file's metadata, the rows it recorded and a
fingerprint of the settings it depends on. A stage in progress leaves such files too, the latest and the previous one
(`PartialStage`). Every file is written whole or not at all, so that tensors and rows never disagree, and carries a
SHA-256 of both, so that damage is noticed.
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
from pipeline.runtime.tensor_files import TensorsAndMetadata
from pipeline.storage import classes
from pipeline.storage.record import Record, Row

log = logging.getLogger(__name__)

STAGES = "stages"
"""Subfolder of results that nobody needs once the run is complete."""
CHECKPOINT = "checkpoints/backbone.ckpt"
"""File, within the run folder, from which a training resumes."""
PATHS = (
    ("data", "root"),
    ("data", "foreign_root"),
    *(("backbone", name) for name in ("from_run", "checkpoint", "checkpoints")),
    ("protocol", "start_file"),
)
"""Section and name of the settings that are paths."""
VERSION = 3
"""Changes when a stage begins to record other things, so that results of an older version are not taken for ours."""
NOT_USED = "%s is not used: kept by another version or under other settings; this stage begins anew"
"""Logged where a run is resumed beside results that no longer belong to it."""


def fingerprint(config: Config, sections: Sequence[str], *more: str) -> str:
    """SHA-256 of the named sections of the configuration and of ``more``; paths count from where they start."""
    settings = asdict(config) | {"data": config.data.relevant}
    del settings["features"]["cache"]  # where they are found changes nothing
    del settings["descent"]["sharded"]  # and who computes what no more than the number of processes
    for section, name in PATHS:
        if path := settings[section].get(name):
            settings[section][name] = os.path.abspath(os.path.expanduser(path))
    depends = {section: settings[section] for section in sections}
    text = json.dumps([VERSION, depends, *more], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def previous_checkpoint(path: Path) -> Path:
    """Where the predecessor of the checkpoint at ``path`` lies."""
    return path.with_name(f"{path.stem}.previous{path.suffix}")


def save_keeping_previous(path: Path, content: bytes) -> None:
    """Write a checkpoint atomically; the one at ``path`` becomes the previous one, and is whole at every moment."""
    with atomic(path) as temporary:
        temporary.write_bytes(content)
        if path.exists():
            os.replace(path, previous_checkpoint(path))


@dataclass(frozen=True)
class StageCache:
    """The results of a run's stages, in its folder; the first rank reads and writes for all."""

    folder: Path
    record: Record

    def load_or_run(
        self, file: str, key: str, stage: Callable[[], dict[str, Tensor]], max_mb: float | None = None
    ) -> dict[str, Tensor]:
        """The tensors of a stage: those kept under ``key``, whose rows are then recorded again, or new ones.

        Args:
            file: path within the run folder.
            key: see `fingerprint`; a result kept under another key is replaced.
            stage: the work itself.
            max_mb: size in MiB above which nothing is kept.
        """
        path = self.folder / file
        found = ranks.broadcast(_load(path, key) if ranks.is_first() else None)
        if found is not None:
            tensors, metadata = found
            log.info("found %s: this stage is not repeated", path)
            _restore(self.record, metadata)
            return tensors
        start = len(self.record.rows)
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in stage().items()}
        small = max_mb is None or sum(tensor.nbytes for tensor in tensors.values()) <= max_mb * 2**20
        if ranks.is_first() and small:
            of_classes, metadata = _kept(self.record, start, key)
            with atomic(path) as temporary:
                temporary.write_bytes(tensor_files.serialised(tensors | of_classes, metadata))
        return tensors

    def partial(self, file: str, key: str) -> "PartialStage":
        """The checkpoints of a stage that begins now."""
        return PartialStage(self.folder / file, key, self.record)


@dataclass
class PartialStage:
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
        tensors, metadata = found
        _restore(self.record, metadata)
        return tensors, metadata["facts"]

    def _latest(self) -> TensorsAndMetadata | None:
        last = "the stage is repeated"
        for path, otherwise in ((self.path, "the one before it is used"), (previous_checkpoint(self.path), last)):
            found = _read(path, self.key, otherwise, partial=True)
            if found is not None:
                log.info("going on from %s", path)
                return found
        if tensor_files.has_other_key(self.path, self.key):
            log.info(NOT_USED, self.path)
        return None

    def save(self, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        """Replace the latest checkpoint (on the first rank), which becomes the previous one."""
        if ranks.is_first():
            of_classes, metadata = _kept(self.record, self.start, self.key)
            content = tensor_files.serialised(tensors | of_classes, metadata | {"facts": facts})
            save_keeping_previous(self.path, content)


def parsed_rows(rows: list[list], undefined: list[list[str]]) -> tuple[list[Row], dict[tuple[str, ...], str]]:
    """Rows and reasons as the record holds them, from the plain lists in a file.

    Raises:
        KeyError, TypeError, ValueError: they are none.
    """
    found = [Row(*values) for values in rows]
    if any(not isinstance(value, kind) for row in found for value, kind in zip(row, _KINDS, strict=True)):
        raise TypeError("its rows are none of a record")
    reasons = {tuple(where): why for *where, why in undefined}
    if any(
        len(where) != 4 or not all(isinstance(text, str) for text in (*where, why)) for where, why in reasons.items()
    ):
        raise TypeError("its reasons are none of a record")
    return found, reasons


_KINDS = (str, int, int, str, str, str, int | float)
"""Of the values of a `Row`."""


def _kept(record: Record, start: int, key: str) -> TensorsAndMetadata:
    """What of the record goes into the file of a stage: the table of classes as tensors, all else as metadata."""
    undefined = [[*where, why] for where, why in record.undefined.items()]
    metadata = {"key": key, "rows": record.rows[start:], "undefined": undefined}
    metadata |= {"noted": record.noted} if record.asides else {}
    tensors, told = record.classes.kept()
    return tensors, metadata | ({"classes": told} if told else {})


def _restore(record: Record, metadata: dict[str, Any]) -> None:
    record.note_again(metadata.get("noted"))
    record.classes.parts.update(metadata.get("classes", {}))
    record.restore(*parsed_rows(metadata["rows"], metadata["undefined"]))


def _load(path: Path, key: str) -> TensorsAndMetadata | None:
    found = _read(path, key, "this stage is repeated")
    if found is None and tensor_files.has_other_key(path, key):
        log.info(NOT_USED, path)
    return found


def _read(path: Path, key: str, otherwise: str, *, partial: bool = False) -> TensorsAndMetadata | None:
    def check(metadata: dict[str, Any]) -> None:
        parsed_rows(metadata["rows"], metadata["undefined"])
        if partial and not isinstance(metadata["facts"], dict):
            raise TypeError("its facts are none")

    found = tensor_files.read(path, key, otherwise, check)
    return None if found is None else _with_classes(path, otherwise, *found)


def _with_classes(
    path: Path, otherwise: str, tensors: dict[str, Tensor], metadata: dict[str, Any]
) -> TensorsAndMetadata | None:
    """The tensors without those of the table of classes, which is put together again in the metadata."""
    if "classes" not in metadata:
        return tensors, metadata
    try:
        parts = classes.parsed(tensors, metadata["classes"])
    except (KeyError, TypeError, ValueError) as error:
        log.warning("%s is unreadable: %s; %s", path, error, otherwise)
        return None
    own = {name: tensor for name, tensor in tensors.items() if not name.startswith(classes.PREFIX)}
    return own, metadata | {"classes": parts}
