"""What all ranks' rows come to, place by place: `pipeline.metrics.engine.joining` in few messages."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from pipeline.metrics import ClassStatistics, registry
from pipeline.metrics.engine.joining import Talk, added, added_pairs
from pipeline.metrics.engine.pairing import PairStatistics
from pipeline.runtime import ranks

SENT_BYTES = 16 * 2**20
"""What an all-reduce may take, unless one place takes more."""

Key = tuple[str, ...]
Pair = tuple[Key, Key]
Name, Size = TypeVar("Name"), TypeVar("Size")


@dataclass(frozen=True)
class _Sizes:
    """Of class statistics, so that a rank without rows of a place can take part."""

    anchors: tuple[int, ...]
    extras: Mapping[str, tuple[int, ...]]
    views: Mapping[str, _Sizes]

    @classmethod
    def of(cls, part: ClassStatistics) -> _Sizes:
        extras = {name: tuple(values.shape) for name, values in part.extras.items()}
        return cls(tuple(part.anchors.shape), extras, {name: cls.of(view) for name, view in part.views.items()})

    @property
    def nbytes(self) -> int:
        own = 8 * sum(map(math.prod, [self.anchors, *self.extras.values()]))
        return own + sum(view.nbytes for view in self.views.values())

    def nothing(self) -> ClassStatistics:
        """Statistics of no rows."""
        *members, classes, _ = self.anchors
        zeros = lambda *shape: torch.zeros(shape, dtype=torch.float64)  # noqa: E731
        merges = {name: registry.statistics()[name].merge for name in self.extras}
        empty = {name: -math.inf if merge == "max" else 0.0 for name, merge in merges.items()}
        return ClassStatistics(
            counts=zeros(classes),
            anchors=zeros(*self.anchors),
            drifts=zeros(*self.anchors),
            scatter=zeros(*members, classes),
            active=zeros(*members),
            samples=zeros(),
            roundoff=zeros(),
            extras={name: zeros(*shape).add_(empty[name]) for name, shape in self.extras.items()},
            views={name: view.nothing() for name, view in self.views.items()},
        )


def joined(parts: Mapping[Key, ClassStatistics]) -> dict[Key, ClassStatistics]:
    """The statistics of all ranks' rows, the same on every rank, of those of this rank's, all on the CPU.

    A rank that has no rows of a place may lack it. The numbers of one process, but for rounding; to the bit for a given
    number of ranks.
    """
    if ranks.world_size() == 1:
        return dict(parts)
    known = _known({key: _Sizes.of(part) for key, part in parts.items()})
    found: dict[Key, ClassStatistics] = {}
    for group in _in_groups({key: sizes.nbytes for key, sizes in known.items()}):
        mine = [parts.get(key) or known[key].nothing() for key in group]
        found |= zip(group, added(mine, _talk()), strict=True)
    return found


def joined_pairs(parts: Mapping[Pair, PairStatistics]) -> dict[Pair, PairStatistics]:
    """The same of pairs of places."""
    if ranks.world_size() == 1:
        return dict(parts)
    known = _known({pair: tuple(part.cross.product.shape) for pair, part in parts.items()})
    found: dict[Pair, PairStatistics] = {}
    for group in _in_groups({pair: 8 * (p * q + p * p + q * q) for pair, (p, q) in known.items()}):
        mine = [parts.get(pair) or PairStatistics.nothing(*known[pair]) for pair in group]
        found |= zip(group, added_pairs(mine, _talk()), strict=True)
    return found


def joined_sums(parts: Mapping[Key, Tensor]) -> dict[Key, Tensor]:
    """The same of plain sums over rows, float64."""
    if ranks.world_size() == 1:
        return dict(parts)
    known = _known({key: tuple(part.shape) for key, part in parts.items()})
    found: dict[Key, Tensor] = {}
    for group in _in_groups({key: 8 * math.prod(shape) for key, shape in known.items()}):
        mine = [parts[key] if key in parts else torch.zeros(known[key], dtype=torch.float64) for key in group]
        total = ranks.total(torch.cat([each.reshape(-1) for each in mine]))
        pieces = total.split([each.numel() for each in mine])
        found |= {key: piece.view(known[key]) for key, piece in zip(group, pieces, strict=True)}
    return found


def _talk() -> Talk:
    return Talk(ranks.rank(), ranks.world_size(), ranks.total, ranks.maxima)


def _known(sizes: Mapping[Name, Size]) -> dict[Name, Size]:
    """Names and sizes of what some rank has, in one order on all of them."""
    found: dict[Name, Size] = {}
    for own in ranks.gather(dict(sizes)):
        found |= own
    return found


def _in_groups(sizes: Mapping[Name, int]) -> Iterator[list[Name]]:
    """Names in groups of up to `SENT_BYTES`: one by one they would wait for one another, and all at once be large."""
    group: list[Name] = []
    taken = 0
    for name, size in sizes.items():
        if group and taken + size > SENT_BYTES:
            yield group
            group, taken = [], 0
        group.append(name)
        taken += size
    if group:
        yield group
