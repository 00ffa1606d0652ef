"""Tiny-ImageNet, and other folders in its layout: class folders to train on, annotated images to test on."""

import logging
from collections import Counter
from pathlib import Path

import torch
from torch import Tensor

from pipeline.data import DataError, Request, Source, data_set
from pipeline.data.class_folders import subfolders
from pipeline.data.image_files import read_images
from pipeline.data.names import shown
from pipeline.data.samples import entries, in_words, is_image, list_samples
from pipeline.data.selection import in_short

log = logging.getLogger(__name__)

FOLDER, ANNOTATIONS = "tiny-imagenet-200", "val_annotations.txt"


def class_names(request: Request) -> tuple[str, ...]:
    """The folders below ``train``, in alphabetical order."""
    return subfolders(_place(request.root) / "train")[0]


def check(request: Request) -> None:
    """Raise DataError unless there are class folders and annotations."""
    place = _place(request.root)
    if not class_names(request):
        raise DataError(f"{shown(place / 'train')} has no class folders; allowed: train/<class>/images/*.")
    if not (place / "val" / ANNOTATIONS).is_file():
        raise DataError(f"{shown(place)}: the file val/{ANNOTATIONS} is missing.")


@data_set(classes=class_names, needs_root=True, check=check)
def tiny_imagenet(request: Request) -> Source:
    """`train/<class>/images/*` and `val/images/*` with their classes in `val/val_annotations.txt`.

    They lie right in the root or in its folder tiny-imagenet-200. Images without labels (`test`) are not read. Nobody
    publishes sums of the files: each one is decoded, and one that cannot be is named.
    """
    place = _place(request.root)
    names = class_names(request)
    train = list_samples(place / "train", names)
    test_paths, test_labels = _annotated(place / "val", names)
    if left_out := Counter({kind: count for kind, count in train.left_out.items() if kind != ".txt"}):
        log.warning("data.root=%s: not read: %s", shown(request.root), in_words(left_out))

    def files(train_rows: Tensor, test_rows: Tensor) -> tuple[list[Path], list[Path]]:
        return [train.paths[row] for row in train_rows], [test_paths[row] for row in test_rows]

    def read(train_rows: Tensor, test_rows: Tensor) -> tuple[Tensor, Tensor]:
        chosen, other = files(train_rows, test_rows)
        images = read_images(chosen + other, request.image_size)
        return images[: len(train_rows)], images[len(train_rows) :]

    return Source(train.labels, test_labels, read, files=files)


def _place(root: Path) -> Path:
    """The folder that holds ``train`` and ``val``; DataError if there is none."""
    for place in (root, root / FOLDER):
        if (place / "train").is_dir() and (place / "val").is_dir():
            return place
    raise DataError(
        f"data.root={shown(root)} has no folders train and val; allowed: a folder that has them, or that of {FOLDER}."
    )


def _annotated(folder: Path, names: tuple[str, ...]) -> tuple[list[Path], Tensor]:
    """Paths of the annotated images, and their classes (N,) int64."""
    number, labels = {name: index for index, name in enumerate(names)}, {}
    text = (folder / ANNOTATIONS).read_text(errors="replace")
    for line_number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        file, _, rest = line.partition("\t")
        name = rest.split("\t")[0].strip()
        if name not in number:
            raise DataError(
                f"{shown(folder / ANNOTATIONS)}, line {line_number}: {name or 'nothing'} is no class; allowed: a file, "
                f"a tab and one of {in_short(names, 5)}."
            )
        labels[file.strip()] = number[name]
    images = folder / "images"
    lying = [entry.name for entry in entries(images) if is_image(entry.name) and not entry.name.startswith(".")]
    if unknown := sorted(set(lying) - labels.keys()):
        raise DataError(
            f"{shown(folder / ANNOTATIONS)} names no class for {len(unknown)} image(s), first {unknown[0]}."
        )
    if missing := sorted(labels.keys() - set(lying)):
        raise DataError(f"{shown(images)}: {len(missing)} annotated image(s) are missing, first {missing[0]}.")
    if absent := sorted(set(names) - {names[label] for label in labels.values()}):
        raise DataError(
            f"{shown(folder / ANNOTATIONS)} has no image of the class {absent[0]}; allowed: one or more of each."
        )
    return [images / file for file in labels], torch.tensor(list(labels.values()), dtype=torch.int64)
