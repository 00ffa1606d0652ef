"""What a data set has to offer: its class names, a cheap check, and labels first, images on demand."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from torch import Tensor


@dataclass(frozen=True, eq=False)
class Source:
    """An opened data set: all labels, and images for the rows that are wanted.

    train_labels, test_labels: (N,) int64, indices into the data set's class names.
    read(train_rows, test_rows): the uint8 images (n, C, H, W) of both splits, equal in C, H and W.
    """

    train_labels: Tensor
    test_labels: Tensor
    read: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]

    @classmethod
    def of_tensors(cls, train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor]) -> "Source":
        """From (images, labels) of both splits, already in memory."""
        return cls(train[1], test[1], lambda train_rows, test_rows: (train[0][train_rows], test[0][test_rows]))


class DataSet(Protocol):
    """One entry of the table of data sets in `pipeline.data.load`.

    `root` is an existing folder wherever `needs_root`; `torchvision_name` is the class that can download the set.
    """

    needs_root: bool
    torchvision_name: str | None

    def class_names(self, root: Path | None) -> tuple[str, ...]:
        """All class names in label order, without reading an image."""

    def check(self, root: Path | None) -> None:
        """Raise DataError when something is missing under `root`; reads no file."""

    def open(self, root: Path | None, test_fraction: float, image_size: int | None) -> Source:
        """Read and verify what `check` found; DataError here or in `Source.read` names a bad file."""
