"""From a data set's name to `ImageData`: validate the request, open, choose, read, standardise."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.nn.functional import interpolate

from pipeline.data.files import download_missing
from pipeline.data.images import DataError, ImageData, Split
from pipeline.data.names import shown
from pipeline.data.registry import DataSet, Request, data_sets, find, owners
from pipeline.data.selection import choose_rows, relabel, resolve_classes
from pipeline.data.vector_rows import VectorSettings, scaling
from pipeline.runtime.memory import require_memory
from pipeline.runtime.sections import own_settings


def known_datasets() -> tuple[str, ...]:
    """The names `load_images` accepts."""
    return tuple(data_sets())


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
    test_fraction: float = 0.2,
    image_size: int | None = None,
    seed: int = 0,
    **settings: Any,
) -> ImageData:
    """Load a data set into memory: images (N, C, H, W) as in `Split`, labels 0..K-1 in the order of `classes`.

    Args:
        name: one of `known_datasets()`.
        root: folder of the files, in torchvision's layout or (`image_folder`) one folder per class.
        download: let torchvision fetch missing files of a published set into `root`.
        classes: class names or indices, any mixture; names alone where all are numbers; None for all classes.
        samples_per_class: keep that many training images of each class, chosen by `seed`; the subset of a smaller
            number is contained in that of a larger one. The test split always keeps all images of the classes.
        test_fraction: share of each class set aside where the set has no test split of its own (`digits`, a flat
            `image_folder`); the same images whatever the seed.
        image_size: resize to (image_size, image_size); required where the files differ in size.
        seed: integer >= 0, used by `samples_per_class`, and by data sets that are generated.
        settings: the data set's own settings by name; those of other data sets may be given at their defaults.

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
    if _is_fetched(dataset, request):
        download_missing(dataset.torchvision, request.root)
        dataset.check(request)
    names = dataset.class_names(request)
    chosen = resolve_classes(classes, names)
    source = dataset.open(request)
    train_rows = choose_rows(source.train_labels, chosen, names, samples_per_class, seed)
    test_rows = choose_rows(source.test_labels, chosen, names, None, seed)
    if image_size is not None:
        count = len(train_rows) + len(test_rows)
        require_memory(count * image_size**2, f"{count} images of data.image_size={image_size}")
    train_images, test_images = source.read(train_rows, test_rows)
    if isinstance(request.settings, VectorSettings):
        scale = scaling(train_images, request.settings.standardize)
        train_images, test_images = scale(train_images), scale(test_images)
    train = Split(_resized(train_images, image_size), relabel(source.train_labels[train_rows], chosen, len(names)))
    test = Split(_resized(test_images, image_size), relabel(source.test_labels[test_rows], chosen, len(names)))
    return ImageData.from_splits(name, train, test, tuple(names[index] for index in chosen))


SHARED = frozenset(Request.__dataclass_fields__) - {"settings"}
"""What can be asked of every data set."""


def _request(name: str, root: str | Path | None = None, **wanted: Any) -> Request:
    shared = {key: value for key, value in wanted.items() if key in SHARED}
    own = {key: value for key, value in wanted.items() if key not in SHARED}
    folder = None if root is None else Path(os.path.expanduser(root))
    find(name)
    try:
        return Request(root=folder, settings=own_settings("data", name, owners(), own), **shared)
    except DataError:
        raise
    except ValueError as error:  # of a setting of the data set's own
        raise DataError(str(error)) from error


def _validate(dataset: DataSet, request: Request) -> None:
    _require_root(dataset, request)
    if dataset.kind != "images" and request.image_size is not None:
        raise DataError(
            f"data.image_size={request.image_size} does not go with data={dataset.name}, which holds {dataset.kind} "
            "and no images; allowed: data.image_size=null."
        )
    if not _is_fetched(dataset, request):
        dataset.check(request)
    resolve_classes(request.classes, _class_names(dataset, request))


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


def _resized(images: Tensor, image_size: int | None) -> Tensor:
    if image_size is None or images.shape[-2:] == (image_size, image_size):
        return images.contiguous()
    return interpolate(images, size=(image_size, image_size), mode="bilinear", antialias=True)
