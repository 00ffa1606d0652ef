"""Images in Arrow or Parquet files, as the library `datasets` keeps them."""

from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.data import Request, Source, data_set
from pipeline.data.image_files import read_images
from pipeline.data.selection import split_off_test
from pipeline.data.tables import Shard, check_names, encoded_images, find_splits, labels_of, require_pyarrow
from pipeline.data.tables import class_names as names_of
from pipeline.runtime.settings import knob


@dataclass(frozen=True)
class Settings:
    """Of Arrow and Parquet files."""

    image_column: str = knob("image", "column of the encoded images")
    label_column: str = knob("label", "column of the labels, numbers or text")


def class_names(request: Request) -> tuple[str, ...]:
    """As the files tell them, or else the distinct labels."""
    return names_of(_shards(request)[0])


def check(request: Request) -> None:
    """Raise DataError unless pyarrow is installed, and there are files with these columns and the same class names."""
    train, test = _shards(request)
    for shard in (*train, *test):
        shard.check()
        check_names(shard, train[0].told_names)


@data_set(classes=class_names, needs_root=True, check=check, settings=Settings)
def parquet(request: Request) -> Source:
    """Every .parquet and .arrow file below `data.root`; splits by their names, or a test split set aside.

    Each image is decoded, and one that cannot be is named by its file and row. Sizes and channels as of `image_folder`.
    """
    train_shards, test_shards = _shards(request)
    names = names_of(train_shards)
    labels = [labels_of(shards, names) if shards else None for shards in (train_shards, test_shards)]
    whole = (train_shards, [len(shard.labels()) for shard in train_shards])
    if test_shards:
        rows = [torch.arange(len(own)) for own in labels]
        files = [whole, (test_shards, [len(shard.labels()) for shard in test_shards])]
        train_labels, test_labels = labels
    else:
        rows, files = split_off_test(labels[0], names, request.test_fraction), [whole, whole]
        train_labels, test_labels = (labels[0][part] for part in rows)

    def read(train_rows: Tensor, test_rows: Tensor) -> tuple[Tensor, Tensor]:
        wanted = (rows[0][train_rows], rows[1][test_rows])
        chosen = [encoded_images(*own, part) for own, part in zip(files, wanted, strict=True)]
        images = read_images([*chosen[0], *chosen[1]], request.image_size)
        return images[: len(train_rows)], images[len(train_rows) :]

    return Source(train_labels, test_labels, read)


def _shards(request: Request) -> tuple[list[Shard], list[Shard]]:
    """Of both splits."""
    require_pyarrow()
    settings = request.settings
    return tuple(
        [Shard(path, settings.image_column, settings.label_column) for path in files]
        for files in find_splits(request.root)
    )
