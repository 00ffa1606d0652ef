"""Class statistics of all ranks' rows, place by place: `pipeline.metrics.engine.joining` in few messages."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch

from pipeline.metrics import ClassStatistics, registry
from pipeline.metrics.engine.joining import Talk, added
from pipeline.runtime import ranks

SENT_BYTES = 16 * 2**20
"""What an all-reduce may take, unless one place takes more."""

Key = tuple[str, ...]


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
    known: dict[Key, _Sizes] = {}
    for own in ranks.gather({key: _Sizes.of(part) for key, part in parts.items()}):
        known |= own
    found: dict[Key, ClassStatistics] = {}
    talk = Talk(ranks.rank(), ranks.world_size(), ranks.total, ranks.maxima)
    for group in _in_groups(known):
        mine = [parts.get(key) or known[key].nothing() for key in group]
        found |= zip(group, added(mine, talk), strict=True)
    return found


def _in_groups(known: Mapping[Key, _Sizes]) -> Iterator[list[Key]]:
    """Places in groups of up to `SENT_BYTES`: one by one they would wait for one another, and all at once be large."""
    group: list[Key] = []
    for key, sizes in known.items():
        if group and sum(known[other].nbytes for other in group) + sizes.nbytes > SENT_BYTES:
            yield group
            group = []
        group.append(key)
    if group:
        yield group
