"""CIFAR's format: pickled batches, read by torchvision after a check that says which file is bad."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline.data.files import check_md5, require_files
from pipeline.data.registry import Request, Source


@dataclass(frozen=True)
class PickledBatches:
    """A data set of torchvision's in CIFAR's format.

    dataset: name of the class in `torchvision.datasets`, which says the folder, the files and their MD5s.
    folder: where they are, below the root.
    """

    dataset: str
    folder: str

    def check(self, request: Request) -> None:
        """Raise DataError unless all files are there."""
        require_files(request.root, self.folder, self.checksums())

    def open(self, request: Request) -> Source:
        """Read and verify them; DataError names a damaged file."""
        # torchvision checks the same sums, but only says "not found or corrupted"; it must never unpickle a bad file.
        for name, md5 in self.checksums().items():
            path = request.root / self.folder / name
            check_md5(path, path.read_bytes(), md5)
        return Source.of_tensors(self._read(request.root, train=True), self._read(request.root, train=False))

    def checksums(self) -> dict[str, str]:
        """Published MD5s by file name."""
        published = self._published()
        meta = published.meta
        return {**dict(published.train_list), **dict(published.test_list), meta["filename"]: meta["md5"]}

    def _published(self) -> Any:
        from torchvision import datasets

        return getattr(datasets, self.dataset)

    def _read(self, root: Path, train: bool) -> tuple[Tensor, Tensor]:
        split = self._published()(root, train=train)
        return torch.from_numpy(split.data).permute(0, 3, 1, 2), torch.tensor(split.targets)
