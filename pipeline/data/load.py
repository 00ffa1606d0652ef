"""From a data set's name to `ImageData`: validate the request, open, choose, read, standardise."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.data.assembly import assembled
from pipeline.data.files import download_missing
from pipeline.data.foreign import check_foreign, foreign_images, foreign_request
from pipeline.data.images import DataError, ImageData
from pipeline.data.names import shown
from pipeline.data.options import MADE_GROUPS, member
from pipeline.data.registry import DataSet, Request, data_sets, find, owners
from pipeline.data.selection import merged_classes
from pipeline.runtime.sections import own_settings
from pipeline.runtime.settings import typed
from pipeline.runtime.suggestions import did_you_mean


def class_names(name: str, root: str | Path | None = None, **settings: Any) -> tuple[str, ...]:
    """All class names of a data set in label order, without reading images; DataError if there is no such set."""
    request = _request(name, root=root, **settings)
    return _class_names(find(name), request)


def validate_request(name: str, **request: Any) -> None:
    """Raise DataError for a request `load_images` would refuse, before any file is read; the arguments are the same.

    Checked: the data set's name, its own settings, the presence of its files (unless they may be downloaded), the class
    list, and the ranges of the numbers. Found only by loading: damaged files, and a class with fewer images than asked
    for.
    """
    _validate(find(name), _request(name, **request))


def load_images(
    name: str,
    *,
    root: str | Path | None = None,
    download: bool = False,
    classes: Sequence[int | str] | None = None,
    samples_per_class: int | None = None,
    test_fraction: float | None = None,
    image_size: int | None = None,
    seed: int = 0,
    **settings: Any,
) -> ImageData:
    """Load a data set into memory: images (N, C, H, W) as in `Split`, labels 0..K-1 in the order of `classes`.

    Args:
        name: one of `known_datasets()`.
        root: folder of the files, in torchvision's layout or (`image_folder`) one folder per class.
        download: let torchvision fetch missing files of a published set into `root`.
        classes: class names or indices, any mixture; names alone where all are numbers; None for all classes. An
            entry that is a list of them makes one class of several.
        samples_per_class: keep that many training images of each class, chosen by `seed`; the subset of a smaller
            number is contained in that of a larger one. The test split always keeps all images of the classes.
        test_fraction: share of each class set aside where the set has no test split of its own (`digits`, a flat
            `image_folder`); the same images whatever the seed. None: a fifth, of a text a tenth.
        image_size: resize to (image_size, image_size); required where the files differ in size.
        seed: integer >= 0, used by `samples_per_class`, and by data sets that are generated.
        settings: ``imbalance, group, group_share, flip, random_labels, foreign, foreign_root, storage, cache`` as
            docs/recipes.md describes them; and the data set's own settings by name, where those of other data sets may
            be given at their defaults.

    Raises:
        DataError: for a bad request (see `validate_request`), a missing, damaged or unreadable file (named), images
            of different sizes, or a class with fewer training images than asked for.
    """
    request = _request(
        name,
        root=root,
        download=download,
        classes=classes,
        samples_per_class=samples_per_class,
        test_fraction=test_fraction,
        image_size=image_size,
        seed=seed,
        **settings,
    )
    dataset = find(name)
    _validate(dataset, request)
    _fetch(dataset, request)
    if request.foreign is None:
        return assembled(dataset, request)
    other = find(request.foreign)
    _fetch(other, foreign_request(request))
    return assembled(dataset, request, lambda known: foreign_images(dataset, other, request, known))


def _fetch(dataset: DataSet, request: Request) -> None:
    """Download what is missing, where that is asked for and can be done."""
    if _is_fetched(dataset, request):
        download_missing(dataset.torchvision, request.root, dataset.downloads)
        dataset.check(request)


SHARED = frozenset(Request.__dataclass_fields__) - {"settings"}
"""What can be asked of every data set."""


def _request(name: str, root: str | Path | None = None, **wanted: Any) -> Request:
    shared = {key: value for key, value in wanted.items() if key in SHARED}
    own = {key: value for key, value in wanted.items() if key not in SHARED}
    folder = None if root is None else Path(os.path.expanduser(root))
    for key in ("foreign_root", "cache"):
        if shared.get(key) is not None:
            shared[key] = Path(os.path.expanduser(shared[key]))
    if shared.get("test_fraction") is None:
        shared["test_fraction"] = find(name).test_fraction
    try:
        return Request(root=folder, settings=own_settings("data", name, owners(), own), **shared)
    except DataError:
        raise
    except ValueError as error:  # of a setting of the data set's own
        raise DataError(str(error)) from error


def _validate(dataset: DataSet, request: Request) -> None:
    _require_root(dataset, request)
    _check_kind(dataset, request)
    if not _is_fetched(dataset, request):
        dataset.check(request)
    _, names = merged_classes(request.classes, _class_names(dataset, request))
    if flip := request.flips:
        for key, entry in (("from", flip.source), ("to", flip.target)):
            if entry is not None:
                member(f"data.flip.{key}", entry, names, "class")
        if flip.group is not None and request.group is not None:
            member("data.flip.group", flip.group, MADE_GROUPS, "group")
    if request.foreign is not None:
        _check_foreign(dataset, request)


def _check_kind(dataset: DataSet, request: Request) -> None:
    """Refuse what only images have, and of a text what only samples with one label each have."""
    refused = {} if dataset.kind == "images" else {"image_size": None}
    if dataset.kind == "text":
        refused |= {"classes": None, "samples_per_class": None, "imbalance": None, "random_labels": False}
        refused |= {"group": None, "foreign": None}
    for key, only in refused.items():
        if (value := getattr(request, key)) != only:
            raise DataError(
                f"data.{key}={typed(value)} does not go with data={dataset.name}, which holds {dataset.kind} and no "
                f"images; allowed: data.{key}={typed(only)}."
            )
    if dataset.kind == "text" and request.flips:
        raise DataError(f"data.flip.rate={request.flips.rate:g} does not go with data={dataset.name}; allowed: 0.")
    if dataset.kind == "vectors" and request.group == "patch":
        raise DataError(
            f"data.group=patch does not go with data={dataset.name}, which holds vectors; allowed: invert, or null."
        )


def _check_foreign(dataset: DataSet, request: Request) -> None:
    if request.foreign not in data_sets():
        hint = did_you_mean(request.foreign, data_sets())
        raise DataError(
            f"data.foreign={request.foreign} is not known; allowed: {', '.join(data_sets())}, or null{hint}."
        )
    other = find(request.foreign)
    check_foreign(dataset, other, request)
    try:
        asked = foreign_request(request)
        _require_root(other, asked)
        if not _is_fetched(other, asked):
            other.check(asked)
    except DataError as error:
        raise DataError(f"data.foreign={request.foreign}: {error}") from error


def _class_names(dataset: DataSet, request: Request) -> tuple[str, ...]:
    if not dataset.knows_its_classes:  # published sets know theirs before they are downloaded
        _require_root(dataset, request)
    return dataset.class_names(request)


def _require_root(dataset: DataSet, request: Request) -> None:
    root, name = request.root, dataset.name
    if dataset.needs_root and root is None:
        raise DataError(f"data.root=null, but data={name} needs its files; allowed: the folder that holds them.")
    if dataset.takes_file and not root.exists():
        raise DataError(f"data.root={shown(root)} does not exist; allowed: a file, or the folder that holds it.")
    if dataset.needs_root and not (_is_fetched(dataset, request) or dataset.takes_file or root.is_dir()):
        raise DataError(f"data.root={root} is not an existing folder; allowed: the folder that holds {name}'s files.")


def _is_fetched(dataset: DataSet, request: Request) -> bool:
    """Whether files that are missing will be downloaded."""
    return request.download and dataset.torchvision is not None
