"""What the processes (ranks) of one run tell one another; with one process, nothing.

Every function here but `rank`, `world_size`, `is_first` and `abort` is collective: all ranks must call it, in the same
order.
Python values travel over gloo, whatever the tensors use, so they may come from any device.
"""

import hashlib
import io
import os
import pickle
import sys
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from operator import itemgetter
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed

Value = TypeVar("Value")

PATIENCE = timedelta(minutes=30)
"""How long a rank waits for the others, e.g. while the first one writes."""
TOGETHER = 1024
"""Bytes of a value up to which all ranks' are sent at once, each at the length of the longest."""

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
    """The values of all ranks in their order, on every rank.

    What each rank receives is every distinct value once, so where all have the same, or few have any, it does not grow
    with the ranks but for 16 bytes of each; small values come with one message of up to `TOGETHER` bytes of each.
    """
    if world_size() == 1:
        return [value]
    own = pickled(value)
    digest = int.from_bytes(hashlib.blake2b(own, digest_size=8).digest(), "little", signed=True)
    told = [tuple(each.tolist()) for each in _of_everyone(torch.tensor([len(own), digest]))]
    most = max(size for size, _ in told)
    distinct = {each: rank for rank, each in reversed(list(enumerate(told)))}
    mine = torch.frombuffer(bytearray(own), dtype=torch.uint8)
    if len(distinct) == 1:
        texts = dict.fromkeys(distinct, mine)
    elif most <= TOGETHER:
        padded = torch.nn.functional.pad(mine, (0, most - len(mine)))
        texts = {each: found[: each[0]] for each, found in zip(told, _of_everyone(padded), strict=True)}
    else:
        texts = {each: _sent_by(rank, mine, each[0]) for each, rank in sorted(distinct.items(), key=itemgetter(1))}
    return [pickle.loads(texts[each].numpy()) for each in told]


class _Pickler(pickle.Pickler):
    """Tensors as arrays where they can be: a tenth of the time."""

    def reducer_override(self, value: Any) -> Any:
        plain = type(value) is Tensor and value.device.type == "cpu" and value.layout is torch.strided
        if not plain or value.requires_grad or value.dtype is torch.bfloat16 or value.is_conj() or value.is_neg():
            return NotImplemented
        return torch.from_numpy, (value.numpy(),)


def pickled(value: Any) -> bytes:
    """A value as it is sent."""
    into = io.BytesIO()
    _Pickler(into, protocol=pickle.HIGHEST_PROTOCOL).dump(value)
    return into.getvalue()


def _of_everyone(mine: Tensor) -> list[Tensor]:
    """The tensors of all ranks, of one shape, on the CPU."""
    mine = mine.to(_of_control())
    found = [torch.empty_like(mine) for _ in range(world_size())]
    distributed.all_gather(found, mine, group=_control)
    return [each.cpu() for each in found]


def _sent_by(source: int, mine: Tensor, size: int) -> Tensor:
    """The bytes that a rank has, `size` of them, on every rank."""
    sent = (mine if source == rank() else mine.new_empty(size)).to(_of_control())
    distributed.broadcast(sent, src=source, group=_control)
    return sent.cpu()


def _of_control() -> torch.device:
    """Where what is sent beside tensors of the default group lives: in the own group of `connect`, or in the only one,
    which somebody else may have made of GPUs."""
    return _device() if _control is None else torch.device("cpu")


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
        sent = numbers.to(_of_control())
        distributed.all_reduce(sent, getattr(distributed.ReduceOp, operation), group=_control)
        if sent is not numbers:
            numbers.copy_(sent)
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


def owner(index: int, count: int) -> int:
    """The rank that has this one of ``range(count)`` in its `share`."""
    return ((index + 1) * world_size() - 1) // count


def rows_to_owners(owned: Sequence[tuple[int, Tensor]]) -> list[Tensor | None]:
    """All ranks' rows of several things, each on one rank alone.

    Args:
        owned: of each thing the rank that gets its rows, and this rank's rows ``(n, ...)`` on the CPU, n may be 0;
            things, owners, and shapes behind the first dimension are the same on all ranks.

    Returns:
        All rows in the order of the ranks, ``(N, ...)``; None for what another rank gets.
    """
    if world_size() == 1:
        return [rows for _, rows in owned]
    counts = gather([len(rows) for _, rows in owned])
    found: list[Tensor | None] = []
    for at, (to, rows) in enumerate(owned):
        if to != rank():
            found.append(None)
            if len(rows):
                _passed(rows.contiguous(), to=to)
            continue
        empty = [rows.new_empty(of_rank[at], *rows.shape[1:]) for of_rank in counts]
        parts = [
            rows if other == rank() else _passed(part, source=other) if len(part) else part
            for other, part in enumerate(empty)
        ]
        found.append(torch.cat(parts))
    return found


def _passed(rows: Tensor, *, to: int | None = None, source: int | None = None) -> Tensor:
    """Rows that go to one rank, or come from one."""
    sent = rows.to(_of_control())
    if to is not None:
        distributed.send(sent, to, group=_control)
    else:
        distributed.recv(sent, source, group=_control)
    return sent.cpu()


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
