"""Which images and which labels: class lists, test splits and balanced subsets, computed from labels alone."""

import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from pipeline.data.images import DataError
from pipeline.runtime.randomness import generator
from pipeline.runtime.suggestions import closest

NUMBER = re.compile(r"[-+]?[0-9]+(\.[0-9]+)?")


def merged_classes(
    classes: Sequence[int | str | Sequence[int | str]] | None, names: Sequence[str]
) -> tuple[tuple[tuple[int, ...], ...], tuple[str, ...]]:
    """The classes of each label, and the labels' names: an entry that is a list makes one label of several classes.

    Otherwise as `resolve_classes`; the name of several is theirs joined by ``+``.
    """
    flat = resolve_classes(classes, names)
    if classes is None:
        return tuple((index,) for index in flat), tuple(names)
    rest = iter(flat)
    members = tuple(tuple(next(rest) for _ in entry) if _is_list(entry) else (next(rest),) for entry in classes)
    return members, tuple("+".join(names[index] for index in indices) for indices in members)


def _is_list(entry: object) -> bool:
    return isinstance(entry, Sequence) and not isinstance(entry, str)


def resolve_classes(classes: Sequence[int | str | Sequence[int | str]] | None, names: Sequence[str]) -> tuple[int, ...]:
    """Indices into `names` of the wanted classes, in the order given (position k becomes label k, see
    `merged_classes`).

    Where all names are numbers (folders 1, 2, 10), an entry is the class of that name, as a number too: 1 is "01".
    Otherwise an int is an index; a string is a name or, where no class has that name, an index in digits. None means
    all.
    Raises DataError for an unknown class, a class given twice, or fewer than two classes.
    """
    if classes is None:
        classes = names
    if isinstance(classes, (str, int)) or not isinstance(classes, Sequence):
        raise DataError(
            f"data.classes={classes} is not a list; allowed: at least two classes, or null for all of them."
        )
    if [] in [list(entry) for entry in classes if _is_list(entry)]:
        raise DataError(f"data.classes={_shown(classes)} has an empty list in it; allowed: lists of classes.")
    entries = [each for entry in classes for each in (entry if _is_list(entry) else [entry])]
    find = _numbered if _are_numbers(names) else _class_index
    places = {name: index for index, name in reversed([*enumerate(names)])}
    seen = set()
    chosen = [find(entry, names, places) for entry in entries]
    for index in chosen:
        if index in seen:
            raise DataError(f"data.classes={_shown(classes)} names class {names[index]!r} twice; allowed: once.")
        seen.add(index)
    if len(classes) < 2:
        raise DataError(
            f"data.classes={_shown(classes)} has {len(classes)} class; allowed: two or more of {in_short(names)}."
        )
    return tuple(chosen)


def _are_numbers(names: Sequence[str]) -> bool:
    """Whether all names are numbers, and not each that of its place."""
    in_order = all(name == str(index) for index, name in enumerate(names))
    return not in_order and all(NUMBER.fullmatch(name) for name in names)


def _class_index(entry: int | float | str, names: Sequence[str], places: Mapping[str, int]) -> int:
    if isinstance(entry, str):
        if entry in places:
            return places[entry]
        if entry.isdecimal() and int(entry) < len(names):
            return int(entry)
    elif isinstance(entry, int) and not isinstance(entry, bool) and 0 <= entry < len(names):
        return entry
    close = closest(entry, names)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    raise DataError(
        f"data.classes: {entry!r} is no class of this data set{hint}; allowed: an index 0..{len(names) - 1} "
        f"or a name of {in_short(names)}."
    )


def _numbered(entry: int | float | str, names: Sequence[str], places: Mapping[str, int]) -> int:
    """The class whose name is this number; where several are (1, 01), the one spelled like it."""
    if str(entry) in places and not isinstance(entry, bool):
        return places[str(entry)]
    if NUMBER.fullmatch(str(entry)):
        same = [index for index, name in enumerate(names) if float(name) == float(entry)]
        if len(same) == 1:
            return same[0]
    raise DataError(
        f"data.classes: {entry!r} is no class of this data set, whose names are numbers; "
        f"allowed: a name of {in_short(names)}."
    )


def _shown(classes: Sequence[int | str]) -> str:
    return "[" + ", ".join(_shown(entry) if _is_list(entry) else str(entry) for entry in classes) + "]"


def in_short(names: Sequence[str], at_most: int = 20) -> str:
    """Names with commas, only the first where there are many."""
    rest = f", ... ({len(names)} in all)" if len(names) > at_most else ""
    return ", ".join(names[:at_most]) + rest


def split_off_test(labels: Tensor, names: Sequence[str], test_fraction: float) -> tuple[Tensor, Tensor]:
    """Rows of the training and of the test split, each in ascending order, stratified by class.

    The test split is part of the data set, not of the experiment: it does not depend on the run's seed, so that a
    backbone trained with one seed never meets another seed's test images. Every class gives round(fraction * n)
    images, at least one, and keeps at least one. Raises DataError for a class of fewer than two images.
    """
    is_test = torch.zeros(len(labels), dtype=torch.bool)
    for index, name in enumerate(names):
        rows = (labels == index).nonzero().squeeze(1)
        if len(rows) < 2:
            raise DataError(
                f"data.test_fraction={test_fraction:g} leaves nothing to train on in class {name!r}, "
                f"which has {len(rows)} image(s); allowed: 2 or more per class."
            )
        num_test = min(max(round(test_fraction * len(rows)), 1), len(rows) - 1)
        is_test[rows[_shuffled(len(rows), 0, f"data/test_split/{name}")[:num_test]]] = True
    return (~is_test).nonzero().squeeze(1), is_test.nonzero().squeeze(1)


def choose_rows(
    labels: Tensor,
    chosen: Sequence[int],
    names: Sequence[str],
    samples_per_class: int | Sequence[int] | None,
    seed: int,
) -> Tensor:
    """Rows of the wanted classes in ascending order: all of them, or `samples_per_class` of each (of class k the k-th).

    Each class is shuffled by itself with the seed and cut: the images of a class depend on nothing but the seed, and
    a smaller subset is contained in every larger one. Raises DataError for a class with fewer images than asked.
    """
    rows_per_class = []
    counts = samples_per_class if _is_list(samples_per_class) else [samples_per_class] * len(chosen)
    for index, count in zip(chosen, counts, strict=True):
        rows = (labels == index).nonzero().squeeze(1)
        if count is not None:
            if len(rows) < count:
                raise DataError(
                    f"data.samples_per_class={count} is more than class {names[index]!r} has; allowed: 1..{len(rows)}."
                )
            rows = rows[_shuffled(len(rows), seed, f"data/samples_per_class/{names[index]}")[:count]]
        rows_per_class.append(rows)
    return torch.cat(rows_per_class).sort().values


def relabel(labels: Tensor, chosen: Sequence[int | Sequence[int]], num_names: int) -> Tensor:
    """Labels 0..K-1 by position in `chosen`, whose entries are a class or several; -1 for classes that are in none."""
    position = torch.full((num_names,), -1, dtype=torch.int64)
    for label, members in enumerate(chosen):
        position[torch.tensor(members)] = label
    return position[labels]


def _shuffled(count: int, seed: int, purpose: str) -> Tensor:
    return torch.randperm(count, generator=generator(seed, purpose))
