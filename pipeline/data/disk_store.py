"""Decoded images on disk: made once, then mapped into memory by every run that asks for the same ones.

An entry is a folder of `data.cache`: one file of rows (uint8, C x H x W each), and ``index.json`` with the SHA-256 of
every part of it. While it is made, the index is ``making.json``, which names the parts that are finished: whoever comes
after a killed maker goes on there. Makers take turns at a lock. Whoever opens an entry checks every byte, and makes
damaged parts anew.

A batch is the same rows in the same order as from memory, which libraries for sharded data sets (webdataset, litdata;
as we remember them, not tried) do not promise: they shuffle within shards, and decode in every epoch.
"""

import hashlib
import json
import logging
import math
import os
import shutil
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from pipeline.data.image_files import depth_of, greys_only, read_pictures, tell, together
from pipeline.data.images import DataError
from pipeline.data.mapped import MappedRows
from pipeline.data.names import shown
from pipeline.runtime.files import atomic
from pipeline.runtime.lock import one_at_a_time
from pipeline.runtime.progress import Progress

log = logging.getLogger(__name__)

VERSION = 1
"""Changes with what an entry holds."""
PART_BYTES = 32 * 2**20
"""Decoded rows of a part, about: what is decoded at once, and lost by a kill."""
ROWS, INDEX, MAKING, LOCK = "images.u8", "index.json", "making.json", "making.lock"
SPARE = 2**26
"""Bytes that must be left on the disk."""


@dataclass
class Index:
    """What is known of an entry.

    shape: (C, H, W). part_rows: rows of each part but the last. digests: SHA-256 of the finished parts.
    deep: rows of 16-bit grey levels with the largest value of each. bits: how many of these are in use.
    notes: what was done to how many files.
    """

    shape: tuple[int, int, int]
    part_rows: int
    digests: list[str] = field(default_factory=list)
    deep: list[tuple[int, int]] = field(default_factory=list)
    bits: int = 16
    notes: dict[str, int] = field(default_factory=dict)


class DiskStore:
    """Images of files as `read_images` would decode them, on disk.

    Args:
        cache: folder of all entries.
        paths: the files, row by row.
        image_size: as of `read_images`.
    """

    def __init__(self, cache: Path, paths: Sequence[Path], image_size: int | None) -> None:
        self._cache, self._paths, self._size = cache, paths, image_size
        self._folder = cache / f"images-{self._key()[:32]}"

    def open(self) -> MappedRows:
        """The rows, made first where they are not there.

        Raises DataError for files that `read_images` would refuse, and a disk without room; OSError for one that
        cannot be written.
        """
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(
                f"data.cache={shown(self._cache)} cannot be written ({error.strerror}); allowed: a folder."
            ) from error
        with one_at_a_time(self._folder / LOCK):
            index = _read(self._folder / INDEX)
            if index is None or not self._fits(index):
                index = self._make()
            self._mend(index)
        return MappedRows(self._folder / ROWS, (len(self._paths), *index.shape))

    def needed_bytes(self) -> int:
        """What all rows take, if they have colours."""
        first = read_pictures(self._paths[:1], self._size)[0].pixels
        return 3 * first[0].size * len(self._paths)

    def _key(self) -> str:
        digest = hashlib.sha256(json.dumps([VERSION, self._size]).encode())
        for path in self._paths:
            found = path.stat()
            told = f"{os.path.abspath(path)}\0{found.st_size}\0{found.st_mtime_ns}\n"
            digest.update(told.encode(errors="surrogateescape"))
        return digest.hexdigest()

    def _fits(self, index: Index) -> bool:
        """Whether an index is that of all rows, which lie there in their length."""
        file = self._folder / ROWS
        whole = len(index.digests) == self._num_parts(index)
        return whole and file.is_file() and file.stat().st_size == len(self._paths) * _row_bytes(index)

    def _num_parts(self, index: Index) -> int:
        return -(-len(self._paths) // index.part_rows)

    def _make(self) -> Index:
        """All parts that are not finished, and again the rows whose grey levels have fewer than 16 bits."""
        index = _read(self._folder / MAKING) or self._begin(1 if greys_only(self._paths) else 3)
        self._require_room(index)
        if index.digests:
            log.info("data.cache=%s: going on after %d part(s)", shown(self._cache), len(index.digests))
        with Progress("decoding", self._num_parts(index), "part") as progress:
            while len(index.digests) < self._num_parts(index):
                index = self._next_part(index)
                _save(self._folder / MAKING, index)
                progress.advance_to(len(index.digests))
        index.bits = depth_of(deepest for _, deepest in index.deep)
        if index.bits < 16:
            for part in sorted({row // index.part_rows for row, _ in index.deep}):
                self._write(index, part, self._decoded(index, part))
        tell(Counter(index.notes), len(self._paths), len(index.deep), index.bits)
        _save(self._folder / INDEX, index)
        (self._folder / MAKING).unlink(missing_ok=True)
        return index

    def _begin(self, channels: int) -> Index:
        """The index of an entry without any part; its file, as long as it will be."""
        first = read_pictures(self._paths[:1], self._size)[0].pixels
        shape = (max(channels, len(first)), *first.shape[1:])
        index = Index(shape, max(1, PART_BYTES // math.prod(shape)))
        self._require_room(index)
        with (self._folder / ROWS).open("wb") as file:
            file.truncate(len(self._paths) * _row_bytes(index))
        return index

    def _next_part(self, index: Index) -> Index:
        """The index once its next part is written; a new one where a file has colours after all."""
        part = len(index.digests)
        start = part * index.part_rows
        paths = self._paths[start : start + index.part_rows]
        pictures = read_pictures(paths, self._size)
        pixels = together(paths, [picture.pixels for picture in pictures], (self._paths[0], index.shape))
        if pixels.shape[1] > index.shape[0]:
            return self._begin(pixels.shape[1])
        self._write(index, part, pixels)
        for row, picture in enumerate(pictures):
            index.deep += [] if picture.deepest is None else [(start + row, picture.deepest)]
            for note in picture.notes:
                index.notes[note] = index.notes.get(note, 0) + 1
        return index

    def _require_room(self, index: Index) -> None:
        needed, file = len(self._paths) * _row_bytes(index), self._folder / ROWS
        needed -= file.stat().st_blocks * 512 if file.exists() else 0
        free = shutil.disk_usage(self._folder).free
        if needed + SPARE > free:
            raise DataError(
                f"data.cache={shown(self._cache)} has {free >> 20} MiB free, and the {len(self._paths)} images need "
                f"{needed >> 20} MiB; allowed: a larger disk, a smaller data.image_size, or data.storage=memory."
            )

    def _decoded(self, index: Index, part: int) -> np.ndarray:
        """Rows of a part (n, C, H, W)."""
        paths = self._paths[part * index.part_rows : (part + 1) * index.part_rows]
        pictures = read_pictures(paths, self._size, index.bits)
        return together(paths, [picture.pixels for picture in pictures], (self._paths[0], index.shape))

    def _write(self, index: Index, part: int, pixels: np.ndarray) -> None:
        content = np.ascontiguousarray(pixels).data
        try:
            with (self._folder / ROWS).open("r+b") as file:
                file.seek(part * index.part_rows * _row_bytes(index))
                file.write(content)
                file.flush()
                os.fsync(file.fileno())  # what the index names must be on the disk
        except OSError as error:
            raise DataError(
                f"data.cache={shown(self._cache)} cannot be written ({error.strerror}); allowed: a folder on a disk "
                "with room, or data.storage=memory."
            ) from error
        index.digests[part : part + 1] = [hashlib.sha256(content).hexdigest()]

    def _mend(self, index: Index) -> None:
        """Make the parts anew whose bytes are not those that were written."""
        size = index.part_rows * _row_bytes(index)
        parts = range(len(index.digests))
        with (self._folder / ROWS).open("rb") as file, ThreadPoolExecutor() as pool:
            found = list(pool.map(lambda part: _digest(file.fileno(), part * size, size), parts))
        damaged = [part for part in parts if found[part] != index.digests[part]]
        if not damaged:
            return
        log.warning("data.cache=%s: %d damaged part(s) are made anew", shown(self._cache), len(damaged))
        for part in damaged:
            self._write(index, part, self._decoded(index, part))
        _save(self._folder / INDEX, index)


def _row_bytes(index: Index) -> int:
    return math.prod(index.shape)


def _digest(descriptor: int, start: int, size: int) -> str:
    """SHA-256 of a stretch of a file, read in pieces."""
    digest, end = hashlib.sha256(), start + size
    while piece := os.pread(descriptor, min(2**22, end - start), start):
        digest.update(piece)
        start += len(piece)
        if start == end:
            break
    return digest.hexdigest()


def _read(path: Path) -> Index | None:
    """An index, None where there is none that can be used."""
    try:
        values = json.loads(path.read_text())
        values |= {"shape": tuple(values["shape"]), "deep": [(row, deepest) for row, deepest in values["deep"]]}
        return Index(**values)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _save(path: Path, index: Index) -> None:
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(asdict(index)))
