"""`<root>/groups.csv`: which group each image file belongs to, whatever its class."""

import csv
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from pipeline.data.images import DataError
from pipeline.data.names import shown

NAME, COLUMNS = "groups.csv", ("file", "group")


def read_groups(root: Path) -> dict[str, str] | None:
    """Group by path below `root` with forward slashes, as the columns ``file`` and ``group`` say; None without a file.

    Raises DataError for a file that cannot be read, lacks a column or a value, or gives one image two groups.
    """
    path = root / NAME
    if not path.is_file():
        return None
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            table = csv.DictReader(file, strict=True)
            if missing := [column for column in COLUMNS if column not in (table.fieldnames or ())]:
                raise DataError(
                    f"{shown(path)} has no column {' and no column '.join(missing)}; allowed: a first line that names "
                    f"{' and '.join(COLUMNS)}."
                )
            return _by_file(path, table)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{shown(path)} cannot be read ({error}); allowed: a table in UTF-8.") from error


def _by_file(path: Path, table: csv.DictReader) -> dict[str, str]:
    groups: dict[str, str] = {}
    for row in table:
        file, group = ((row[column] or "").strip() for column in COLUMNS)
        if not file or not group:
            raise DataError(f"{shown(path)}, line {table.line_num}: a value is missing; allowed: a file and its group.")
        file = Path(file).as_posix()
        if groups.setdefault(file, group) != group:
            raise DataError(
                f"{shown(path)}, line {table.line_num}: {file} is in the groups {groups[file]} and {group}; allowed: "
                "one group for each file."
            )
    return groups


def groups_of(
    root: Path, groups: dict[str, str], train: Sequence[Path], test: Sequence[Path]
) -> tuple[Tensor, Tensor, tuple[str, ...]]:
    """Groups (n,) int64 of the image files of both splits, and the names of the groups that occur, in order.

    Names are in alphabetical order, or by number where all are whole numbers. Raises DataError for a file without one.
    """
    found = [[groups.get(path.relative_to(root).as_posix()) for path in paths] for paths in (train, test)]
    lacking = [
        path
        for paths, own in zip((train, test), found, strict=True)
        for path, one in zip(paths, own, strict=True)
        if one is None
    ]
    if lacking:
        first = shown(lacking[0].relative_to(root))
        raise DataError(
            f"{shown(root / NAME)} names no group for {len(lacking)} image(s), first {first}; allowed: a line for each "
            "image that is used."
        )
    names = sorted({name for own in found for name in own})
    if all(name.isdecimal() for name in names):
        names.sort(key=int)
    train_groups, test_groups = (torch.tensor([names.index(name) for name in own], dtype=torch.int64) for own in found)
    return train_groups, test_groups, tuple(names)
