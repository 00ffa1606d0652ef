"""Class statistics of all ranks' rows: agree on the anchors of the classes first, then add plain sums.

Statistics about the anchors of one rank do not add to those about another's; about common ones they do. So the ranks
agree on an anchor for each class (that of the rank with most samples of it, as `ClassStatistics.merged` takes), then
add up what their means are off it, and what their scatter is about the mean that comes out. What a rank receives, 2 K d
numbers for a place of K classes and d features in a few all-reduces, does not grow with the number of ranks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pipeline.metrics import ClassStatistics, registry
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
    for group in _in_groups(known):
        found |= zip(group, _added([parts.get(key) or known[key].nothing() for key in group]), strict=True)
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


def _added(parts: Sequence[ClassStatistics]) -> list[ClassStatistics]:
    """Those of all ranks for each of some statistics and, recursively, their views."""
    anchors, maxima = _agreed(parts)
    apart = [(part.anchors - anchor) + part.drifts for part, anchor in zip(parts, anchors, strict=True)]
    sums = _reduced(
        ranks.total,
        [
            [part.counts, part.counts[:, None] * off, part.active, part.samples, *_extras(part, "sum").values()]
            for part, off in zip(parts, apart, strict=True)
        ],
    )
    drifts = [weighted / counts.clamp(min=1)[:, None] for counts, weighted, *_ in sums]
    about_means = _reduced(
        ranks.total, [_about(part, off - drift) for part, off, drift in zip(parts, apart, drifts, strict=True)]
    )
    views = [list(part.views) for part in parts]
    inside = iter(_added([view for part in parts for view in part.views.values()]) if any(views) else [])
    found = []
    for at, part in enumerate(parts):
        (roundoff, *largest), (counts, _, active, samples, *added), (scatter, *merged) = (
            maxima[at], sums[at], about_means[at],
        )  # fmt: skip
        extras = _named(part, "max", largest) | _named(part, "sum", added) | _named(part, None, merged)
        one = ClassStatistics(counts, anchors[at], drifts[at], scatter, active, samples, roundoff)
        # In the order in which they were declared.
        one = replace(one, extras={name: extras[name] for name in part.extras})
        found.append(replace(one, views={name: next(inside) for name in views[at]}))
    return found


def _agreed(parts: Sequence[ClassStatistics]) -> tuple[list[Tensor], list[list[Tensor]]]:
    """The anchors: of the rank with most samples of a class, the first of several; and what is a maximum over ranks."""
    world = ranks.world_size()
    claims = [part.counts * world + (world - 1 - ranks.rank()) for part in parts]
    beside = [[part.roundoff, *_extras(part, "max").values()] for part in parts]
    found = _reduced(ranks.maxima, [[claim, *others] for claim, others in zip(claims, beside, strict=True)])
    own = [
        [torch.where((claim == most)[:, None], part.anchors, 0.0)]
        for part, claim, (most, *_) in zip(parts, claims, found, strict=True)
    ]
    return [anchors for (anchors,) in _reduced(ranks.total, own)], [others for _, *others in found]


def _about(part: ClassStatistics, shifts: Tensor) -> list[Tensor]:
    """Scatter and what else is about class means, as this rank's rows add to it: its means are `shifts` off them."""
    weights = part.counts[:, None]
    between = (weights * shifts.square()).sum(-1)
    counts = weights.expand(*[1] * (shifts.ndim - 2), *weights.shape)
    merges = {name: registry.statistics()[name].merge for name in _extras(part, None)}
    more = [merge([part.extras[name]], shifts[None], counts[None]) for name, merge in merges.items()]
    return [part.scatter + between, *more]


def _extras(part: ClassStatistics, merge: str | None) -> dict[str, Tensor]:
    """Declared statistics that merge this way; None: by a function."""
    how = {name: registry.statistics()[name].merge for name in part.extras}
    return {name: part.extras[name] for name, own in how.items() if (own if isinstance(own, str) else None) == merge}


def _named(part: ClassStatistics, merge: str | None, values: Sequence[Tensor]) -> dict[str, Tensor]:
    return dict(zip(_extras(part, merge), values, strict=True))


def _reduced(reduce: Callable[[Tensor], Tensor], of_parts: Sequence[Sequence[Tensor]]) -> list[list[Tensor]]:
    """Tensors of all ranks come together, in one message."""
    flat = reduce(torch.cat([tensor.reshape(-1) for tensors in of_parts for tensor in tensors]))
    pieces = iter(flat.split([tensor.numel() for tensors in of_parts for tensor in tensors]))
    return [[next(pieces).view(tensor.shape) for tensor in tensors] for tensors in of_parts]
