"""Bring your own images: one folder per class, as torchvision's ImageFolder reads it."""

from torch import Tensor

from pipeline.data import DataError, Request, Source, data_set
from pipeline.data.class_folders import list_files, subfolders, test_folder, training_folder
from pipeline.data.image_files import read_images
from pipeline.data.selection import split_off_test


def class_names(request: Request) -> tuple[str, ...]:
    """The folder names in alphabetical order; folders whose name starts with a dot are not looked at."""
    return subfolders(training_folder(request.root))


def check(request: Request) -> None:
    """Raise DataError unless there are class folders, the same ones for both splits."""
    root, names, test = request.root, class_names(request), test_folder(request.root)
    if not names:
        raise DataError(f"data.root={root} has no class folders; allowed: <root>/<class>/* or <root>/train/<class>/*.")
    if test is not None and (unpaired := sorted(set(subfolders(test)) ^ set(names))):
        raise DataError(
            f"data.root={root} has class folders in only one of train and {test.name}: {', '.join(unpaired)}; "
            "allowed: the same in both."
        )


@data_set(classes=class_names, needs_root=True, check=check)
def image_folder(request: Request) -> Source:
    """`<root>/train/<class>/*` with `<root>/test|val/<class>/*`, or `<root>/<class>/*` with a test split set aside.

    Images are grey (C = 1) when every chosen file is stored as grey, colour (C = 3) otherwise. `image_size` scales the
    shorter side to that length and crops the middle square; without it all files must have one size.
    """
    names, tests = class_names(request), test_folder(request.root)
    train_paths, train_labels = list_files(training_folder(request.root), names)
    if tests is not None:
        test_paths, test_labels = list_files(tests, names)
    else:
        paths, labels = train_paths, train_labels
        train, test = split_off_test(labels, names, request.test_fraction)
        train_paths, train_labels = [paths[row] for row in train], labels[train]
        test_paths, test_labels = [paths[row] for row in test], labels[test]

    def read(train_rows: Tensor, test_rows: Tensor) -> tuple[Tensor, Tensor]:
        chosen = [train_paths[row] for row in train_rows] + [test_paths[row] for row in test_rows]
        images = read_images(chosen, request.image_size)
        return images[: len(train_rows)], images[len(train_rows) :]

    return Source(train_labels, test_labels, read)
