"""Data sets and how they register: a file in `pipeline/data/sets` with a function under `@data_set`.

    @data_set(classes=("circle", "square"))
    def shapes(request: Request) -> Source:
        ...
        return Source.of_tensors((train_images, train_labels), (test_images, test_labels))

The function is named like its file, and that is what the data set is called. Settings of its own are a dataclass of
`knob` fields, passed to `@data_set` as ``settings``: they become keys of the section ``data`` and keywords of
`load_images`, and the function finds them in `request.settings`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from torch import Tensor

from pipeline.data.images import DataError
from pipeline.data.options import Flip
from pipeline.data.settings import GROUPS, SETS, STORAGES
from pipeline.runtime.discovery import registered
from pipeline.runtime.suggestions import did_you_mean

TEST_FRACTION = 0.2
"""Share of each class that is set aside for testing where nothing else is asked for."""


@dataclass(frozen=True)
class Request:
    """What is asked of a data set: the settings that all share, and its own. Raises DataError for a bad number.

    root: folder of the files, which exists wherever the data set needs one.
    download, classes, samples_per_class: as asked for; whoever opens a data set sees to them.
    test_fraction: what to set aside where the data set has no test split (see `selection.split_off_test`).
    image_size: side length wanted. Images that are all of one size can be left as they are: they are scaled afterwards.
    seed: of the run, for data that are generated.
    imbalance, group, group_share, flip, random_labels: see `pipeline.data.options`.
    foreign, foreign_root: the data set whose rows become the split `foreign`, and its folder (null: `root`).
    storage, cache: where decoded images lie, see `pipeline.data.disk_store`.
    settings: an instance of the data set's own dataclass, or None.
    """

    root: Path | None = None
    download: bool = False
    classes: Sequence[int | str] | None = None
    samples_per_class: int | None = None
    test_fraction: float = TEST_FRACTION
    image_size: int | None = None
    seed: int = 0
    imbalance: float | None = None
    group: str | None = None
    group_share: float = 0.5
    flip: Mapping[str, Any] | None = None
    random_labels: bool = False
    foreign: str | None = None
    foreign_root: Path | None = None
    storage: str = "auto"
    cache: Path | None = None
    settings: Any = None

    def __post_init__(self) -> None:
        for key in ("samples_per_class", "image_size"):
            value = getattr(self, key)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise DataError(f"data.{key}={value} is out of range; allowed: an integer >= 1, or null.")
        if not 0 < self.test_fraction < 1:
            raise DataError(f"data.test_fraction={self.test_fraction} is out of range; allowed: 0 < test_fraction < 1.")
        if self.imbalance is not None and not (_is_number(self.imbalance) and 0 < self.imbalance <= 1):
            raise DataError(f"data.imbalance={self.imbalance} is out of range; allowed: 0 < imbalance <= 1, or null.")
        if not (_is_number(self.group_share) and 0 < self.group_share < 1):
            raise DataError(f"data.group_share={self.group_share} is out of range; allowed: 0 < group_share < 1.")
        if self.group is not None and self.group not in GROUPS:
            hint = did_you_mean(self.group, GROUPS)
            raise DataError(f"data.group={self.group} is not known; allowed: {', '.join(GROUPS)}, or null{hint}.")
        if not isinstance(self.random_labels, bool):
            raise DataError(f"data.random_labels={self.random_labels} is out of range; allowed: true, false.")
        if Flip.of(self.flip) is not None and self.random_labels:
            raise DataError(
                f"data.random_labels=true leaves nothing for data.flip.rate={self.flip['rate']:g} to flip; allowed: "
                "one of them."
            )
        if self.storage not in STORAGES:
            raise DataError(f"data.storage={self.storage} is not known; allowed: {', '.join(STORAGES)}.")
        if self.storage == "disk" and self.cache is None:
            raise DataError("data.storage=disk needs data.cache, which is null; allowed: a folder.")
        if self.storage == "disk" and self.group is not None:
            raise DataError(
                f"data.group={self.group} changes images, which data.storage=disk keeps as they are; allowed: "
                "data.storage=memory, or data.group=null with a groups.csv."
            )
        if self.foreign is None and self.foreign_root is not None:
            raise DataError(
                f"data.foreign_root={self.foreign_root} belongs to data.foreign, which is null; allowed: a data set "
                "there, or data.foreign_root=null."
            )

    @property
    def flips(self) -> Flip | None:
        """Which labels are to be flipped, if any."""
        return Flip.of(self.flip)


@dataclass(frozen=True, eq=False)
class Source:
    """An opened data set: all labels, and images for the rows that are wanted.

    train_labels, test_labels: (N,) int64, indices into the data set's class names.
        Of text (N, T), one for each position.
    read(train_rows, test_rows): the images (n, C, H, W) of both splits, equal in C, H, W and dtype; see `Split`.
    files(train_rows, test_rows): the image files of both splits that `read` decodes, where it does nothing else; such
        images can be kept on disk.
    groups(train_rows, test_rows): the groups (n,) int64 of both splits and their names, where the files tell them.
    given: the labels of both splits that training is told, where these are not the true ones.
    sha256: of what was read, for the record, where the name of the data set does not say what that is.
    """

    train_labels: Tensor
    test_labels: Tensor
    read: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
    groups: Callable[[Tensor, Tensor], tuple[Tensor, Tensor, tuple[str, ...]]] | None = None
    given: tuple[Tensor, Tensor] | None = None
    sha256: str | None = None
    files: Callable[[Tensor, Tensor], tuple[list[Path], list[Path]]] | None = None

    @classmethod
    def of_tensors(
        cls,
        train: tuple[Tensor, Tensor],
        test: tuple[Tensor, Tensor],
        given: tuple[Tensor, Tensor] | None = None,
        sha256: str | None = None,
    ) -> "Source":
        """From (images, labels) of both splits, already in memory."""

        def read(train_rows: Tensor, test_rows: Tensor) -> tuple[Tensor, Tensor]:
            return train[0][train_rows], test[0][test_rows]

        return cls(train[1], test[1], read, given=given, sha256=sha256)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _nothing_can_be_missing(request: Request) -> None:
    """The check of a data set that brings all it needs."""


@dataclass(frozen=True)
class DataSet:
    """A registered data set.

    name: of its file.
    open: reads and verifies everything; DataError, here or in `Source.read`, names a bad file.
    classes: class names in label order, or a function that finds them without reading an image.
    needs_root: whether there is nothing without `data.root`.
    torchvision: name of the class in `torchvision.datasets` that can download the files, if there is one.
    downloads: arguments of each call of that class, where it fetches only what these say.
    check: raises DataError if something is missing or settings do not go together; reads no file.
    settings: dataclass of its own settings, if it has any.
    kind: ``images``, ``vectors`` or ``text``, see `ImageData.kind`. Of vectors the own settings may derive from
        `pipeline.data.vector_rows.VectorSettings`; they are then standardised as these say.
    takes_file: whether `data.root` may be a file.
    test_fraction: what is set aside for testing where that is not asked for, and there is no test split.
    """

    name: str
    open: Callable[[Request], Source]
    classes: tuple[str, ...] | Callable[[Request], tuple[str, ...]]
    needs_root: bool = False
    torchvision: str | None = None
    check: Callable[[Request], None] = _nothing_can_be_missing
    settings: type | None = None
    kind: str = "images"
    takes_file: bool = False
    test_fraction: float = TEST_FRACTION
    downloads: tuple[Mapping[str, str], ...] = ({},)

    @property
    def knows_its_classes(self) -> bool:
        """Whether the class names are the same for every request."""
        return not callable(self.classes)

    def class_names(self, request: Request) -> tuple[str, ...]:
        """All class names in label order, without reading an image."""
        return self.classes if self.knows_its_classes else self.classes(request)


def data_set(
    classes: Sequence[str] | Callable[[Request], tuple[str, ...]],
    *,
    needs_root: bool = False,
    torchvision: str | None = None,
    check: Callable[[Request], None] = _nothing_can_be_missing,
    settings: type | None = None,
    kind: str = "images",
    takes_file: bool = False,
    test_fraction: float = TEST_FRACTION,
    downloads: tuple[Mapping[str, str], ...] = ({},),
) -> Callable[[Callable[[Request], Source]], DataSet]:
    """Decorator of the function that opens a data set; for the arguments see `DataSet`."""

    def register(open_: Callable[[Request], Source]) -> DataSet:
        name = open_.__module__.rpartition(".")[2]
        names = classes if callable(classes) else tuple(classes)
        return DataSet(
            name, open_, names, needs_root, torchvision, check, settings, kind, takes_file, test_fraction, downloads
        )

    return register


@cache
def data_sets() -> dict[str, DataSet]:
    """All registered data sets by name."""
    return registered(SETS, DataSet)


def find(name: str) -> DataSet:
    """The data set of that name; DataError if there is none."""
    if name not in data_sets():
        raise DataError(f"data={name} is not a known data set; allowed: {', '.join(data_sets())}.")
    return data_sets()[name]


def owners() -> dict[str, type | None]:
    """Data set -> the dataclass of its own settings, None if it has none."""
    return {name: dataset.settings for name, dataset in data_sets().items()}
