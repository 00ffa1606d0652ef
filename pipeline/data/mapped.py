"""Images in a file on disk that looks like a tensor: mapped into memory, and read without being there."""

import mmap
import os
import weakref
from pathlib import Path

import numpy as np
import torch
from torch import Tensor


class MappedRows:
    """Rows (N, C, H, W) uint8 of a file, which no one may write to.

    `rows` is a tensor that is mapped: whatever is looked at of it stays in the process's memory until `release`, and
    systems map more than what is looked at. `read` copies rows out of the file without mapping them.

    Args:
        path: the file, N C H W bytes.
        shape: (N, C, H, W).
    """

    def __init__(self, path: Path, shape: tuple[int, ...]) -> None:
        self._path = path
        self._descriptor = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._descriptor)
        self._map = np.memmap(path, np.uint8, "c", shape=shape)  # "c": a tensor wants memory it could write to
        self.rows = torch.from_numpy(self._map)

    def read(self, images: Tensor, rows: Tensor) -> Tensor:
        """``images[rows]``, where `images` are consecutive rows of these, and `rows` are on the CPU.

        Raises OSError where the file has become shorter.
        """
        start, size = images.data_ptr() - self.rows.data_ptr(), images[:1].nbytes
        found = torch.empty(len(rows), *images.shape[1:], dtype=torch.uint8)
        places = rows.tolist()
        if places and places == list(range(places[0], places[0] + len(places))):
            self._fill(found, start + places[0] * size)
        else:
            for row, place in enumerate(places):
                self._fill(found[row], start + place * size)
        return found

    def _fill(self, into: Tensor, offset: int) -> None:
        if os.preadv(self._descriptor, [into.numpy()], offset) != into.nbytes:
            raise OSError(f"{self._path} has become shorter")

    def release(self) -> None:
        """Give back the memory of what was looked at."""
        self._map._mmap.madvise(mmap.MADV_DONTNEED)
