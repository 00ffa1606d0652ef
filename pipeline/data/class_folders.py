"""Folders of images, one per class: which folder holds which split, and which classes there are."""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from pipeline.data.images import DataError
from pipeline.data.names import is_hidden, is_utf8, shown
from pipeline.data.samples import entries, is_image, is_within

WORDS = {"train": "training|train|trn", "test": "testing|test|tst", "validation": "validation|valid|val|eval|dev"}
MORE = r"(?:[-_ ]?(?:set|data|split|images|imgs))?"
KINDS = {kind: re.compile(f"(?:{words}){MORE}") for kind, words in WORDS.items()}
PARTS = {kind: re.compile(words) for kind, words in WORDS.items()}
ALLOWED = "allowed: <root>/train/<class>/* with <root>/test/<class>/* or <root>/val/<class>/*, or <root>/<class>/*"


@dataclass(frozen=True)
class Layout:
    """Where the images of a data set are.

    train, test: the folders that hold the class folders of a split; test is None where there is no split of its own.
    classes: names of the class folders in alphabetical order.
    left_out: what lies in these folders and is not read, in words.
    """

    train: Path
    test: Path | None
    classes: tuple[str, ...]
    left_out: tuple[str, ...] = ()


def find_layout(root: Path) -> Layout:
    """`<root>/<class>/*`, or `<root>/train/<class>/*` with `test` or `val` beside it; the names may be in any case.

    Training and Testing, valid, validation and the like are recognised too. Where there is a test folder and one for
    validation, the first is used. Raises DataError for class folders that are not the same in both splits, or whose
    names are not UTF-8, and where it cannot be told which folders are splits and which are classes.
    """
    names, dropped = subfolders(root, links_between=True)
    kinds = {name: kind for name in names if (kind := split_kind(name))}
    # A folder `train` without folders in it is a class (of photographs of trains).
    trains = [name for name in kinds if kinds[name] == "train" and subfolders(root / name)[0]]
    if not trains:
        _refuse_splits_as_classes(root, names, kinds)
        classes, dropped = subfolders(root)
        _check_names(root, classes)
        return Layout(root, None, classes, (*dropped, *_loose_images(root)))
    if len(trains) > 1:
        raise DataError(f"data.root={shown(root)} has several training folders: {_listed(trains)}; allowed: one.")
    others = [name for name in names if name not in kinds]
    test = _choose_test(root, {name: kind for name, kind in kinds.items() if kind != "train"})
    with_images = [name for name in others if any(is_image(entry.name) for entry in entries(root / name))]
    if test is None and with_images:
        raise DataError(
            f"data.root={shown(root)} has class folders in {trains[0]} and images in {_listed(with_images)} beside it: "
            f"is {trains[0]} a split or a class? {ALLOWED}."
        )
    classes, more = subfolders(root / trains[0])
    _check_names(root, classes)
    unused = [f"the folder {shown(name)}" for name in names if name not in (trains[0], test)]
    left_out = (*dropped, *more, *unused, *_loose_images(root), *_loose_images(root / trains[0]))
    if test is None:
        return Layout(root / trains[0], None, classes, left_out)
    left_out += (*subfolders(root / test)[1], *_loose_images(root / test))
    _check_pair(root, trains[0], test, classes)
    return Layout(root / trains[0], root / test, classes, left_out)


def split_kind(name: str) -> str | None:
    """``train``, ``test`` or ``validation`` for a name that means it, in any case; None for any other."""
    return next((kind for kind, pattern in KINDS.items() if pattern.fullmatch(name.casefold())), None)


def subfolders(folder: Path, *, links_between: bool = False) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of the folders right in a folder, in alphabetical order, and in words which are no folders of their own.

    Hidden ones are not looked at. A link to the folder itself, to one above it or (unless `links_between`) to one
    within it is a second name for what is there already.
    """
    names, links, here = [], [], os.path.realpath(folder)
    for entry in entries(folder):
        if is_hidden(entry.name) or not entry.is_dir():
            continue
        target = os.path.realpath(entry.path) if entry.is_symlink() else None
        inside = target and is_within(target, here) and not any(map(is_hidden, Path(target).relative_to(here).parts))
        if target and (is_within(here, target) or (inside and not links_between)):
            links.append(f"the link {shown(entry.path)} to {shown(target)}")
        else:
            names.append(entry.name)
    return tuple(names), tuple(links)


def check_no_overlap(layout: Layout) -> None:
    """Raise DataError if two class folders are one, or one lies in another: links can make it so."""
    splits = [layout.train, layout.test] if layout.test else [layout.train]
    places = sorted(
        (Path(os.path.realpath(split / name)).parts, split / name) for split in splits for name in layout.classes
    )
    for (first, one), (second, other) in pairwise(places):
        if second[: len(first)] == first:
            raise DataError(
                f"data.root: the class folders {shown(one)} and {shown(other)} hold the same files; "
                "allowed: each file in one class of one split."
            )


def refuse_splits_in_classes(root: Path, folders: Mapping[str, Sequence[str]]) -> None:
    """Raise DataError for splits within a class's folder, which would be mixed; `folders` is what each class holds."""
    for name, inner in folders.items():
        kinds = {split_kind(folder): folder for folder in inner}
        if "train" in kinds and len(kinds.keys() - {None}) > 1:
            splits = " and ".join(f"{shown(name)}/{shown(kinds[kind])}" for kind in WORDS if kind in kinds)
            raise DataError(f"data.root={shown(root)} has folders for splits within a class: {splits}; {ALLOWED}.")


def _refuse_splits_as_classes(root: Path, names: Sequence[str], kinds: dict[str, str]) -> None:
    """Where no training folder holds class folders: folders for splits must not be taken for classes."""
    found = list(kinds) if "train" in kinds.values() and set(kinds.values()) != {"train"} else []
    if kinds and set(kinds) == set(names) and len(names) > 1:
        found = list(kinds)
    for name in kinds:  # <root>/<class> with <root>/val/<class>: a split beside the classes
        if set(subfolders(root / name)[0]) & (set(names) - {name}):
            found.append(name)
    rests: dict[str, dict[str, str]] = {}
    for name in names:  # seg_train with seg_test, "Test Set 1" with "Train Set 1": one word apart
        for kind, pattern in PARTS.items():
            rest, count = pattern.subn("*", name.casefold())
            if count == 1:
                rests.setdefault(rest, {})[kind] = name
    found += [name for same in rests.values() if "train" in same and len(same) > 1 for name in same.values()]
    if found:
        raise DataError(
            f"data.root={shown(root)} has folders that seem to be splits and not classes: "
            f"{_listed(dict.fromkeys(found))}; {ALLOWED}."
        )


def _choose_test(root: Path, kinds: dict[str, str]) -> str | None:
    """The folder of the test split: one called test before one for validation, one with class folders before others."""
    filled = [name for name in kinds if subfolders(root / name)[0]] or list(kinds)
    wanted = [name for name in filled if kinds[name] == "test"] or filled
    if len(wanted) > 1:
        raise DataError(f"data.root={shown(root)} has several folders for testing: {_listed(wanted)}; allowed: one.")
    return wanted[0] if wanted else None


def _check_pair(root: Path, train: str, test: str, classes: Sequence[str]) -> None:
    if unpaired := sorted(set(subfolders(root / test)[0]) ^ set(classes)):
        raise DataError(
            f"data.root={shown(root)} has class folders in only one of {train} and {test}: {_listed(unpaired)}; "
            "allowed: the same in both."
        )


def _check_names(root: Path, classes: Sequence[str]) -> None:
    if bad := [name for name in classes if not is_utf8(name)]:
        raise DataError(
            f"data.root={shown(root)} has class folders whose names are not UTF-8: {_listed(bad)}; "
            "allowed: names in UTF-8, because the record holds them."
        )


def _loose_images(folder: Path) -> tuple[str, ...]:
    count = sum(is_image(entry.name) and not is_hidden(entry.name) and entry.is_file() for entry in entries(folder))
    return (f"{count} image(s) right in {shown(folder)}",) if count else ()


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(shown, names))
