"""The memory that a run needs at the very least, against what the machine has: refused before it is tried. And what
becomes of memory that is freed."""

import ctypes
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise

import torch

from pipeline.runtime.errors import ConfigError

COPIES = 3
"""Parameters, their gradients, and what momentum keeps (or, of a head, what it started from)."""
OVERHEAD = 512
"""Bytes a tensor takes beside its numbers, about: many layers of width 1 are not free."""
CPU = torch.device("cpu")
MMAP_THRESHOLD, TRIM_THRESHOLD = -3, -1
"""Of glibc's `mallopt`, from malloc.h."""


def machine_memory(device: torch.device = CPU) -> int:
    """Bytes that the machine has in all, or a GPU of it."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def free_memory() -> int:
    """Bytes that programs can still have: free ones, and those that only keep what is on disk."""
    try:
        with open("/proc/meminfo") as file:
            told = dict(line.split(":", 1) for line in file)
        return int(told["MemAvailable"].split()[0]) * 1024
    except (OSError, ValueError, KeyError):
        return machine_memory() // 2


def head_bytes(members: int, num_samples: int, widths: Sequence[int], num_classes: int, *, free: bool) -> int:
    """A lower bound for the descent of `members` heads with layer widths d_1 .. d_L, in float32."""
    parameters = sum(before * after for before, after in pairwise([*widths, num_classes]))
    features = num_samples * widths[0] * (members if free else 1)
    outputs = members * num_samples * max([*widths[1:], num_classes])
    return 4 * (COPIES * members * parameters + features + outputs) + COPIES * members * len(widths) * OVERHEAD


def network_bytes(widths: Sequence[int]) -> int:
    """A lower bound for training fully connected layers of these widths, in float32."""
    return 4 * COPIES * sum(before * after for before, after in pairwise(widths))


def require_memory(needed: int, what: str, device: torch.device = CPU, instead: str = "smaller ones") -> None:
    """Raise ConfigError if `needed` bytes are more than there are; `what` names the settings, in the plural."""
    available = machine_memory(device)
    if needed > available:
        raise ConfigError(
            f"{what} need at least {_size(needed)} of memory, and there are {_size(available)}; allowed: {instead}."
        )


def _size(count: int) -> str:
    # In whole numbers: sizes that are asked for can be too large for a float.
    return f"{count // 2**20} MiB" if count < 10 * 2**30 else f"{count // 2**30:,} GiB"


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Within, the C library keeps memory that is freed for what asks next. Where it does not, maps of a few MB come
    from the system and go back for every layer of every step, and each of their pages is a fault: a fifth of a step of
    ResNet-20. Afterwards free memory goes back. With another library than glibc, nothing.
    """
    library = ctypes.CDLL(None) if os.name == "posix" else None
    if not hasattr(library, "mallopt"):
        yield
        return
    library.mallopt(MMAP_THRESHOLD, 2**30)
    library.mallopt(TRIM_THRESHOLD, 2**31 - 1)
    try:
        yield
    finally:
        # Where glibc's own thresholds end up after it has seen large blocks; it does not adapt them any more.
        library.mallopt(MMAP_THRESHOLD, 32 * 2**20)
        library.mallopt(TRIM_THRESHOLD, 64 * 2**20)
        library.malloc_trim(0)
