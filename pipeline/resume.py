"""Results of finished stages, kept in the run folder so that a run that is started again need not repeat them.

A stage leaves one safetensors file: its tensors and, in the file's metadata, the rows it had recorded and a
fingerprint of the settings it depends on. One file, written whole or not at all, so that tensors and rows never
disagree.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from pipeline.config import Config
from pipeline.record import Record, Row, atomic

log = logging.getLogger(__name__)

STAGES = "stages"
"""Folder, within the run's, of results that nobody needs once the run is complete."""
STORY = "stage"
"""Name of the metadata: what the stage recorded, and under which settings."""
VERSION = 1
"""Changes when a stage begins to record other things, so that what an older version kept is not taken for ours."""


def fingerprint(config: Config, sections: Sequence[str], *more: str) -> str:
    """SHA-256 of the named sections of the configuration and of ``more``."""
    settings = asdict(config)
    depends = {section: settings[section] for section in sections}
    text = json.dumps([VERSION, depends, *more], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Keeper:
    """Keeps and finds the results of a run's stages."""

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
        kept = _read(path, key)
        if kept is not None:
            tensors, rows, undefined = kept
            log.info("found %s: this stage is not repeated", path)
            self.record.restore(rows, undefined)
            return tensors
        before = len(self.record.rows)
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in make().items()}
        if max_mb is None or sum(tensor.nbytes for tensor in tensors.values()) <= max_mb * 2**20:
            undefined = [[*where, why] for where, why in self.record.undefined.items()]
            story = {"key": key, "rows": self.record.rows[before:], "undefined": undefined}
            with atomic(path) as temporary:
                # Under one name, because safetensors writes several in any order, and equal runs leave equal files.
                save_file(tensors, temporary, {STORY: json.dumps(story)})
        return tensors


def _read(path: Path, key: str) -> tuple[dict[str, Tensor], list[Row], dict[tuple[str, ...], str]] | None:
    """What was kept under ``key``; None if nothing was, or it cannot be read."""
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as stream:
            story = json.loads((stream.metadata() or {})[STORY])
            if story["key"] != key:
                return None
            tensors = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118 (not a mapping)
        rows = [Row(*values) for values in story["rows"]]
        undefined = {tuple(where): why for *where, why in story["undefined"]}
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        log.warning("%s cannot be read (%s); this stage is repeated", path, str(error).splitlines()[0])
        return None
    return tensors, rows, undefined
