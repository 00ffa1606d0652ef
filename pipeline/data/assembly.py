"""From an opened data set and a request to `ImageData`: choose rows, read them, give them labels and groups."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from pipeline.data.disk_store import DiskStore
from pipeline.data.images import DataError, ImageData, Split
from pipeline.data.mapped import MappedRows
from pipeline.data.options import MADE_GROUPS, draw_groups, flipped, long_tail, mark, shuffled_labels
from pipeline.data.registry import DataSet, Request, Source
from pipeline.data.selection import choose_rows, merged_classes, relabel
from pipeline.data.vector_rows import VectorSettings, scaling
from pipeline.runtime.memory import free_memory, require_memory

Foreign = Callable[[Tensor], Tensor]
"""From the known training images to the images of a foreign data set, of the same shape and dtype."""


def assembled(dataset: DataSet, request: Request, foreign: Foreign | None = None) -> ImageData:
    """The data set as it is asked for; `foreign` makes the rows of the third split."""
    source = dataset.open(request)
    if dataset.kind == "text":
        return _text(dataset, request, source)
    members, names = merged_classes(request.classes, all_names := dataset.class_names(request))
    labels = [relabel(given, members, len(all_names)) for given in (source.train_labels, source.test_labels)]
    train_rows = _training_rows(request, labels[0], names)
    test_rows = choose_rows(labels[1], range(len(names)), names, None, request.seed)
    images, mapped = _images(dataset, request, source, train_rows, test_rows)
    more = foreign(images["train"]) if foreign else None
    prepare = _preparation(request, images["train"])
    groups, group_names = _groups(
        request, source, train_rows, test_rows, (labels[0][train_rows], labels[1][test_rows]), names
    )
    train, test = (
        _split(request, prepare(images[name]), own[rows], group)
        for name, own, rows, group in zip(("train", "test"), labels, (train_rows, test_rows), groups, strict=True)
    )
    given = _given(request, train, names, group_names)
    train, test = replace(train, given=given, mapped=mapped), replace(test, mapped=mapped)
    third = None if more is None else _unlabelled(prepare(more))
    return ImageData.from_splits(dataset.name, train, test, names, group_names, third)


def _text(dataset: DataSet, request: Request, source: Source) -> ImageData:
    every = [torch.arange(len(labels)) for labels in (source.train_labels, source.test_labels)]
    given = source.given or (None, None)
    train, test = (
        Split(tokens, labels, given=told)
        for tokens, labels, told in zip(
            source.read(*every), (source.train_labels, source.test_labels), given, strict=True
        )
    )
    return ImageData.from_splits(dataset.name, train, test, dataset.class_names(request), sha256=source.sha256)


def _training_rows(request: Request, labels: Tensor, names: tuple[str, ...]) -> Tensor:
    wanted = request.samples_per_class
    if request.imbalance is not None:
        available = torch.bincount(labels[labels >= 0], minlength=len(names)).tolist()
        wanted = long_tail(available, request.imbalance, request.samples_per_class, names)
    return choose_rows(labels, range(len(names)), names, wanted, request.seed)


def _images(
    dataset: DataSet, request: Request, source: Source, train_rows: Tensor, test_rows: Tensor
) -> tuple[dict[str, Tensor], MappedRows | None]:
    """The images of both splits, and the file that they are rows of, if they lie on disk."""
    count = len(train_rows) + len(test_rows)
    if request.storage == "disk" and source.files is None:
        raise DataError(
            f"data.storage=disk does not go with data={dataset.name}, which is read whole; allowed: data.storage=auto, "
            "memory, or a folder of images."
        )
    if source.files is not None and request.cache is not None and request.storage != "memory":
        train, test = source.files(train_rows, test_rows)
        store = DiskStore(request.cache, [*train, *test], request.image_size)
        if request.storage == "disk" or (request.group is None and store.needed_bytes() > free_memory() // 2):
            mapped = store.open()
            parts = mapped.rows[: len(train_rows)], mapped.rows[len(train_rows) :]
            return dict(zip(("train", "test"), parts, strict=True)), mapped
    if request.image_size is not None:
        require_memory(count * request.image_size**2, f"{count} images of data.image_size={request.image_size}")
    return dict(zip(("train", "test"), source.read(train_rows, test_rows), strict=True)), None


def _preparation(request: Request, train: Tensor) -> Callable[[Tensor], Tensor]:
    """What is done to the images of all splits."""
    if isinstance(request.settings, VectorSettings):
        return scaling(train, request.settings.standardize)
    return lambda images: resized(images, request.image_size)


def _groups(
    request: Request,
    source: Source,
    train_rows: Tensor,
    test_rows: Tensor,
    labels: tuple[Tensor, Tensor],
    names: tuple[str, ...],
) -> tuple[tuple[Tensor | None, Tensor | None], tuple[str, ...]]:
    """The groups of the samples of both splits, (n,) each, and their names."""
    if source.groups is not None:
        if request.group is not None:
            raise DataError(
                f"data.group={request.group} would make groups beside those that the data set's files tell; allowed: "
                "data.group=null."
            )
        *groups, found = source.groups(train_rows, test_rows)
        return tuple(groups), found
    if request.group is None:
        return (None, None), ()
    made = (
        draw_groups(own, names, request.group_share, request.seed, split)
        for own, split in zip(labels, ("train", "test"), strict=True)
    )
    return tuple(made), MADE_GROUPS


def _split(request: Request, images: Tensor, labels: Tensor, groups: Tensor | None) -> Split:
    return Split(images if request.group is None else mark(images, groups, request.group), labels, groups)


def _given(request: Request, train: Split, names: tuple[str, ...], group_names: tuple[str, ...]) -> Tensor | None:
    if request.random_labels:
        return shuffled_labels(train.labels, request.seed)
    if request.flips is not None:
        return flipped(train.labels, train.groups, request.flips, names, group_names, request.seed)
    return None


def _unlabelled(images: Tensor) -> Split:
    return Split(images, torch.full((len(images),), -1, dtype=torch.int64))


def resized(images: Tensor, image_size: int | None) -> Tensor:
    """Images scaled to (image_size, image_size); as they are without one."""
    return images.contiguous() if image_size is None else scaled(images, image_size, image_size)


def scaled(images: Tensor, height: int, width: int) -> Tensor:
    """Images of that size."""
    if images.shape[-2:] == (height, width):
        return images.contiguous()
    return interpolate(images, size=(height, width), mode="bilinear", antialias=True)
