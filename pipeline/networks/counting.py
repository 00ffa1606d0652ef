"""How many numbers of each sample of an activation are not zero, in one pass over memory where that can be had."""

import ctypes
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from pipeline.runtime.native import built, openmp

SOURCE = Path(__file__).with_name("count_kernel.cpp")
WORTH = 2**16
"""Numbers from which the kernel is built: small activations do not pay for a compiler."""


def nonzero(value: Tensor, batch: int) -> Tensor:
    """How many numbers of each sample are not zero, `(N,)` float64.

    Args:
        value: an activation of any shape and dtype.
        batch: the axis of its samples.
    """
    order = sorted(range(value.ndim), key=lambda axis: (axis != batch, -value.stride(axis)))
    samples_first = value.permute(order)
    if value.device.type == "cpu" and value.dtype == torch.float32 and value.numel() >= max(1, WORTH):
        kernel = library()
        if kernel is not None and samples_first.is_contiguous():
            counts = torch.empty(len(samples_first), dtype=torch.float64)
            numbers, threads = value.numel() // len(counts), torch.get_num_threads()
            kernel.count_not_zero(value.data_ptr(), len(counts), numbers, counts.data_ptr(), threads, openmp())
            return counts
    # As floats at once and along memory, many times as fast as a sum of booleans over axes; exact up to 2^24 a sample.
    ones = torch.ne(value, 0, out=torch.empty_like(value, dtype=torch.float32))
    return ones.permute(order).flatten(1).sum(1).to(torch.float64)


@cache
def library() -> ctypes.CDLL | None:
    """The compiled kernel, or None where it cannot be had."""
    kernel = built(SOURCE, "active units are counted in plain PyTorch")
    if kernel is not None:
        kernel.count_not_zero.restype = None
        kernel.count_not_zero.argtypes = [
            ctypes.c_void_p,
            *[ctypes.c_int64] * 2,
            ctypes.c_void_p,
            ctypes.c_int64,
            ctypes.c_void_p,
        ]
    return kernel
