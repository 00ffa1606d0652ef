"""What the processes (ranks) of one run tell one another; with one process, nothing.

Every function here but `rank`, `world_size`, `is_first` and `abort` is collective: all ranks must call it, in the same
order.
Python values travel over gloo, whatever the tensors use, so they may come from any device.
"""

import os
import sys
from contextlib import suppress
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed

Value = TypeVar("Value")

PATIENCE = timedelta(minutes=30)
"""How long a rank waits for the others, e.g. while the first one writes."""

_control: Any = None  # the gloo group of Python values


def connect(backend: str) -> None:
    """Join the process group that the environment describes (RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT).

    Args:
        backend: of tensors, "gloo" or "nccl".
    """
    global _control
    if sys.platform == "linux" and os.environ.get("MASTER_ADDR") == "127.0.0.1":
        # Host names of compute nodes often do not resolve; one machine needs nothing but the loopback device.
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    distributed.init_process_group(backend, timeout=PATIENCE)
    _control = distributed.new_group(backend="gloo", timeout=PATIENCE) if backend != "gloo" else None


def disconnect() -> None:
    """Leave the process group."""
    global _control
    _control = None
    if connected():
        distributed.destroy_process_group()


def abort() -> None:
    """Let all that waits for other ranks in NCCL fail; callable from any thread. gloo notices lost ranks itself."""
    if connected() and distributed.get_backend() == "nccl":
        with suppress(Exception):  # it is the last thing that is tried, and its own failure tells nobody anything
            distributed.group.WORLD._get_backend(torch.device("cuda")).abort()


def connected() -> bool:
    """Whether this process has joined others."""
    return distributed.is_available() and distributed.is_initialized()


def rank() -> int:
    """Number of this process, 0 .. world_size - 1."""
    return distributed.get_rank() if connected() else 0


def world_size() -> int:
    """How many processes the run has."""
    return distributed.get_world_size() if connected() else 1


def is_first() -> bool:
    """Whether this process writes the run folder: one does."""
    return rank() == 0


def gather(value: Value) -> list[Value]:
    """The values of all ranks in their order, on every rank."""
    if world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    distributed.all_gather_object(values, value, group=_control)
    return values


def broadcast(value: Value) -> Value:
    """The first rank's value, on every rank."""
    if world_size() == 1:
        return value
    values: list[Any] = [value]
    distributed.broadcast_object_list(values, src=0, group=_control)
    return values[0]


def largest(number: float) -> float:
    """The largest of all ranks' numbers, on every rank."""
    if world_size() == 1:
        return number
    shared = torch.tensor(number, dtype=torch.float64)
    distributed.all_reduce(shared, distributed.ReduceOp.MAX, group=_control)
    return shared.item()


def total(numbers: Tensor) -> Tensor:
    """The sum of all ranks' tensors of one shape on the CPU, the same bits on every rank; written into `numbers`."""
    return _reduced(numbers, "SUM")


def maxima(numbers: Tensor) -> Tensor:
    """The largest of all ranks' numbers, entry by entry; written into `numbers`."""
    return _reduced(numbers, "MAX")


def _reduced(numbers: Tensor, operation: str) -> Tensor:
    if world_size() > 1:
        distributed.all_reduce(numbers, getattr(distributed.ReduceOp, operation), group=_control)
    return numbers


def barrier() -> None:
    """Wait until all ranks are here."""
    largest(0)


def share(count: int, whole: int | None = None) -> range:
    """The contiguous part of ``range(count)`` that is this rank's; the parts differ by one in length at most.

    Args:
        whole: over how many ranks it is dealt out, all by default; what lies beyond gets the last part once more.
    """
    parts = min(whole or world_size(), world_size())
    part = min(rank(), parts - 1)
    return range(count * part // parts, count * (part + 1) // parts)


def gather_rows(rows: Tensor | None) -> Tensor:
    """All rows ``(N, ...)`` of a matrix whose consecutive parts lie on consecutive ranks, on every rank.

    Args:
        rows: this rank's, ``(n, ...)``, of one shape behind the first dimension; None if it has none. Some rank has.
    """
    if world_size() == 1:
        return rows
    like = next(piece for piece in gather(None if rows is None else rows[:0].cpu()) if piece is not None)
    mine = like.to(_device()) if rows is None else rows
    counts = gather(len(mine))
    # Collectives want equal shapes: short parts are padded, and the padding is cut off again.
    padded = mine.new_zeros(max(counts), *mine.shape[1:])
    padded[: len(mine)] = mine
    everyone = [torch.empty_like(padded) for _ in counts]
    distributed.all_gather(everyone, padded)
    return torch.cat([rows[:count] for rows, count in zip(everyone, counts, strict=True)])


def _device() -> torch.device:
    """Where tensors of the default group live."""
    return torch.device("cuda" if distributed.get_backend() == "nccl" else "cpu")
