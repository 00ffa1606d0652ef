"""Bring your own images: one folder per class, as torchvision's ImageFolder reads it."""

import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from pipeline.data import DataError, Request, Source, data_set
from pipeline.data.class_folders import Layout, check_no_overlap, find_layout, refuse_splits_in_classes, subfolders
from pipeline.data.group_files import groups_of, read_groups
from pipeline.data.image_files import read_images
from pipeline.data.names import shown
from pipeline.data.samples import Samples, in_words, list_samples
from pipeline.data.selection import in_short, resolve_classes, split_off_test

log = logging.getLogger(__name__)


def class_names(request: Request) -> tuple[str, ...]:
    """The folder names in alphabetical order; folders whose name starts with a dot are not looked at."""
    return find_layout(request.root).classes


def check(request: Request) -> None:
    """Raise DataError unless there are class folders, the same ones for both splits."""
    layout = find_layout(request.root)
    if not layout.classes:
        raise DataError(
            f"data.root={shown(request.root)} has no class folders; allowed: <root>/<class>/* or "
            "<root>/train/<class>/*."
        )
    only = layout.train / layout.classes[0]
    if len(layout.classes) == 1 and subfolders(only)[0]:
        raise DataError(
            f"data.root={shown(request.root)} has 1 class folder, {shown(only)}, with folders in it; allowed: two or "
            f"more, perhaps data.root={shown(only)}."
        )


@data_set(classes=class_names, needs_root=True, check=check)
def image_folder(request: Request) -> Source:
    """`<root>/train/<class>/*` with `<root>/test|val/<class>/*`, or `<root>/<class>/*` with a test split set aside.

    What is not read (other folders and files, links) is logged in one line, and so is what was done to some images.
    Images are grey (C = 1) when every chosen file is stored as grey, colour (C = 3) otherwise. `image_size` scales the
    shorter side to that length and crops the middle square; without it all files must have one size. A file
    `<root>/groups.csv` tells the group of each image.
    """
    layout = find_layout(request.root)
    check_no_overlap(layout)
    names = layout.classes
    parts = [list_samples(folder, names) for folder in (layout.train, layout.test) if folder]
    for part in parts:
        refuse_splits_in_classes(request.root, part.folders)
    (train_paths, train_labels), (test_paths, test_labels) = _splits(parts, names, request.test_fraction)
    _tell(request, layout, sum((part.left_out for part in parts), Counter()))

    def files(train_rows: Tensor, test_rows: Tensor) -> tuple[list[Path], list[Path]]:
        return [train_paths[row] for row in train_rows], [test_paths[row] for row in test_rows]

    def read(train_rows: Tensor, test_rows: Tensor) -> tuple[Tensor, Tensor]:
        chosen, other = files(train_rows, test_rows)
        images = read_images(chosen + other, request.image_size)
        return images[: len(train_rows)], images[len(train_rows) :]

    told = read_groups(request.root)

    def groups(train_rows: Tensor, test_rows: Tensor) -> tuple[Tensor, Tensor, tuple[str, ...]]:
        return groups_of(request.root, told, *files(train_rows, test_rows))

    return Source(train_labels, test_labels, read, None if told is None else groups, files=files)


def _splits(
    parts: Sequence[Samples], names: Sequence[str], test_fraction: float
) -> tuple[tuple[list[Path], Tensor], tuple[list[Path], Tensor]]:
    """Paths and labels of both splits."""
    if len(parts) == 2:
        return tuple((part.paths, part.labels) for part in parts)
    paths, labels = parts[0].paths, parts[0].labels
    return tuple(([paths[row] for row in rows], labels[rows]) for rows in split_off_test(labels, names, test_fraction))


def _tell(request: Request, layout: Layout, left_out: Counter[str]) -> None:
    root = shown(request.root)
    chosen = [layout.classes[index] for index in resolve_classes(request.classes, layout.classes)]
    tests = f"{shown(layout.test)}" if layout.test else f"data.test_fraction={request.test_fraction:g} of each class"
    log.info(
        "data.root=%s: classes are the folders %s in %s; tested on %s",
        *(root, in_short([repr(name) for name in chosen]), shown(layout.train), tests),
    )
    if parts := [*layout.left_out, *([in_words(left_out)] if left_out else [])]:
        log.warning("data.root=%s: not read: %s", root, in_short(parts))
