"""Rows of features, and how they are made of an activation whose axes are known: its `Layout`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from pipeline.metrics.engine.unit_counts import unit_counts
from pipeline.networks.pooling import pooled


@dataclass(frozen=True)
class Layout:
    """Axes of an activation, and which of its tokens count.

    Attributes:
        batch, channel: the axes of samples and of channels; all others are positions.
        ndim: how many axes there are.
        tokens: start and stop of the tokens that what follows reads, all by default.
    """

    batch: int = 0
    channel: int = 1
    ndim: int = 2
    tokens: tuple[int | None, int | None] = (None, None)

    @cached_property
    def positions(self) -> tuple[int, ...]:
        """The axes that are neither samples nor channels."""
        return tuple(axis for axis in range(self.ndim) if axis not in (self.batch, self.channel))


@dataclass(frozen=True)
class Unclear:
    """Why no layout could be found, as the end of a sentence."""

    why: str
    has_rows: bool = True
    """False where there is not even an axis of samples."""


@dataclass(frozen=True)
class Rows:
    """Features `(m, d)` of n samples.

    Attributes:
        values: the rows.
        samples: the sample `(m,)` of each row; None where each of the n has one.
        active: `(n,)` float64, units of each sample that are not zero, counted before they were pooled and per row;
            None where the entries of the rows are the units themselves; NaN where that is not known.
        positions: the position `(m,)` of each row among the P positions of its sample, where not all are there.
        units: `(n, C + 68)` float64, `unit_counts` of each sample, before its positions were pooled; None where nobody
            asked, or the entries of the rows are the units themselves.
        is_own: whether it is known that nothing else lies where the values do.
    """

    values: Tensor
    samples: Tensor | None = None
    active: Tensor | None = None
    count: int | None = None
    positions: Tensor | None = None
    units: Tensor | None = None
    is_own: bool = False

    @property
    def num_samples(self) -> int:
        """n."""
        return len(self.values) if self.count is None else self.count

    def of(self, per_sample: Tensor) -> Tensor:
        """Labels or decisions of the samples `(n,)`, or of their positions `(n, P)`, as those of the rows, `(m,)`.

        Raises:
            ValueError: there is one for each position, but not a row for each.
        """
        if self.samples is None:
            if per_sample.ndim == 2:
                raise ValueError(
                    f"labels are of positions, {tuple(per_sample.shape)}, but a row is of a whole sample: "
                    "read the layer by positions (measure.positions=true)."
                )
            return per_sample
        samples = self.samples.to(per_sample.device)
        if per_sample.ndim == 1:
            return per_sample[samples]
        if self.positions is None:
            if per_sample.numel() != len(self.values):
                raise ValueError(f"{tuple(per_sample.shape)} labels of positions do not fit {len(self.values)} rows.")
            return per_sample.flatten()
        return per_sample[samples, self.positions.to(per_sample.device)]

    def chosen(self, keep: Tensor) -> Rows:
        """Those of the samples `(n,)` that are to be kept, which are numbered anew."""
        active, units = (None if it is None else it[keep] for it in (self.active, self.units))
        if self.samples is None:
            return Rows(self.values[keep], None, active, units=units)
        of_rows, numbers = keep[self.samples], keep.cumsum(0) - 1
        positions = None if self.positions is None else self.positions[of_rows]
        samples = numbers[self.samples[of_rows]]
        return Rows(self.values[of_rows], samples, active, int(keep.sum()), positions, units)

    def first(self, count: int | None) -> Rows:
        """Those of the first so many samples, all if None."""
        if count is None:
            return self
        active, units = (None if it is None else it[:count] for it in (self.active, self.units))
        if self.samples is None:
            return Rows(self.values[:count], None, active, units=units)
        keep = self.samples < count
        positions = None if self.positions is None else self.positions[keep]
        return Rows(self.values[keep], self.samples[keep], active, min(count, self.num_samples), positions, units)

    def clone(self) -> Rows:
        """With memory of its own."""
        return self if self.is_own else replace(self, values=self.values.clone(), is_own=True)

    @property
    def nbytes(self) -> int:
        """Memory that it takes."""
        own = (self.values, self.samples, self.active, self.positions, self.units)
        return sum(tensor.nbytes for tensor in own if tensor is not None)

    @classmethod
    def joined(cls, parts: list[Rows]) -> Rows:
        """Rows of the samples of all parts, in their order."""
        values = torch.cat([part.values for part in parts])
        active, units, positions = (
            None if getattr(parts[0], name) is None else torch.cat([getattr(part, name) for part in parts])
            for name in ("active", "units", "positions")
        )
        if parts[0].samples is None:
            return cls(values, None, active, units=units)
        starts = [sum(part.num_samples for part in parts[:index]) for index in range(len(parts))]
        samples = torch.cat([part.samples + start for part, start in zip(parts, starts, strict=True)])
        return cls(values, samples, active, sum(part.num_samples for part in parts), positions, units)


def made_of(value: Tensor, layout: Layout, way: str, mask: Tensor | None) -> Rows:
    """Rows of an activation by one of `WAYS`, or "auto": the mean over the tokens of the layout.

    Raises:
        ValueError: it has no tokens of which one could be read; the text ends a sentence.
    """
    if layout.ndim == 2:
        if way in ("cls", "last"):
            raise ValueError(f"gives {tuple(value.shape)}, which has no tokens of which to read one")
        return Rows(value if layout.batch == 0 else value.T)
    if way == "flatten":
        return Rows(value.movedim(layout.batch, 0).flatten(1))
    if way == "positions":
        tokens = ordered(value, layout)
        return each_position(tokens.flatten(1, -2), fitting(mask, tokens))
    if way in ("cls", "last"):
        if len(layout.positions) != 1:
            raise ValueError(f"gives {tuple(value.shape)}, which has no single axis of tokens of which to read one")
        tokens = ordered(value, layout)
        return Rows(_one_token(tokens, fitting(mask, tokens), last=way == "last"))
    return _mean(value, layout, layout.tokens if way == "auto" else (None, None), mask)


def _mean(value: Tensor, layout: Layout, tokens: tuple[int | None, int | None], mask: Tensor | None) -> Rows:
    """The mean over positions; half precision is averaged in float32."""
    dims = layout.positions
    if tokens != (None, None):
        value = value[(*(slice(None) for _ in range(dims[0])), slice(*tokens))]
        if value.shape[dims[0]] == 1:
            single = value.squeeze(dims[0])
            return Rows(single if layout.batch < layout.channel else single.T)
        mask = None if mask is None else mask[:, slice(*tokens)]
    mask = None if mask is None else fitting(mask, ordered(value, layout))
    if mask is None:
        means, active = pooled(value, layout.batch, layout.channel)
        return Rows(means, None, active, is_own=True)
    tokens_first = ordered(value, layout)
    inside = mask.to(value.device)[..., None]
    counts = inside.sum(1).clamp(min=1)
    active = ((tokens_first != 0) & inside).sum((1, 2)) / counts.squeeze(1).to(torch.float64)
    dtype = torch.promote_types(value.dtype, torch.float32)
    return Rows(tokens_first.to(dtype).masked_fill(~inside, 0).sum(1) / counts, None, active)


def ordered(value: Tensor, layout: Layout) -> Tensor:
    """The same with samples first and channels last."""
    return value.movedim((layout.batch, layout.channel), (0, -1))


def fitting(mask: Tensor | None, tokens: Tensor) -> Tensor | None:
    """The mask, if it is one of these tokens `(N, T, d)`."""
    return mask if mask is not None and tokens.ndim == 3 and mask.shape == tokens.shape[:2] else None


def each_position(values: Tensor, mask: Tensor | None) -> Rows:
    """A row of each position of `(N, P, d)`, or of each that the mask says counts."""
    count, positions = values.shape[:2]
    samples = torch.arange(count, device=values.device).repeat_interleave(positions)
    rows = values.flatten(0, 1)
    if mask is None:
        return Rows(rows, samples, None, count)
    keep = mask.to(values.device).flatten()
    numbers = torch.arange(positions, device=values.device).repeat(count)
    return Rows(rows[keep], samples[keep], None, count, numbers[keep])


def counted(value: Tensor, layout: Layout, mask: Tensor | None) -> Tensor | None:
    """`unit_counts` of each sample of an activation, `(N, C + 68)`; None where it has no positions to pool."""
    if layout.ndim == 2:
        return None
    tokens = ordered(value, layout)
    return unit_counts(tokens.flatten(1, -2), fitting(mask, tokens))


def _one_token(tokens: Tensor, mask: Tensor | None, *, last: bool) -> Tensor:
    if mask is None:
        return tokens[:, -1 if last else 0]
    numbers = torch.arange(tokens.shape[1], device=tokens.device)
    inside = mask.to(tokens.device)
    chosen = torch.where(inside, numbers, -1).amax(1) if last else torch.where(inside, numbers, len(numbers)).amin(1)
    return tokens[torch.arange(len(tokens), device=tokens.device), chosen.clamp(0, len(numbers) - 1)]
