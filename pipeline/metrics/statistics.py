"""Counts, class means and within-class scatter of one layer's features: all that the collapse metrics need.

A class is held as an *anchor* (one of its samples) and a *drift* (class mean - anchor). Every difference is then taken
between nearby numbers before anything is squared, so neither an offset far larger than the spread nor a nearly
collapsed class costs digits, and an exactly collapsed class has a scatter of exactly zero. Parts are combined by the
pairwise update of Chan, Golub & LeVeque (1983), which adds only non-negative terms: the same code serves chunks of one
tensor, batches of a stream and ranks of a process group.

Shapes: N samples, K classes, d features; "..." are member dimensions (runs measured at once, sharing the labels).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property

import torch
from torch import Tensor

# What does not exceed this share of a layer's root-mean-square feature is float64 rounding, and counts as zero.
NOISE = 16 * torch.finfo(torch.float64).eps

# Elements worked on at once: on a CPU they stay in a core's cache, on a GPU they make each kernel launch worth while.
CHUNK_ELEMENTS_CPU = 1 << 18
CHUNK_ELEMENTS_GPU = 1 << 24


@dataclass(frozen=True, eq=False)
class ClassStatistics:
    """Sufficient statistics of labelled features, all float64; arguments are taken as checked.

    Attributes:
        counts: samples per class, `(K,)`.
        anchors: one sample of each class, zero for a class without samples, `(..., K, d)`.
        drifts: class mean minus anchor, `(..., K, d)`.
        scatter: sum over the samples of a class of ||z - mu_c||^2, `(..., K)`.
        active: number of non-zero entries of the features, `(...)`.
        samples: number of samples seen, including those whose label is outside [0, K), `()`.
        pooled: within-class scatter matrix, sum of (z - mu_c)(z - mu_c)^T over all samples, `(..., d, d)`, or None.
        source: the features `(..., N, d)` and labels `(N,)` themselves where they are at hand, or None.
    """

    counts: Tensor
    anchors: Tensor
    drifts: Tensor
    scatter: Tensor
    active: Tensor
    samples: Tensor
    pooled: Tensor | None = None
    source: tuple[Tensor, Tensor] | None = None

    @classmethod
    def from_features(
        cls, features: Tensor, labels: Tensor, num_classes: int, *, covariance: bool = False
    ) -> ClassStatistics:
        """Measure features `(..., N, d)` of any float dtype with int64 labels `(N,)`; `covariance` asks for `pooled`.

        Never waits for a GPU, and its memory does not grow with N.
        """
        features = features.detach()
        # Merging costs as much as a chunk of K samples, whatever it holds.
        chunks = chunks_of(features, at_least=4 * num_classes)
        room = _room(features[..., chunks[0], :])
        parts = [
            cls._from_chunk(features[..., chunk, :], labels[chunk], num_classes, covariance, room) for chunk in chunks
        ]
        return replace(cls.merged(parts), source=(features, labels))

    @classmethod
    def _from_chunk(
        cls, features: Tensor, labels: Tensor, num_classes: int, covariance: bool, room: Tensor
    ) -> ClassStatistics:
        classes = _Classes(labels, num_classes)
        counts = classes.sums(room.new_ones(len(labels), 1)).squeeze(-1)
        anchors = room.new_zeros(*features.shape[:-2], num_classes, features.shape[-1])
        if len(labels):
            anchors = torch.where(counts[:, None] > 0, features.index_select(-2, classes.firsts()).double(), anchors)
        deviations = _minus_rows(features, anchors, classes.rows, room)
        drifts = classes.sums(deviations) / counts.clamp(min=1)[:, None]
        # Good to n_c roundings: an anchor is a sample of its class, so what is taken off is at most n_c times the rest.
        squares = classes.sums(torch.linalg.vector_norm(deviations, dim=-1, keepdim=True).square()).squeeze(-1)
        scatter = (squares - counts * drifts.square().sum(-1)).clamp(min=0)
        pooled = None
        if covariance:
            deviations -= drifts.index_select(-2, classes.rows)
            pooled = deviations.mT @ deviations
        return cls(
            counts=counts,
            anchors=anchors,
            drifts=drifts,
            scatter=scatter,
            active=_nonzero(features),
            samples=counts.new_full((), len(labels)),
            pooled=pooled,
        )

    @classmethod
    def merged(cls, parts: Sequence[ClassStatistics]) -> ClassStatistics:
        """Statistics of the union of `parts`, exact to rounding whatever their sizes, without their `source`."""
        if len(parts) == 1:
            return replace(parts[0], source=None)
        anchors_by_part = torch.stack([part.anchors for part in parts])  # (R, ..., K, d)
        counts_by_part = torch.stack([part.counts for part in parts])  # (R, K)
        counts = counts_by_part.sum(0)
        weights = counts_by_part.view(len(parts), *[1] * (anchors_by_part.ndim - 3), -1, 1)
        # The anchor of the largest part: a long stream keeps its own when a small batch joins it.
        largest = weights.argmax(0, keepdim=True).expand(1, *anchors_by_part.shape[1:])
        anchors = anchors_by_part.gather(0, largest).squeeze(0)
        shifts = (anchors_by_part - anchors) + torch.stack([part.drifts for part in parts])
        drifts = (weights * shifts).sum(0) / counts.clamp(min=1)[:, None]
        shifts = shifts - drifts
        weighted = weights * shifts
        pooled = None
        if parts[0].pooled is not None:
            between_parts = weighted.movedim(0, -3).flatten(-3, -2).mT @ shifts.movedim(0, -3).flatten(-3, -2)
            pooled = sum((part.pooled for part in parts), start=between_parts)
        return cls(
            counts=counts,
            anchors=anchors,
            drifts=drifts,
            scatter=torch.stack([part.scatter for part in parts]).sum(0) + (weighted * shifts).sum((0, -1)),
            active=torch.stack([part.active for part in parts]).sum(0),
            samples=torch.stack([part.samples for part in parts]).sum(0),
            pooled=pooled,
        )

    def to(self, device: torch.device | str) -> ClassStatistics:
        """The same on another device, without the `source`."""
        tensors = {entry.name: getattr(self, entry.name) for entry in fields(self) if entry.name != "source"}
        return ClassStatistics(**{name: None if part is None else part.to(device) for name, part in tensors.items()})

    @property
    def num_classes(self) -> int:
        """K, classes without samples included."""
        return self.counts.shape[-1]

    @cached_property
    def occupied(self) -> Tensor:
        """Number of classes that have samples, `()`."""
        return (self.counts > 0).sum()

    @cached_property
    def means(self) -> Tensor:
        """Class means, one per row, `(..., K, d)`; zero for a class without samples."""
        return self.anchors + self.drifts

    @cached_property
    def _from_first_mean(self) -> Tensor:
        # mu_c - mu_0 by anchors first: an offset common to all classes cancels before it can round anything away.
        return (self.anchors - self.anchors[..., :1, :]) + (self.drifts - self.drifts[..., :1, :])

    @cached_property
    def centred_means(self) -> Tensor:
        """Class means minus the mean of all samples, mu_c - mu_G, `(..., K, d)`."""
        shares = self.counts / self.counts.sum().clamp(min=1)
        return self._from_first_mean - (shares[:, None] * self._from_first_mean).sum(-2, keepdim=True)

    @cached_property
    def balanced_means(self) -> Tensor:
        """Class means minus their own unweighted mean, `(..., K, d)`; `centred_means` for equal class sizes."""
        return self._from_first_mean - self._from_first_mean.mean(-2, keepdim=True)

    @cached_property
    def within_trace(self) -> Tensor:
        """tr(Sigma_W), Sigma_W = 1/N sum (z - mu_c(z))(z - mu_c(z))^T, `(...)`."""
        return self.scatter.sum(-1) / self.counts.sum().clamp(min=1)

    @cached_property
    def between_trace(self) -> Tensor:
        """tr(Sigma_B), Sigma_B = 1/K sum_c (mu_c - mu_G)(mu_c - mu_G)^T, `(...)`."""
        return self.centred_means.square().sum((-2, -1)) / self.num_classes

    @cached_property
    def energy(self) -> Tensor:
        """Mean of ||z||^2 over the samples, `(...)`."""
        of_means = (self.means.square().sum(-1) * self.counts).sum(-1)
        return of_means / self.counts.sum().clamp(min=1) + self.within_trace

    @cached_property
    def finite(self) -> Tensor:
        """Whether all that was measured is finite, `(...)`."""
        return self.energy.isfinite()

    @cached_property
    def noise_floor(self) -> Tensor:
        """Squared length below which a difference of class means is rounding noise, `(...)`."""
        return NOISE**2 * self.energy

    @cached_property
    def mean_singular_values(self) -> Tensor:
        """All K singular values of the uncentred M, largest first, `(..., K)`; those beyond the d-th are zero."""
        values = torch.linalg.svdvals(finite_part(self.means))
        return torch.nn.functional.pad(values, (0, self.num_classes - values.shape[-1]))

    @cached_property
    def mean_norms(self) -> Tensor:
        """||mu_c||, `(..., K)`; exactly zero where it is rounding noise."""
        squares = self.means.square().sum(-1)
        return torch.where(squares > self.noise_floor[..., None], squares, 0.0).sqrt()

    def squares_along(self, directions: Tensor) -> Tensor:
        """Sum over samples of ||(z - mu_c(z)) directions||^2 for directions `(..., d, r)`, `(...)`.

        Over all samples if there is a `pooled` scatter, else over those of the `source`.
        """
        if self.pooled is not None:
            return (directions * (self.pooled @ directions)).sum((-2, -1))
        drifts = self.drifts @ directions
        return sum((z @ directions - drifts.index_select(-2, rows)).square().sum((-2, -1)) for z, rows in self.chunks())

    def chunks(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the `source` chunk by chunk: samples less the anchors of their classes `(..., n, d)`, labels `(n,)`.

        The former are overwritten by those of the next chunk.
        """
        features, labels = self.source
        chunks = chunks_of(features)
        room = _room(features[..., chunks[0], :])
        for chunk in chunks:
            yield _minus_rows(features[..., chunk, :], self.anchors, labels[chunk], room), labels[chunk]


def _room(features: Tensor) -> Tensor:
    """Where a chunk of features is worked on: memory that is got anew for every chunk costs more than the work."""
    return torch.empty(2, *features.shape, dtype=torch.float64, device=features.device)


def _minus_rows(features: Tensor, table: Tensor, rows: Tensor, room: Tensor) -> Tensor:
    """Features `(..., n, d)` minus one row each of a float64 table `(..., K, d)`, in `room` if it is of that shape."""
    exact, chosen = room if room.shape[1:] == features.shape else _room(features)
    exact.copy_(features)
    return exact.sub_(torch.index_select(table, -2, rows, out=chosen))


class _Classes:
    """Samples by class, from labels `(n,)`; those with a label outside [0, K) belong to none.

    rows: labels by which a table of K rows can be indexed; `samples` above the sum of `counts` gives the others away.
    """

    def __init__(self, labels: Tensor, num_classes: int) -> None:
        self.rows = labels.clamp(0, num_classes - 1)
        self._bins = torch.where(labels == self.rows, labels, num_classes)
        self._num_classes = num_classes

    def firsts(self) -> Tensor:
        """The number of a sample of each class, its first one, `(K,)`; any number for a class without samples."""
        numbers = torch.arange(len(self.rows), device=self.rows.device)
        found = numbers.new_full((self._num_classes + 1,), len(numbers) - 1)
        return found.scatter_reduce_(0, self._bins, numbers, "amin")[:-1]

    def sums(self, values: Tensor) -> Tensor:
        """Sums over the samples of each class, `(..., K, d)`, of float64 values `(..., n, d)`."""
        if values.device.type == "cpu":  # four times as fast as a product with so few rows
            sums = values.new_zeros(*values.shape[:-2], self._num_classes + 1, values.shape[-1])
            return sums.index_add_(-2, self._bins, values)[..., :-1, :]
        # On a GPU that would add in any order, and one after another.
        return (self._bins == torch.arange(self._num_classes, device=self._bins.device)[:, None]).double() @ values


def _nonzero(features: Tensor) -> Tensor:
    """Number of non-zero entries of features `(..., n, d)`, `(...)` float64."""
    # Written as floats at once, five times as fast as a sum of booleans; exact for a chunk's 2^24 entries.
    ones = torch.empty(features.shape, dtype=torch.float32, device=features.device)
    return torch.ne(features, 0, out=ones).sum((-2, -1)).to(torch.float64)


def finite_part(matrix: Tensor) -> Tensor:
    """Zero for NaN and infinity: LAPACK stops at the first bad member of a batch, and would take the others along."""
    return matrix.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)


def chunks_of(features: Tensor, at_least: int = 1) -> list[slice]:
    """Slices of the sample dimension of features `(..., N, d)`, at least one, each worth one chunk of elements, or
    `at_least` so many samples."""
    *members, samples, width = features.shape
    elements = CHUNK_ELEMENTS_CPU if features.device.type == "cpu" else CHUNK_ELEMENTS_GPU
    size = max(at_least, elements // max(1, math.prod(members) * width))
    return [slice(start, start + size) for start in range(0, max(1, samples), size)]
