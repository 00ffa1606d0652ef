"""The nearest of very many class means in float32 by the kernel `nearest_kernel.cpp`: scores stay in registers.

The kernel is compiled on first use by whatever C++ compiler there is (a second) and kept in the user's cache folder;
without a compiler PyTorch does the same, but for rounding.
"""

from __future__ import annotations

import ctypes
import math
from functools import cache
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from pipeline.runtime.native import built

SOURCE = Path(__file__).with_name("nearest_kernel.cpp")


class PackedMeans:
    """Class means as the kernel reads them.

    Args:
        means: `(K, d)`, float32, on a CPU.
    """

    def __init__(self, means: Tensor) -> None:
        self._kernel = library()
        panel = self._kernel.panel_of_means()
        padding = -len(means) % panel
        padded = functional.pad(means, (0, 0, 0, padding))
        self._panels = padded.view(-1, panel, means.shape[1]).transpose(1, 2).contiguous()
        self._padding = padding

    def nearest(self, rows: Tensor, half: Tensor) -> tuple[Tensor, Tensor]:
        """The class of the least score `half_k - <z, mu_k>` of rows `(n, d)`, int64, and how far off the next one is,
        float64, `(n,)` each; of equally near ones any. `half` is `(K,)`; both float32."""
        rows, half = rows.contiguous(), functional.pad(half, (0, self._padding), value=math.inf)
        least, second = rows.new_empty(2, len(rows))
        found = torch.empty(len(rows), dtype=torch.int64)
        threads = max(1, min(torch.get_num_threads(), len(rows)))
        sizes = *rows.shape, self._panels.data_ptr(), len(self._panels), half.data_ptr(), threads
        self._kernel.nearest_means(rows.data_ptr(), *sizes, least.data_ptr(), second.data_ptr(), found.data_ptr())
        return found, second.double() - least.double()


@cache
def library() -> ctypes.CDLL | None:
    """The compiled kernel, or None where it cannot be had."""
    kernel = built(SOURCE, "nearest class means are sought in plain PyTorch")
    if kernel is not None:
        pointer, index = ctypes.c_void_p, ctypes.c_int64
        kernel.panel_of_means.restype = index
        kernel.nearest_means.argtypes = [pointer, index, index, pointer, index, pointer, index, *[pointer] * 3]
        kernel.nearest_means.restype = None
    return kernel
