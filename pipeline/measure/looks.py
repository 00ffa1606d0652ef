"""The first look at the rows of a split: what is accumulated of them, place by place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, pairwise

import torch
from torch import Tensor

from pipeline.data import Split
from pipeline.measure.extraction import Block, Place
from pipeline.measure.joining import joined_pairs, joined_sums
from pipeline.metrics import ClassStatistics
from pipeline.metrics.engine.pairing import PairStatistics
from pipeline.metrics.engine.plan import Plan
from pipeline.metrics.engine.settings import MeasureSettings
from pipeline.metrics.engine.unit_counts import OTHERS
from pipeline.metrics.progress import path_sums
from pipeline.metrics.registry import GIVEN, GROUP
from pipeline.networks.rows import Rows
from pipeline.runtime import ranks
from pipeline.runtime.devices import moved

Found = tuple[dict[str, Tensor], dict[str, str]]
"""Values, and why some of them are not finite."""
Key = tuple[str, ...]
"""A place; or of a part of the rows, (layer, tap, suffix of the names of its metrics)."""
BATCH_ROWS = 512
"""Rows of a batch of `cka_batch`, at most."""


@dataclass(frozen=True)
class Part:
    """Rows of a split, and their labels.

    suffix: of the names of its metrics; "" for all rows by the true labels.
    labels: (N,), of the whole split; None: those of the blocks, which are the true ones.
    chosen: (N,) bool, which samples; None: all.
    all_labelled: whether it is known that all of `labels` are of a class; see `Block`.
    """

    suffix: str = ""
    labels: Tensor | None = None
    chosen: Tensor | None = None
    all_labelled: bool = False

    def key(self, place: Place) -> Key:
        """What is found at a place is kept under this."""
        return (*place, self.suffix) if self.suffix else place

    def is_labelled(self, block: Block) -> bool:
        """Whether it is known that all of a block's samples have a label."""
        return block.all_labelled if self.labels is None else self.all_labelled

    def of(self, block: Block, rows: Rows) -> tuple[Rows, Tensor, Tensor | None]:
        """Rows and labels of a block's samples, and which samples these are."""
        if self.labels is None:
            return rows, block.labels, None
        here = slice(block.first, block.first + len(block.features))
        labels = self.labels[here].to(rows.values.device)
        if self.chosen is None:
            return rows, labels, None
        keep = self.chosen[here].to(rows.values.device)
        return rows.chosen(keep), labels[keep], keep


def parts_of(split: Split, groups: Sequence[str], plan: Plan) -> list[Part]:
    """All rows; where groups are asked for also those of each, and all by the labels that training was told."""
    parts = [Part()]
    if plan.of_parts is None or split.is_text:  # whose rows are positions, and not the samples of groups
        return parts
    if split.groups is not None:
        known = bool((split.labels >= 0).all())
        parts += [Part(f"{GROUP}{name}", split.labels, split.groups == at, known) for at, name in enumerate(groups)]
    if split.given is not None:
        parts.append(Part(GIVEN, split.given, all_labelled=bool((split.given >= 0).all())))
    return parts


def first_look(
    plan: Plan,
    rows: Rows,
    labels: Tensor,
    num_classes: int,
    kept: Tensor | None = None,
    all_labelled: bool = False,
) -> ClassStatistics:
    """Class statistics of the rows of samples with these labels; units count as active where they are not pooled.

    Rows with the label -1 do not count. Those of classes that are not `kept` (K,) count among active units only.
    """
    values, own = rows.values, rows.of(labels)
    if not all_labelled:
        values, own = _counting(values, own)
    active = rows.active
    if kept is not None and not bool(kept[own].all()):
        active = torch.count_nonzero(values).reshape(1) if active is None else active
        chosen = kept[own]
        found = plan.first_look(values[chosen], own[chosen], num_classes)
        found = replace(found, samples=found.samples + (~chosen).sum())
    else:
        found = plan.first_look(values, own, num_classes)
    if active is not None:
        found = replace(found, active=active.sum().to(found.active))
    if rows.units is not None and "counted_units" in found.extras:
        counts = rows.units.sum(0)
        if bool(counts.isnan().any()):  # of a function, which may make rows of any width
            counts = counts.new_full((values.shape[-1] + OTHERS,), float("nan"))
        found = replace(found, extras={**found.extras, "counted_units": counts})
    return found


def _counting(values: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Without rows that have no label."""
    if not len(labels) or int(labels.min()) >= 0:
        return values, labels
    counting = labels >= 0
    return values[counting], labels[counting]


class FirstLook:
    """What is accumulated of the blocks of a split, place by place.

    Attributes:
        statistics: by key.
        pairs: of two places, by both.
        paths: `path_sums` of blocks of one width in a row, by the last of them.
    """

    def __init__(self, plan: Plan, parts: Sequence[Part], num_classes: int, kept: Tensor | None = None) -> None:
        self._plan, self._parts, self._num_classes, self._kept = plan, parts, num_classes, kept
        self.statistics: dict[Key, ClassStatistics] = {}
        self.pairs: dict[tuple[Place, Place], PairStatistics] = {}
        self.paths: dict[Place, Tensor] = {}

    def add(self, block: Block) -> None:
        """Look at a block."""
        for place, rows in block.rows.items():
            for part in self._parts:
                own, labels, _ = part.of(block, rows)
                plan = self._plan.of_parts if part.suffix else self._plan
                kept = None if self._kept is None or part.suffix else self._kept.to(rows.values.device)
                known, key = part.is_labelled(block), part.key(place)
                new = first_look(plan, own, labels, self._num_classes, kept, known)
                known = self.statistics.get(key)
                self.statistics[key] = new if known is None else ClassStatistics.merged([known, new])
        if self._plan.takes("pair"):
            self._add_pairs(block)
        if self._plan.takes("path"):
            self._add_paths(block)

    def _add_pairs(self, block: Block) -> None:
        for pair in pairs_of(list(block.rows), self._plan.settings):
            first, second = (block.rows[place] for place in pair)
            if len(first.values) == len(second.values):
                new = PairStatistics.of_rows(first.values, second.values, _batches(block, first))
                known = self.pairs.get(pair)
                self.pairs[pair] = new if known is None else PairStatistics.merged([known, new])

    def _add_paths(self, block: Block) -> None:
        stretch: list[Place] = []
        blocks = [place for place, rows in block.rows.items() if place[1] == "post" and rows.samples is None]
        for place in [*blocks, None]:
            rows = None if place is None else block.rows[place].values
            if stretch and (rows is None or rows.shape != block.rows[stretch[-1]].values.shape):
                if len(stretch) > 2:
                    new = path_sums([block.rows[each].values for each in stretch])
                    self.paths[stretch[-1]] = self.paths.get(stretch[-1], 0) + new
                stretch = []
            stretch.append(place)

    def join_ranks(self) -> None:
        """Bring together pairs and paths of all ranks; the statistics go in groups of places (see `layers`)."""
        if ranks.world_size() == 1:
            return
        device = next((part.counts.device for part in self.statistics.values()), torch.device("cpu"))
        self.pairs = moved(joined_pairs(moved(self.pairs, "cpu")), device)
        self.paths = joined_sums(moved(self.paths, "cpu"))


def of_pairs(found: Mapping[tuple[Place, Place], PairStatistics], place: Place, plan: Plan) -> tuple[object, Found]:
    """What formulas take of a place and the one before it, where consecutive places are compared; else None, and what
    the place and each of the others come to, with their names at the end."""
    pairs = {before: pair for (before, after), pair in found.items() if after == place}
    if plan.settings.pairs == "consecutive":
        return next(iter(pairs.values()), None), ({}, {})
    values, reasons = {}, {}
    for before, pair in pairs.items():
        own, why = plan.of_input("pair").of_inputs({"pair": pair})
        for into, new in ((values, own), (reasons, why)):
            into |= {f"{name}/with={'/'.join(before)}": it for name, it in new.items()}
    return None, (values, reasons)


def pairs_of(places: Sequence[Place], settings: MeasureSettings) -> list[tuple[Place, Place]]:
    """Which places are compared."""
    return list(combinations(places, 2) if settings.pairs == "all" else pairwise(places))


def _batches(block: Block, rows: Rows) -> list[slice]:
    """The batches of the pass as slices of the rows, none of more than `BATCH_ROWS`."""
    each = max(1, len(rows.values) // max(1, len(block.features)))  # rows of a sample
    found, start = [], 0
    for size in block.batches:
        stop = start + size * each
        found += [slice(at, min(at + BATCH_ROWS, stop)) for at in range(start, stop, BATCH_ROWS)]
        start = stop
    return found
