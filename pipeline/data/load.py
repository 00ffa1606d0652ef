"""From a data set's name to `ImageData`: validate the request, open, choose, read, standardise."""

import os
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor
from torch.nn.functional import interpolate

from pipeline.data.cifar import Cifar10
from pipeline.data.digits import Digits
from pipeline.data.files import download_missing
from pipeline.data.folder import ImageFolder
from pipeline.data.idx import FASHION_MNIST, MNIST
from pipeline.data.images import DataError, ImageData, Split
from pipeline.data.selection import choose_rows, relabel, resolve_classes
from pipeline.data.source import DataSet
from pipeline.runtime.memory import require_memory

DATA_SETS: dict[str, DataSet] = {
    "digits": Digits(),
    "mnist": MNIST,
    "fashion_mnist": FASHION_MNIST,
    "cifar10": Cifar10(),
    "image_folder": ImageFolder(),
}


def known_datasets() -> tuple[str, ...]:
    """The names `load_images` accepts."""
    return tuple(DATA_SETS)


def class_names(name: str, root: str | Path | None = None) -> tuple[str, ...]:
    """All class names of a data set in label order, without reading images; DataError if there is no such set."""
    dataset = _find(name)
    # Only an image folder has to look; the published sets know their classes before they are downloaded.
    folder = _existing_root(name, root) if dataset.needs_root and dataset.torchvision_name is None else None
    return dataset.class_names(folder)


def validate_request(
    name: str,
    *,
    root: str | Path | None = None,
    download: bool = False,
    classes: Sequence[int | str] | None = None,
    samples_per_class: int | None = None,
    test_fraction: float = 0.2,
    image_size: int | None = None,
) -> None:
    """Raise DataError for a request `load_images` would refuse, before any file is read.

    Checked: the data set's name, the presence of its files (unless it may be downloaded), the class list, and the
    ranges of the numbers. Found only by loading: damaged files, and a class with fewer images than asked for.
    """
    dataset = _find(name)
    for key, value in (("samples_per_class", samples_per_class), ("image_size", image_size)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise DataError(f"data.{key}={value} is out of range; allowed: an integer >= 1, or null.")
    if not 0 < test_fraction < 1:
        raise DataError(f"data.test_fraction={test_fraction} is out of range; allowed: 0 < test_fraction < 1.")
    if dataset.needs_root and root is None:
        raise DataError(f"data.root=null, but data={name} needs its files; allowed: the folder that holds them.")
    if dataset.needs_root and not (download and dataset.torchvision_name):
        dataset.check(_existing_root(name, root))
    resolve_classes(classes, class_names(name, root))


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
) -> ImageData:
    """Load a data set into memory: images uint8 (N, C, H, W), labels 0..K-1 in the order of `classes`.

    Args:
        name: one of `known_datasets()`.
        root: folder of the files, in torchvision's layout or (`image_folder`) one folder per class.
        download: let torchvision fetch missing files of a published set into `root`.
        classes: class names or indices, any mixture; None for all classes.
        samples_per_class: keep that many training images of each class, chosen by `seed`; the subset of a smaller
            number is contained in that of a larger one. The test split always keeps all images of the classes.
        test_fraction: share of each class set aside where the set has no test split of its own (`digits`, a flat
            `image_folder`); the same images whatever the seed.
        image_size: resize to (image_size, image_size); required where the files differ in size.
        seed: integer >= 0, used by `samples_per_class` only.

    Raises:
        DataError: for a bad request (see `validate_request`), a missing, damaged or unreadable file (named), images
            of different sizes, or a class with fewer training images than asked for.
    """
    validate_request(
        name,
        root=root,
        download=download,
        classes=classes,
        samples_per_class=samples_per_class,
        test_fraction=test_fraction,
        image_size=image_size,
    )
    dataset = _find(name)
    folder = Path(os.path.expanduser(root)) if dataset.needs_root else None
    if download and dataset.torchvision_name:
        download_missing(dataset.torchvision_name, folder)
        dataset.check(folder)
    names = dataset.class_names(folder)
    chosen = resolve_classes(classes, names)
    source = dataset.open(folder, test_fraction, image_size)
    train_rows = choose_rows(source.train_labels, chosen, names, samples_per_class, seed)
    test_rows = choose_rows(source.test_labels, chosen, names, None, seed)
    if image_size is not None:
        count = len(train_rows) + len(test_rows)
        require_memory(count * image_size**2, f"{count} images of data.image_size={image_size}")
    train_images, test_images = source.read(train_rows, test_rows)
    train = Split(_resized(train_images, image_size), relabel(source.train_labels[train_rows], chosen, len(names)))
    test = Split(_resized(test_images, image_size), relabel(source.test_labels[test_rows], chosen, len(names)))
    return ImageData.from_splits(name, train, test, tuple(names[index] for index in chosen))


def _resized(images: Tensor, image_size: int | None) -> Tensor:
    if image_size is None or images.shape[-2:] == (image_size, image_size):
        return images.contiguous()
    return interpolate(images, size=(image_size, image_size), mode="bilinear", antialias=True)


def _find(name: str) -> DataSet:
    if name not in DATA_SETS:
        raise DataError(f"data={name} is not a known data set; allowed: {', '.join(DATA_SETS)}.")
    return DATA_SETS[name]


def _existing_root(name: str, root: str | Path | None) -> Path:
    if root is None:
        raise DataError(f"data.root=null, but data={name} needs its files; allowed: the folder that holds them.")
    folder = Path(os.path.expanduser(root))
    if not folder.is_dir():
        raise DataError(f"data.root={root} is not an existing folder; allowed: the folder that holds {name}'s files.")
    return folder
