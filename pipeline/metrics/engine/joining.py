"""Statistics of all ranks' rows: agree on the anchors first, then add plain sums.

Class statistics about the anchors of one rank do not add to those about another's; about common ones they do. So the
ranks agree on an anchor for each class (that of the rank with most samples of it, as `ClassStatistics.merged` takes),
then add up what their means are off it, and what their scatter is about the mean that comes out. What a rank receives,
2 K d numbers for a place of K classes and d features in a few all-reduces, does not grow with the number of ranks. The
same holds for products of pairs of places.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, distributed

from pipeline.metrics import registry
from pipeline.metrics.engine.pairing import Cross, PairStatistics
from pipeline.metrics.engine.statistics import ClassStatistics

Reduce = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Talk:
    """How ranks add up.

    rank: of this process; size: how many there are.
    total, maxima: of a tensor of one shape on all ranks, entry by entry, the same bits on every rank; may be written
        into it.
    """

    rank: int
    size: int
    total: Reduce
    maxima: Reduce

    @classmethod
    def within(cls, group: Any) -> Talk:
        """In a process group of `torch.distributed`, None for the default one."""

        def reduced(operation: Any) -> Reduce:
            def reduce(tensor: Tensor) -> Tensor:
                distributed.all_reduce(tensor, operation, group=group)
                return tensor

            return reduce

        kinds = distributed.ReduceOp
        rank, size = distributed.get_rank(group), distributed.get_world_size(group)
        return cls(rank, size, reduced(kinds.SUM), reduced(kinds.MAX))


def added(parts: Sequence[ClassStatistics], talk: Talk) -> list[ClassStatistics]:
    """Those of all ranks for each of some statistics and, recursively, their views; every rank gives the same ones.

    The numbers of one process, but for rounding; to the bit for a given number of processes.
    """
    anchors, maxima = _agreed(parts, talk)
    apart = [(part.anchors - anchor) + part.drifts for part, anchor in zip(parts, anchors, strict=True)]
    sums = _reduced(
        talk.total,
        [
            [part.counts, part.counts[:, None] * off, part.active, part.samples, *_extras(part, "sum").values()]
            for part, off in zip(parts, apart, strict=True)
        ],
    )
    drifts = [weighted / counts.clamp(min=1)[:, None] for counts, weighted, *_ in sums]
    about_means = _reduced(
        talk.total, [_about(part, off - drift) for part, off, drift in zip(parts, apart, drifts, strict=True)]
    )
    views = [list(part.views) for part in parts]
    inside = iter(added([view for part in parts for view in part.views.values()], talk) if any(views) else [])
    found = []
    for at, part in enumerate(parts):
        (roundoff, *largest), (counts, _, active, samples, *summed), (scatter, *merged) = (
            maxima[at], sums[at], about_means[at],
        )  # fmt: skip
        extras = _named(part, "max", largest) | _named(part, "sum", summed) | _named(part, None, merged)
        one = ClassStatistics(counts, anchors[at], drifts[at], scatter, active, samples, roundoff)
        # In the order in which they were declared.
        one = replace(one, extras={name: extras[name] for name in part.extras})
        found.append(replace(one, views={name: next(inside) for name in views[at]}))
    return found


def added_pairs(parts: Sequence[PairStatistics], talk: Talk) -> list[PairStatistics]:
    """The same of pairs of places: 3 (p + q) numbers of anchors, as many of means, and pq + p^2 + q^2 of products."""
    crosses = [cross for part in parts for cross in (part.cross, part.first, part.second)]
    claims = [cross.count * talk.size + (talk.size - 1 - talk.rank) for cross in crosses]
    most = _reduced(talk.maxima, [claims])[0]
    own = [
        [torch.where(claim == largest, anchor, 0.0) for anchor in cross.anchors]
        for cross, claim, largest in zip(crosses, claims, most, strict=True)
    ]
    anchors = _reduced(talk.total, own)
    apart = [
        [(mine - anchor) + drift for mine, anchor, drift in zip(cross.anchors, agreed, cross.drifts, strict=True)]
        for cross, agreed in zip(crosses, anchors, strict=True)
    ]
    weighted = [[cross.count, *(cross.count * off for off in offs)] for cross, offs in zip(crosses, apart, strict=True)]
    *sums, batches = _reduced(talk.total, [*weighted, [part.batches for part in parts]])
    drifts = [[off / count.clamp(min=1) for off in offs] for count, *offs in sums]
    products = []
    for cross, offs, means in zip(crosses, apart, drifts, strict=True):
        x, y = (off - mean for off, mean in zip(offs, means, strict=True))
        products.append(cross.product + cross.count * x[..., :, None] * y[..., None, :])
    found = zip(sums, anchors, drifts, _reduced(talk.total, [products])[0], strict=True)
    joined = [Cross(count, tuple(at), tuple(means), product) for (count, *_), at, means, product in found]
    return [PairStatistics(*joined[3 * at : 3 * at + 3], batches[at]) for at in range(len(parts))]


def _agreed(parts: Sequence[ClassStatistics], talk: Talk) -> tuple[list[Tensor], list[list[Tensor]]]:
    """The anchors: of the rank with most samples of a class, the first of several; and what is a maximum over ranks."""
    claims = [part.counts * talk.size + (talk.size - 1 - talk.rank) for part in parts]
    beside = [[part.roundoff, *_extras(part, "max").values()] for part in parts]
    found = _reduced(talk.maxima, [[claim, *others] for claim, others in zip(claims, beside, strict=True)])
    own = [
        [torch.where((claim == most)[:, None], part.anchors, 0.0)]
        for part, claim, (most, *_) in zip(parts, claims, found, strict=True)
    ]
    return [anchors for (anchors,) in _reduced(talk.total, own)], [others for _, *others in found]


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


def _reduced(reduce: Reduce, of_parts: Sequence[Sequence[Tensor]]) -> list[list[Tensor]]:
    """Tensors of all ranks come together, in one message."""
    flat = reduce(torch.cat([tensor.reshape(-1) for tensors in of_parts for tensor in tensors]))
    pieces = iter(flat.split([tensor.numel() for tensors in of_parts for tensor in tensors]))
    return [[next(pieces).view(tensor.shape) for tensor in tensors] for tensors in of_parts]
