"""Means of an activation over its positions, and how many of its numbers are not zero, in one pass over memory where
that can be had.

The kernel `pool_kernel.cpp` is compiled on first use by whatever C++ compiler there is (a second) and kept in the
user's cache folder; without a compiler PyTorch does the same, to the same bits.
"""

import ctypes
import math
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from pipeline.runtime.native import built, openmp

SOURCE = Path(__file__).with_name("pool_kernel.cpp")
WORTH = 2**16
"""Numbers from which the kernel is built: small activations do not pay for a compiler."""
MOST_POSITIONS = 2**19
"""Beyond these PyTorch adds in longer steps than the kernel."""


def pooled(value: Tensor, batch: int, channel: int) -> tuple[Tensor, Tensor]:
    """Means over positions `(N, C)`, at least float32, and how many numbers of a sample are not zero, per position,
    `(N,)` float64.

    Args:
        value: an activation of any float dtype; half precision is averaged in float32.
        batch, channel: its axes of samples and of channels; all others are positions.
    """
    if _lies_by_position(value, batch, channel) and (kernel := _kernel_for(value)) is not None:
        count, channels = value.shape[0], value.shape[channel]
        means, active = torch.empty(count, channels), torch.empty(count, dtype=torch.float64)
        sizes = count, value.numel() // (count * channels), channels
        results = means.data_ptr(), active.data_ptr()
        kernel.pool(value.data_ptr(), *sizes, *results, torch.get_num_threads(), openmp())
        return means, active
    axes = tuple(axis for axis in range(value.ndim) if axis not in (batch, channel))
    dtype = torch.promote_types(value.dtype, torch.float32)
    means = value.mean(axes if len(axes) > 1 else axes[0], dtype=dtype)
    active = nonzero(value, batch) / math.prod(value.shape[axis] for axis in axes)
    return means if batch < channel else means.T, active


def nonzero(value: Tensor, batch: int) -> Tensor:
    """How many numbers of each sample of an activation of any shape and dtype are not zero, `(N,)` float64."""
    order = sorted(range(value.ndim), key=lambda axis: (axis != batch, -value.stride(axis)))
    samples_first = value.permute(order)
    if samples_first.is_contiguous() and (kernel := _kernel_for(value)) is not None:
        counts = torch.empty(len(samples_first), dtype=torch.float64)
        sizes = len(counts), value.numel() // len(counts)
        kernel.count_not_zero(value.data_ptr(), *sizes, counts.data_ptr(), torch.get_num_threads(), openmp())
        return counts
    # As floats at once and along memory, many times as fast as a sum of booleans over axes; exact up to 2^24 a sample.
    ones = torch.ne(value, 0, out=torch.empty_like(value, dtype=torch.float32))
    return ones.permute(order).flatten(1).sum(1).to(torch.float64)


def _lies_by_position(value: Tensor, batch: int, channel: int) -> bool:
    """Whether samples follow one another, their positions do so within them, and channels lie side by side.

    What has one position or one channel is left out: PyTorch adds it in another order.
    """
    if batch != 0 or value.shape[channel] < 2:
        return False
    if not 1 < value.numel() // max(1, value.shape[0] * value.shape[channel]) <= MOST_POSITIONS:
        return False
    if channel == value.ndim - 1:
        return value.is_contiguous()
    return channel == 1 and value.ndim == 4 and value.is_contiguous(memory_format=torch.channels_last)


def _kernel_for(value: Tensor) -> ctypes.CDLL | None:
    """The kernel, if it takes numbers of this kind and there are enough of them."""
    taken = value.dtype == torch.float32 and value.device.type == "cpu" and value.numel() >= max(1, WORTH)
    return library() if taken else None


@cache
def library() -> ctypes.CDLL | None:
    """The compiled kernel, or None where it cannot be had."""
    kernel = built(SOURCE, "activations are pooled in plain PyTorch")
    if kernel is not None:
        pointer, index = ctypes.c_void_p, ctypes.c_int64
        kernel.count_not_zero.argtypes = [pointer, index, index, pointer, index, pointer]
        kernel.pool.argtypes = [pointer, index, index, index, pointer, pointer, index, pointer]
        kernel.count_not_zero.restype = kernel.pool.restype = None
    return kernel
