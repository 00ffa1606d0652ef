"""Which files in the class folders are samples: each one once, by its real place, within its own class's tree."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from pipeline.data.images import DataError
from pipeline.data.names import is_hidden, shown

ENDINGS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
"""Of the files that are read: those of torchvision's ImageFolder, which takes seconds to import."""
HIDDEN_FILES, HIDDEN_FOLDERS = "hidden or system file(s)", "hidden or system folder(s)"
INNER, OUTER = "link(s) within a class, whose targets are read in their place", "link(s) that lead out of their class"


@dataclass
class ClassTree:
    """What a class's folder holds, links not followed.

    images: places of the image files, in the order of their names.
    links: links to files outside, and their real places.
    left_out: how many entries of which kind are no samples.
    folders: names of the folders right in it.
    """

    images: list[str] = field(default_factory=list)
    links: list[tuple[str, str]] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    folders: list[str] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class Samples:
    """The samples of a split.

    paths, labels: the image files, and their classes (N,) int64.
    left_out: how many entries of which kind are no samples.
    folders: names of the folders right in each class's.
    """

    paths: list[Path]
    labels: Tensor
    left_out: Counter[str]
    folders: dict[str, list[str]]


def list_samples(folder: Path, names: Sequence[str]) -> Samples:
    """The image files in the class folders, and what else is there.

    A link is no sample: what it leads to within its class is read where it is, and what it leads to elsewhere does not
    belong to the class. Only where there are links and no files at all, as in the folders that huggingface_hub, DVC
    and git-annex fill, each file outside that they lead to is read, once.

    Raises DataError for a class without images, a folder that cannot be read, and links that give one file two classes.
    """
    trees = {name: _tree(folder / name) for name in names}
    if any(tree.images for tree in trees.values()):
        for tree in trees.values():
            tree.left_out[OUTER] += len(tree.links)
    else:
        _follow_links(folder, trees)
    for name, tree in trees.items():
        if not tree.images:
            raise DataError(_nothing_in(folder / name, tree))
    paths = [Path(path) for tree in trees.values() for path in tree.images]
    labels = torch.tensor([label for label, tree in enumerate(trees.values()) for _ in tree.images], dtype=torch.int64)
    left_out = +sum((tree.left_out for tree in trees.values()), Counter())
    return Samples(paths, labels, left_out, {name: tree.folders for name, tree in trees.items()})


def entries(folder: Path | str) -> list[os.DirEntry[str]]:
    """What is in a folder, by name; DataError if it cannot be read."""
    try:
        with os.scandir(folder) as found:
            return sorted(found, key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"data.root: the folder {shown(folder)} cannot be read ({error.strerror}).") from error


def is_image(name: str) -> bool:
    """Whether a file is one that torchvision's ImageFolder reads, by the end of its name."""
    return name.lower().endswith(ENDINGS)


def is_within(path: str, folder: str) -> bool:
    """Whether one real path is another or below it."""
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)


def _tree(folder: Path) -> ClassTree:
    tree, real, inner = ClassTree(), os.path.realpath(folder), []
    for _, found in sorted(_walk(str(folder), tree), key=lambda each: each[0]):
        for entry in found:
            if is_hidden(entry.name):
                tree.left_out[HIDDEN_FILES] += 1
            elif entry.is_symlink() and os.path.exists(entry.path):  # one to nothing is a file that cannot be read
                target = os.path.realpath(entry.path)
                if is_within(target, real):
                    inner.append((entry, target))
                elif entry.is_file() and is_image(entry.name):
                    tree.links.append((entry.path, target))
                else:
                    tree.left_out[OUTER] += 1
            elif is_image(entry.name):
                tree.images.append(entry.path)
            else:
                tree.left_out[os.path.splitext(entry.name)[1].lower() or "without an ending"] += 1
    _take_inner(tree, str(folder), real, inner)
    return tree


def _walk(folder: str, tree: ClassTree) -> Iterator[tuple[str, list[os.DirEntry[str]]]]:
    """Each folder of a tree with what it holds beside folders; links are not followed."""
    waiting = [folder]
    while waiting:
        place = waiting.pop()
        files = []
        for entry in entries(place):
            if not entry.is_dir(follow_symlinks=False):
                files.append(entry)
            elif is_hidden(entry.name):
                tree.left_out[HIDDEN_FOLDERS] += 1
            else:
                waiting.append(entry.path)
                tree.folders += [entry.name] if place == folder else []
        yield place, files


def _take_inner(tree: ClassTree, folder: str, real: str, inner: list[tuple[os.DirEntry[str], str]]) -> None:
    """Links within a class count where what they lead to does not: it is hidden, or its name has no image's ending."""
    read = {real + path[len(folder) :] for path in tree.images} if inner else set()
    for entry, target in inner:
        if entry.is_file() and is_image(entry.name) and target not in read:
            read.add(target)
            tree.images.append(entry.path)
        else:
            tree.left_out[INNER] += 1


def _follow_links(folder: Path, trees: dict[str, ClassTree]) -> None:
    """Take the links that lead out of all class folders for images, one for each file."""
    inside, seen = os.path.realpath(folder), {}
    for name, tree in trees.items():
        for path, target in tree.links:
            if is_within(target, inside):
                tree.left_out[OUTER] += 1
                continue
            owner, first = seen.setdefault(target, (name, path))
            if owner != name:
                raise DataError(
                    f"data.root: {shown(first)} and {shown(path)} are links to one file in two classes; "
                    "allowed: one class for each file."
                )
            if first == path:
                tree.images.append(path)
            else:
                tree.left_out["more link(s) to the same file"] += 1


def _nothing_in(folder: Path, tree: ClassTree) -> str:
    only = f" (only {in_words(+tree.left_out)})" if +tree.left_out else ""
    return f"{shown(folder)} holds no image{only}; allowed file names end in {', '.join(ENDINGS)}."


def in_words(left_out: Counter[str]) -> str:
    """``3 .txt, 1 hidden or system folder(s)``."""
    return ", ".join(f"{count} {kind}" for kind, count in sorted(left_out.items()))
