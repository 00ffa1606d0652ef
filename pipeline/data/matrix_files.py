"""Matrices of rows and their labels in .npy and .safetensors files, every number of them checked."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.data.images import DataError
from pipeline.data.names import shown
from pipeline.data.selection import in_short
from pipeline.runtime.memory import require_memory

ENDINGS = (".npy", ".safetensors")
LABELS = "labels"
"""Name of the labels in a safetensors file, and of the file beside a .npy one."""
ALLOWED_LABELS = "allowed: whole numbers >= 0, or text, one for each row"


@dataclass(frozen=True)
class Matrix:
    """A file of rows and the file of their labels, which may be the same."""

    rows: Path
    labels: Path

    @cached_property
    def _labels(self) -> np.ndarray:
        """(N,), whole numbers as int64, or text."""
        return _checked_labels(self.labels, _array(self.labels, LABELS, alone=self.labels != self.rows))

    def label_names(self) -> tuple[str, ...]:
        """The distinct labels as text, numbers in their order."""
        return tuple(str(label) for label in np.unique(self._labels).tolist())

    def read_labels(self, names: tuple[str, ...]) -> Tensor:
        """Positions in `names`, (N,) int64; DataError for a label that is none of them."""
        position = {name: index for index, name in enumerate(names)}
        found = [position.get(str(label)) for label in self._labels.tolist()]
        if None in found:
            row = found.index(None)
            raise DataError(
                f"{shown(self.labels)}: the label {self._labels[row]} of row {row} is no class of the training rows; "
                f"allowed: {in_short(names)}."
            )
        return torch.tensor(found, dtype=torch.int64)


@dataclass(frozen=True)
class Matrices:
    """The training rows, and the test rows if they have a file of their own."""

    train: Matrix
    test: Matrix | None

    def require_same_width(self, train: int, test: int) -> None:
        """Raise DataError where rows of the two files have different lengths."""
        if train != test:
            raise DataError(
                f"{shown(self.test.rows)} has rows of {test} numbers, but {shown(self.train.rows)} of {train}; "
                "allowed: the same in both."
            )


def find_matrices(request: Any) -> Matrices:
    """Where the files of ``data=vectors`` are; DataError for one that is not there or has another ending."""
    root, settings = request.root, request.settings
    if root.is_dir() and settings.file is None:
        found = sorted(path.name for path in root.iterdir() if path.suffix in ENDINGS)
        hint = f" ({in_short(found)})" if found else ""
        raise DataError(
            f"data.file=null, but data.root={shown(root)} is a folder; allowed: the name of a .npy or .safetensors "
            f"file in it{hint}."
        )
    if not root.is_dir() and settings.file is not None:
        raise DataError(
            f"data.file={settings.file} does not go with data.root={shown(root)}, which is a file; allowed: one of "
            "them, or the folder as data.root."
        )
    folder = root if root.is_dir() else root.parent
    train = _matrix("file", folder / settings.file if root.is_dir() else root, "labels", settings.labels, folder)
    if settings.test_file is None:
        if settings.test_labels is not None:
            raise DataError(
                f"data.test_labels={settings.test_labels} without data.test_file; allowed: both of them, or null."
            )
        return Matrices(train, None)
    test = _matrix("test_file", folder / settings.test_file, "test_labels", settings.test_labels, folder)
    if test.rows == train.rows or test.labels == train.labels:
        raise DataError(
            f"data.test_file={settings.test_file} and its labels {shown(test.labels)} are not files of their own; "
            "allowed: other ones than those of the training rows."
        )
    return Matrices(train, test)


def _matrix(key: str, rows: Path, label_key: str, labels: str | None, folder: Path) -> Matrix:
    _require_file(key, rows)
    if labels is not None:
        _require_file(label_key, folder / labels)
        return Matrix(rows, folder / labels)
    if rows.suffix == ".safetensors":
        return Matrix(rows, rows)
    places = [rows.with_name(f"{rows.stem}_{LABELS}.npy"), rows.with_name(f"{LABELS}.npy")]
    for place in places:
        if place.is_file():
            return Matrix(rows, place)
    raise DataError(
        f"data.{label_key}=null, but there is no {places[0].name} and no {places[1].name} beside {shown(rows)}; "
        "allowed: the name of a file of labels."
    )


def _require_file(key: str, path: Path) -> None:
    if path.suffix not in ENDINGS:
        raise DataError(f"data.{key}: {shown(path)} is no .npy or .safetensors file; allowed: one of these.")
    if not path.is_file():
        raise DataError(f"data.{key}: the file {shown(path)} is missing; allowed: a .npy or .safetensors file.")


def read_matrix(files: Matrix) -> Tensor:
    """The rows (N, d) as float32.

    Raises DataError for another shape or type, a file without rows, one row more or less than labels, and numbers that
    are NaN, infinite, or beyond float32.
    """
    path = files.rows
    require_memory(path.stat().st_size, f"the rows of {shown(path)}")
    found = _array(path, None)
    if found.dtype.kind not in "fiub":
        raise DataError(f"{shown(path)} holds {found.dtype} values; allowed: real numbers.")
    if found.ndim != 2 or 0 in found.shape:
        raise DataError(f"{shown(path)} holds an array of shape {found.shape}; allowed: rows (N, d), N and d >= 1.")
    if len(found) != len(files._labels):
        raise DataError(
            f"{shown(path)} holds {len(found)} rows, but {shown(files.labels)} {len(files._labels)} labels; "
            f"{ALLOWED_LABELS}."
        )
    with np.errstate(over="ignore"):
        rows = torch.from_numpy(np.ascontiguousarray(found, dtype=np.float32))
    bad = (~rows.isfinite()).any(dim=1).nonzero().flatten()
    if len(bad):
        value = found[int(bad[0])][~np.isfinite(rows[int(bad[0])].numpy())][0]
        raise DataError(
            f"{shown(path)}: {len(bad)} row(s) hold numbers that are NaN, infinite or beyond float32, first row "
            f"{int(bad[0])} ({value}); allowed: finite numbers."
        )
    return rows


def _array(path: Path, name: str | None, *, alone: bool = False) -> np.ndarray:
    """The array of a .npy file, or of a safetensors file the tensor of that name (``alone``: or its only one), by
    default its only other one."""
    try:
        if path.suffix == ".npy":
            return np.load(path, allow_pickle=False)
        return _tensor(path, name, alone)
    except DataError:
        raise
    except Exception as error:  # whatever the readers make of damaged bytes
        reason = str(error).strip().splitlines()[0].rstrip(".") if str(error).strip() else type(error).__name__
        raise DataError(f"{shown(path)} cannot be read ({reason}); allowed: a whole {path.suffix} file.") from error


def _tensor(path: Path, name: str | None, alone: bool) -> np.ndarray:
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        names = list(file.keys())
        if name is None:
            others = [key for key in names if key != LABELS]
            if len(others) != 1:
                raise DataError(
                    f"{shown(path)} holds the tensors {in_short(sorted(names)) or 'none'}; allowed: one of rows and "
                    f"one called {LABELS}."
                )
            name = others[0]
        elif name not in names:
            if len(names) != 1 or not alone:
                raise DataError(
                    f"{shown(path)} holds no tensor called {name} ({in_short(sorted(names)) or 'none at all'}); "
                    "allowed: one there, or a file of labels as data.labels."
                )
            name = names[0]
        tensor = file.get_tensor(name)
    return (tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor).numpy()


def _checked_labels(path: Path, found: np.ndarray) -> np.ndarray:
    if found.ndim != 1 or not len(found):
        raise DataError(f"{shown(path)} holds an array of shape {found.shape}; {ALLOWED_LABELS}.")
    if found.dtype.kind == "U":
        return found
    if found.dtype.kind not in "fiub":
        raise DataError(f"{shown(path)} holds {found.dtype} values; {ALLOWED_LABELS}.")
    whole = np.isfinite(found) & (found == np.floor(found)) & (found >= 0) & (found < 2**53)
    if not whole.all():
        row = int(np.flatnonzero(~whole)[0])
        raise DataError(f"{shown(path)}: the label of row {row} is {found[row]}; {ALLOWED_LABELS}.")
    return found.astype(np.int64)
