"""The second look at rows, once class means are known: nearest ones, deviations along directions, and their sums."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor

from pipeline.metrics.engine.chunks import chunks_of
from pipeline.metrics.engine.class_pairs import are_many
from pipeline.metrics.engine.native_sums import deviations_of
from pipeline.metrics.engine.nearest import Nearest
from pipeline.metrics.engine.statistics import ClassStatistics, distances
from pipeline.metrics.engine.sums import scratch_for
from pipeline.metrics.engine.views import unit_rows
from pipeline.metrics.registry import RowSum, RowValue
from pipeline.runtime.devices import STAYS, moved


@dataclass(frozen=True)
class Aim:
    """What the second look needs to be told besides class statistics.

    Attributes:
        directions: of the sums over rows that look along some, `(..., d, r)` each, by name.
        kept: which classes' rows count, `(K,)`; None: all.
        candidates: which classes' means may be the nearest, `(K,)`; None: all.
        prepared: what has been made once for sums over rows, by name.
    """

    directions: Mapping[str, Tensor]
    kept: Tensor | None = None
    candidates: Tensor | None = None
    prepared: Mapping[str, Tensor] = field(default_factory=dict)
    _known: list[_Shared] = field(default_factory=list, init=False, repr=False, compare=False, metadata=STAYS)

    def to(self, device: torch.device | str) -> Aim:
        """The same on another device."""
        return moved(self, device)

    def judged(self, labels: Tensor) -> Tensor | int:
        """How many rows with these labels count."""
        return len(labels) if self.kept is None else self.kept[labels].sum()

    def shared(self, own: ClassStatistics, reference: ClassStatistics) -> _Shared:
        """What all batches of one look have in common: of very many class means it takes longer than many a batch."""
        for known in self._known:
            if known.is_of(own, reference):
                return known
        self._known[:] = [_Shared(own, reference, self)]
        return self._known[0]

    def rows(
        self, source: tuple[Tensor, Tensor], decisions: Tensor | None
    ) -> tuple[tuple[Tensor, Tensor], Tensor | None]:
        """Features and labels, and decisions on them, without the rows that do not count."""
        if self.kept is None:
            return source, decisions
        features, labels = source
        counting = self.kept[labels].nonzero().squeeze(-1)
        source = features.index_select(-2, counting), labels.index_select(0, counting)
        return source, None if decisions is None else decisions.index_select(-1, counting)


class Rows:
    """A chunk of rows in the second look at them. Float64 rows are overwritten by the next chunk.

    Attributes:
        features: as they came, `(..., n, d)` of any float dtype.
        labels: `(n,)`.
        decisions: what the network decided, `(..., n)`, or None.
        own: class statistics of all the rows.
        reference: those of the training split's rows, which may be the same.
    """

    def __init__(
        self, shared: _Shared, features: Tensor, labels: Tensor, decisions: Tensor | None, scratch: Tensor
    ) -> None:
        self.features, self.labels, self.decisions = features, labels, decisions
        self.own, self.reference = shared.own, shared.reference
        self._shared, self._scratch = shared, scratch

    @cached_property
    def deviations(self) -> Tensor:
        """Rows less the anchor of their class, `(..., n, d)`."""
        return deviations_of(self.features, self.own.anchors, self.labels, self._scratch)

    @cached_property
    def centred(self) -> Tensor:
        """Rows less the mean of their class, `(..., n, d)`."""
        return self.deviations - self.own.drifts.index_select(-2, self.labels)

    @cached_property
    def nearest(self) -> Tensor:
        """argmin_c ||z - mu_c||^2 over the class means of `reference`, the first of equally near ones, `(..., n)`."""
        shared = self._shared
        if are_many(self.reference):
            return shared.search.of(self.features.to(torch.float64) - shared.origin)
        return (
            shared.half_norms + shared.excluded - (self.features.to(torch.float64) - shared.origin) @ shared.means.mT
        ).argmin(-1)

    @cached_property
    def unit(self) -> tuple[Tensor, Tensor]:
        """Rows at length one `(..., n, d)`, and which of them have a direction, `(..., n)`."""
        return unit_rows(self.features)

    def prepared(self, name: str) -> Tensor:
        """What has been made once for the sum over rows called `name`."""
        return self._shared.prepared[name]

    def along(self, name: str) -> Tensor:
        """Deviations from class means along the directions of the sum over rows called `name`, `(..., n, r)`."""
        drifts = self._shared.drifts_along(name).index_select(-2, self.labels)
        return self.deviations @ self._shared.directions[name] - drifts


class _FusedRows(Rows):
    """The same with one product for all of it: faster, and without member dimensions."""

    @cached_property
    def nearest(self) -> Tensor:
        # ||z - mu_k||^2 = ||z - a||^2 + 2 (z - a)(a - mu_k) + ||a - mu_k||^2 with the anchor a of the sample's class:
        # for one sample the first term is the same for all k, and so is a in the second; differences of means are left.
        own_half = self._shared.half_distances.index_select(0, self.labels) + self._shared.excluded
        return (own_half - self._products[:, : len(self._shared.means)]).argmin(-1)

    def along(self, name: str) -> Tensor:
        drifts = self._shared.drifts_along(name).index_select(-2, self.labels)
        return self._products[:, self._shared.columns[name]] - drifts

    @cached_property
    def _products(self) -> Tensor:
        return self.deviations @ self._shared.onto


class _Shared:
    """What all chunks of one look have in common; it keeps no rows."""

    def __init__(self, own: ClassStatistics, reference: ClassStatistics, aim: Aim) -> None:
        self._of = own.anchors, own.drifts, reference.anchors, reference.drifts
        own, reference = replace(own, source=None), replace(reference, source=None)
        if aim.kept is not None:
            own, reference = own.emptied(aim.kept), reference.emptied(aim.candidates)
        self.own, self.reference, self.directions = own, reference, aim.directions
        self._candidates, self.prepared = aim.candidates, aim.prepared
        self._drifts: dict[str, Tensor] = {}

    def is_of(self, own: ClassStatistics, reference: ClassStatistics) -> bool:
        """Whether it was made of these statistics."""
        given = own.anchors, own.drifts, reference.anchors, reference.drifts
        return all(one is other for one, other in zip(given, self._of, strict=True))

    def chunks(self, kind: type[Rows], source: tuple[Tensor, Tensor], decisions: Tensor | None) -> Iterator[Rows]:
        """Rows and labels, chunk by chunk."""
        features, labels = source
        slices = chunks_of(features)
        scratch = scratch_for(features[..., slices[0], :])
        for chunk in slices:
            decided = None if decisions is None else decisions[..., chunk]
            yield kind(self, features[..., chunk, :], labels[chunk], decided, scratch)

    @cached_property
    def origin(self) -> Tensor:
        """A sample, `(..., 1, d)`: measured from it, an offset common to all classes does not drown their
        differences."""
        # Of the first class that has one.
        return self.reference.anchors.index_select(-2, (self.reference.counts > 0).byte().argmax().reshape(1))

    @cached_property
    def excluded(self) -> Tensor:
        """Infinity for classes whose means cannot be the nearest, else 0, `(K,)`."""
        nothing = torch.zeros_like(self.reference.counts)
        return nothing if self._candidates is None else nothing.masked_fill(~self._candidates, math.inf)

    @cached_property
    def means(self) -> Tensor:
        """Class means of `reference` less the origin, `(..., K, d)`."""
        return (self.reference.anchors - self.origin) + self.reference.drifts

    @cached_property
    def half_norms(self) -> Tensor:
        return self.means.square().sum(-1, keepdim=True).mT / 2  # (..., 1, K)

    @cached_property
    def search(self) -> Nearest:
        """For the nearest of very many means."""
        return Nearest(self.means, self.half_norms + self.excluded)

    @cached_property
    def half_distances(self) -> Tensor:
        """Half the squared distance of every anchor to every mean, `(K, K)`."""
        return distances(self.own.anchors - self.origin, self.means).square() / 2

    def drifts_along(self, name: str) -> Tensor:
        if name not in self._drifts:
            self._drifts[name] = self.own.drifts @ self.directions[name]
        return self._drifts[name]

    @cached_property
    def onto(self) -> Tensor:
        """Means and all directions side by side, `(d, K + r + ...)`."""
        onto = torch.cat([self.means, *(directions.mT for directions in self.directions.values())]).mT
        # Products of float64 matrices go twelve columns at a time: ten take twice as long as twelve, of which two are
        # zero.
        return torch.nn.functional.pad(onto, (0, -onto.shape[1] % 12))

    @cached_property
    def columns(self) -> dict[str, slice]:
        """Where the directions stand in `onto`."""
        found, start = {}, len(self.means)
        for name, directions in self.directions.items():
            found[name] = slice(start, start + directions.shape[1])
            start += directions.shape[1]
        return found


def second_look(
    own: ClassStatistics,
    reference: ClassStatistics,
    row_sums: Sequence[RowSum],
    aim: Aim,
    decisions: Tensor | None = None,
) -> Tensor:
    """What the source of `own` comes to once class means are known, in one pass and one product.

    Args:
        own: statistics with a `source` `(N, d)`; no member dimensions.
        reference: those of the class means that nearest ones are sought among.
        row_sums: what to add up.
        aim: with the directions of those with `along`.
        decisions: int64 `(N,)`, for those that need them.

    Returns:
        The numbers of all `row_sums` in their order, float64.
    """
    width = own.anchors.shape[-1]
    found = own.counts.new_zeros(sum(math.prod(it.size(own.num_classes, width)) for it in row_sums))
    if not row_sums:
        return found
    source, decisions = aim.rows(own.source, decisions)
    # One product for all of it takes the distances of all anchors to all means.
    kind = Rows if are_many(reference) else _FusedRows
    for rows in aim.shared(own, reference).chunks(kind, source, decisions):
        found += torch.cat([_measured(row_sum, rows).to(torch.float64).reshape(-1) for row_sum in row_sums])
    return found


def sums_at_once(
    row_sums: Sequence[RowSum],
    own: ClassStatistics,
    reference: ClassStatistics,
    aim: Aim,
    decisions: Tensor | None = None,
) -> dict[str, Tensor]:
    """The same by name, `(...)` each, with member dimensions."""
    source, decisions = aim.rows(own.source, decisions)
    found: dict[str, Tensor] = {}
    for rows in _Shared(own, reference, aim).chunks(Rows, source, decisions):
        for row_sum in row_sums:
            found[row_sum.name] = found.get(row_sum.name, 0) + _measured(row_sum, rows)
    return found


def values_of_rows(
    row_values: Sequence[RowValue], own: ClassStatistics, reference: ClassStatistics, aim: Aim
) -> dict[str, Tensor]:
    """A number of each row that counts, `(..., n)` each, by name."""
    source, _ = aim.rows(own.source, None)
    found: dict[str, list[Tensor]] = {it.name: [] for it in row_values}
    for rows in aim.shared(own, reference).chunks(Rows, source, None):
        for it in row_values:
            found[it.name].append(it.measure(rows, rows.prepared(it.name)).to(torch.float64))
    return {name: torch.cat(parts, -1) for name, parts in found.items()}


def _measured(row_sum: RowSum, rows: Rows) -> Tensor:
    given = [] if row_sum.along is None else [rows.along(row_sum.name)]
    if row_sum.prepare is not None:
        given.append(rows.prepared(row_sum.name))
    return row_sum.measure(rows, *given)
