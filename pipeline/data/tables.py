"""Arrow and Parquet files of images as the library `datasets` keeps them: encoded images, a label for each.

They are read by pyarrow, an extra of this package (``parquet``).
"""

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pipeline.data.class_folders import split_kind
from pipeline.data.image_files import Encoded
from pipeline.data.images import DataError
from pipeline.data.names import is_hidden, shown
from pipeline.data.selection import in_short

if TYPE_CHECKING:
    import pyarrow

ENDINGS = (".parquet", ".arrow")
NUMBERED = re.compile(r"-\d+(-of-\d+)?$")
"""How the name of one of several files of a split ends."""
ARROW_FILE = b"ARROW1"
"""How a file begins that is no stream."""


def require_pyarrow() -> None:
    """Raise DataError where pyarrow is not installed."""
    try:
        import_module("pyarrow")
    except ImportError as error:
        raise DataError(
            "data=parquet needs the extra `parquet`, which is not installed: pip install '.[parquet]'."
        ) from error


def find_splits(root: Path) -> tuple[list[Path], list[Path]]:
    """The files of the training and of the test split; none for testing where no name tells of one.

    A file belongs to the split that its name begins or ends with (``train-00000-of-00001.parquet``, and as `datasets`
    caches them ``cifar10-train.arrow``), or that a folder above it is called; without any such name all are for
    training. Of a test and a validation split the first is taken.
    Raises DataError where there are no files, and where some files cannot be told.
    """
    files = sorted(
        path
        for ending in ENDINGS
        for path in root.rglob(f"*{ending}")
        if path.is_file() and not any(map(is_hidden, path.relative_to(root).parts))
    )
    if not files:
        raise DataError(
            f"data.root={shown(root)} holds no file that ends in {' or '.join(ENDINGS)}; allowed: one or more."
        )
    kinds: dict[str | None, list[Path]] = {}
    for path in files:
        kinds.setdefault(_kind(path.relative_to(root)), []).append(path)
    if kinds.keys() == {None}:
        return files, []
    if None in kinds or "train" not in kinds:
        strange = kinds.get(None, files)
        raise DataError(
            f"data.root={shown(root)}: it cannot be told whether {shown(strange[0].relative_to(root))} is for training "
            "or for testing; allowed: names that begin or end with train, test or validation, or none that does."
        )
    return kinds["train"], kinds.get("test") or kinds.get("validation") or []


def _kind(path: Path) -> str | None:
    words = re.split(r"[-_.]", NUMBERED.sub("", path.stem))
    names = [words[0], words[-1], *reversed(path.parent.parts)]
    return next((kind for name in names if (kind := split_kind(name))), None)


@dataclass(frozen=True)
class Shard:
    """A file, and its columns of images and labels."""

    path: Path
    image: str
    label: str

    @cached_property
    def schema(self) -> "pyarrow.Schema":
        """Of the file."""
        with _reading(self.path):
            return self._parquet.schema_arrow if self._is_parquet else self._table.schema

    def check(self) -> None:
        """Raise DataError for a file that cannot be read, or lacks a column."""
        for key, column in (("image_column", self.image), ("label_column", self.label)):
            if column not in self.schema.names:
                raise DataError(
                    f"data.{key}={column} is no column of {shown(self.path)}; allowed: {in_short(self.schema.names)}."
                )

    @property
    def told_names(self) -> list[str] | None:
        """The class names in the features that `datasets` writes down; None without them."""
        found = (self.schema.metadata or {}).get(b"huggingface")
        try:
            names = json.loads(found)["info"]["features"][self.label]["names"] if found else None
        except (ValueError, LookupError, TypeError):
            return None
        return names if isinstance(names, list) and all(isinstance(name, str) for name in names) else None

    def labels(self) -> list[int | str]:
        """All labels; DataError for one that is missing, or of another type."""
        self.check()
        with _reading(self.path):
            column = self._column(self.label)
            found = column.to_pylist()
        for row, label in enumerate(found):
            if isinstance(label, bool) or not isinstance(label, int | str) or (isinstance(label, int) and label < 0):
                raise DataError(
                    f"{shown(self.path)}, row {row}: the label is {label}; allowed: an integer >= 0, or text."
                )
        return found

    def encoded(self, rows: Sequence[int]) -> Iterator[Encoded]:
        """The images of these rows, in ascending order, as they are encoded."""
        for start, part in self._parts():
            inside = [row - start for row in rows if start <= row < start + len(part)]
            for row, value in zip(inside, part.take(inside).to_pylist() if inside else [], strict=True):
                yield Encoded(f"{shown(self.path)}, row {start + row}", self._bytes(value, start + row))

    def _parts(self) -> "Iterator[tuple[int, pyarrow.ChunkedArray]]":
        """Consecutive parts of the column of images with their first row; of Parquet files one row group at a time."""
        with _reading(self.path):
            if not self._is_parquet:
                yield 0, self._column(self.image)
                return
            start = 0
            for group in range(self._parquet.num_row_groups):
                part = self._parquet.read_row_group(group, columns=[self.image]).column(self.image)
                yield start, part
                start += len(part)

    def _bytes(self, value: Any, row: int) -> bytes:
        if isinstance(value, dict) and value.get("bytes") is None and value.get("path"):
            place = self.path.parent / value["path"]
            if place.is_file():
                return place.read_bytes()
            raise DataError(
                f"{shown(self.path)}, row {row}: data.image_column={self.image} names {shown(place)}, which is not "
                "there; allowed: bytes, or the path of a file."
            )
        content = value.get("bytes") if isinstance(value, dict) else value
        if not isinstance(content, bytes) or not content:
            raise DataError(
                f"{shown(self.path)}, row {row}: data.image_column={self.image} holds no encoded image; allowed: "
                "bytes, or bytes and path as `datasets` writes them."
            )
        return content

    @property
    def _is_parquet(self) -> bool:
        return self.path.suffix == ".parquet"

    @cached_property
    def _parquet(self) -> "pyarrow.parquet.ParquetFile":
        from pyarrow.parquet import ParquetFile

        return ParquetFile(self.path)

    @cached_property
    def _table(self) -> "pyarrow.Table":
        import pyarrow

        with self.path.open("rb") as file:
            is_file = file.read(len(ARROW_FILE)) == ARROW_FILE
        mapped = pyarrow.memory_map(str(self.path))
        opened = pyarrow.ipc.open_file if is_file else pyarrow.ipc.open_stream
        return opened(mapped).read_all()

    def _column(self, name: str) -> "pyarrow.ChunkedArray":
        if self._is_parquet:
            return self._parquet.read(columns=[name]).column(name)
        return self._table.column(name)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Within, whatever pyarrow raises becomes a DataError that names the file."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:
        lines = str(error).strip().splitlines()
        reason = lines[0].rstrip(".") if lines else type(error).__name__
        raise DataError(f"{shown(path)} cannot be read ({reason}); allowed: a whole file.") from error


def class_names(shards: Sequence[Shard]) -> tuple[str, ...]:
    """Names as the files tell them, or else the distinct labels of the training files: numbers in their order."""
    if (told := shards[0].told_names) is not None:
        return tuple(told)
    found = {label for shard in shards for label in shard.labels()}
    _require_rows(shards, len(found))
    if len({type(label) for label in found}) > 1:
        raise DataError(f"data.label_column={shards[0].label} holds numbers and text; allowed: one of them.")
    return tuple(map(str, sorted(found)))


def check_names(shard: Shard, names: Sequence[str] | None) -> None:
    """Raise DataError where a file tells other names than these, None for any."""
    others = shard.told_names
    if names is not None and others is not None and others != list(names):
        raise DataError(
            f"{shown(shard.path)} tells other class names ({in_short(others)}); allowed: the same in all files, "
            f"{in_short(names)} in this order."
        )


def _require_rows(shards: Sequence[Shard], count: int) -> None:
    if not count:
        raise DataError(f"{shown(shards[0].path)} holds no row, nor does another file of its split; allowed: some.")


def labels_of(shards: Sequence[Shard], names: Sequence[str]) -> Tensor:
    """Positions in `names`, (N,) int64; where the files tell names, a number is a position already."""
    told = shards[0].told_names is not None
    position: dict[Any, int] = {name: index for index, name in enumerate(names)}
    found = []
    for shard in shards:
        check_names(shard, names)
        for row, label in enumerate(shard.labels()):
            index = label if told and isinstance(label, int) else position.get(str(label))
            if index is None or index >= len(names):
                raise DataError(
                    f"{shown(shard.path)}, row {row}: the label {label} is no class; allowed: {in_short(names)}."
                )
            found.append(index)
    _require_rows(shards, len(found))
    return torch.tensor(found, dtype=torch.int64)


def encoded_images(shards: Sequence[Shard], counts: Sequence[int], rows: Tensor) -> list[Encoded]:
    """The images of ascending rows of all shards together, which hold so many rows each."""
    found, start = [], 0
    for shard, count in zip(shards, counts, strict=True):
        own = rows[(rows >= start) & (rows < start + count)] - start
        found += shard.encoded(own.tolist()) if len(own) else []
        start += count
    return found
