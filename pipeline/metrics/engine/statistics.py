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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor

from pipeline.metrics import registry
from pipeline.metrics.engine import many_classes
from pipeline.metrics.engine.chunks import Chunk, chunks_of
from pipeline.metrics.engine.sums import ClassSums, scratch_for
from pipeline.metrics.engine.views import viewed
from pipeline.runtime.devices import STAYS, moved, with_float64

# What does not exceed this share of a layer's root-mean-square feature is float64 rounding, and counts as zero.
NOISE = 16 * torch.finfo(torch.float64).eps


def roundoff_of(dtype: torch.dtype) -> float:
    """Relative rounding of features computed in a dtype, as it enters cut-offs: 16 eps of float64, 2 eps of float32,
    and a third of the eps of half types, which are rounded once, after sums in float32."""
    eps = torch.finfo(dtype).eps
    if dtype == torch.float64:
        return NOISE
    return max(2 * torch.finfo(torch.float32).eps, eps / 3)


@dataclass(frozen=True, eq=False)
class ClassStatistics:
    """Sufficient statistics of labelled features, all float64; arguments are taken as checked.

    Attributes:
        counts: samples per class, `(K,)`.
        anchors: one sample of each class, zero for a class without samples, `(..., K, d)`.
        drifts: class mean minus anchor, `(..., K, d)`.
        scatter: sum over the samples of a class of ||z - mu_c||^2, `(..., K)`.
        active: number of non-zero entries of the features, `(...)`; where these are averages over units, that of the
            units, divided by how many there are in an average.
        samples: number of samples seen, including those whose label is outside [0, K), `()`.
        roundoff: relative rounding of the coarsest dtype that features were in, `()` (`roundoff_of`); 0 if none came.
        extras: what was accumulated of the statistics that families declare, by name, `(..., *shape)`.
        views: class statistics of something else than the rows as they are, by name (`registry.VIEWS`).
        left_out: how many classes have been left out of these, see `counting`.
        counted: how many classes count, where these are fewer than two and so have not been taken out.
        source: the features `(..., N, d)` and labels `(N,)` themselves where they are at hand, or None.
    """

    counts: Tensor
    anchors: Tensor
    drifts: Tensor
    scatter: Tensor
    active: Tensor
    samples: Tensor
    roundoff: Tensor
    extras: Mapping[str, Tensor] = field(default_factory=dict)
    views: Mapping[str, ClassStatistics] = field(default_factory=dict)
    left_out: int = 0
    counted: int | None = None
    source: tuple[Tensor, Tensor] | None = field(default=None, metadata=STAYS)

    @classmethod
    def from_features(
        cls,
        features: Tensor,
        labels: Tensor,
        num_classes: int,
        *,
        extras: Sequence[registry.Statistic] = (),
        views: Sequence[str] = (),
        computed_in: torch.dtype | None = None,
    ) -> ClassStatistics:
        """Measure features `(..., N, d)` of any float dtype with int64 labels `(N,)`, and these statistics besides.

        Views are of rows without member dimensions: which rows they leave out may differ from member to member.
        `computed_in` is the dtype that the features were computed in, where they have been converted since.
        Never waits for a GPU, and its memory does not grow with N. Rows on a device without float64 come to the CPU.
        """
        features, labels = with_float64(features.detach(), labels)
        # Merging costs as much as a chunk of K samples, whatever it holds.
        wide = is_wide(extras, num_classes, features.shape[-1])
        of_tile = features[..., chunks_of(features)[0], :]
        # A wide statistic, d x d, is worth a chunk of many tiles, which costs no memory.
        at_least = max(4 * num_classes, 16 * of_tile.shape[-2] * (wide and features.ndim == 2))
        chunks = chunks_of(features, at_least)
        # Where a chunk is of several tiles, buffers of one suffice.
        tiled = features.ndim == 2 and features.device.type == "cpu" and num_classes >= many_classes.MANY
        scratch = scratch_for(of_tile if wide or tiled else features[..., chunks[0], :])
        parts = [
            cls.of_sums(Chunk(features[..., chunk, :], labels[chunk], num_classes, scratch, wide), extras)
            for chunk in chunks
        ]
        roundoff = max(roundoff_of(features.dtype), roundoff_of(computed_in or features.dtype))
        parts[0] = replace(parts[0], roundoff=parts[0].counts.new_full((), roundoff if len(labels) else 0.0))
        coarsest = computed_in or features.dtype
        found = {name: cls._viewed(name, features, labels, num_classes, coarsest) for name in views}
        return replace(cls.merged(parts), views=found, source=(features, labels))

    @classmethod
    def _viewed(
        cls, name: str, features: Tensor, labels: Tensor, num_classes: int, computed_in: torch.dtype
    ) -> ClassStatistics:
        pieces = viewed(name, features, labels)
        return cls.merged([cls.from_features(*piece, num_classes, computed_in=computed_in) for piece in pieces])

    @classmethod
    def of_sums(
        cls, sums: ClassSums, extras: Sequence[registry.Statistic] = (), roundoff: float = 0.0
    ) -> ClassStatistics:
        """Those of a chunk of rows, or of tiles that are gone, if that is all that the extras take (`of_sums`)."""
        drifts = sums.drifts
        # Good to n_c roundings: an anchor is a sample of its class, so what is taken off is at most n_c times the rest.
        scatter = (sums.squares - sums.counts * drifts.square().sum(-1)).clamp(min=0)
        return cls(
            counts=sums.counts,
            anchors=sums.anchors,
            drifts=drifts,
            scatter=scatter,
            active=sums.nonzero,
            samples=sums.counts.new_full((), sums.samples),
            roundoff=sums.counts.new_full((), roundoff),
            extras={statistic.name: statistic.measure(sums) for statistic in extras},
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
        return cls(
            counts=counts,
            anchors=anchors,
            drifts=drifts,
            scatter=torch.stack([part.scatter for part in parts]).sum(0) + (weighted * shifts).sum((0, -1)),
            active=torch.stack([part.active for part in parts]).sum(0),
            samples=torch.stack([part.samples for part in parts]).sum(0),
            roundoff=torch.stack([part.roundoff for part in parts]).amax(0),
            extras={
                name: _merged(name, [part.extras[name] for part in parts], shifts, weights) for name in parts[0].extras
            },
            views={name: cls.merged([part.views[name] for part in parts]) for name in parts[0].views},
        )

    def to(self, device: torch.device | str) -> ClassStatistics:
        """The same on another device, without the `source`."""
        return moved(replace(self, source=None), device)

    @cached_property
    def on_cpu(self) -> ClassStatistics:
        """The same on the CPU, where formulas are worked out: of O(K d) numbers they are thousands of tiny operations,
        each of which a GPU would be told, and waited for, one by one. The `source` stays where it is."""
        return moved(self, "cpu")

    def member(self, index: tuple[int, ...]) -> ClassStatistics:
        """Those of one member, with its `source`; all of them where there are no members."""
        if self.anchors.ndim == 2:
            return self
        own = {name: getattr(self, name)[index] for name in ("anchors", "drifts", "scatter", "active")}
        extras = {name: values[index] for name, values in self.extras.items()}
        source = None if self.source is None else (self.source[0][index], self.source[1])
        return replace(self, **own, extras=extras, source=source)

    def having(self, extras: Sequence[registry.Statistic]) -> ClassStatistics:
        """The same with these declared statistics, measured of the `source` where they are lacking.

        Raises:
            ValueError: if there is no source.
        """
        lacking = [statistic for statistic in extras if statistic.name not in self.extras]
        if not lacking:
            return self
        if self.source is None:
            names = ", ".join(statistic.name for statistic in lacking)
            raise ValueError(f"the statistics of the training split must hold {names}, or the rows themselves.")
        found = type(self).from_features(*self.source, self.num_classes, extras=lacking)
        return replace(self, extras={**self.extras, **moved(found.extras, self.counts.device)})

    def emptied(self, kept: Tensor) -> ClassStatistics:
        """The same with no samples in classes that are not `kept` `(K,)`; extras and source stay as they are."""
        counts, scatter = (torch.where(kept, values, 0.0) for values in (self.counts, self.scatter))
        return replace(self, counts=counts, scatter=scatter)

    def counting(self, kept: Tensor | None) -> ClassStatistics:
        """Those of the classes that are `kept` `(K,)` alone, K' of them; all if None.

        What is accumulated class by class is left out; what is accumulated over all rows (the share of active units)
        stays, but for declared statistics, which become NaN where rows of classes left out have gone into them. With
        fewer than two classes kept there is nothing to measure, and `counted` says so.
        """
        if kept is None:
            return self
        chosen, width = kept.nonzero().squeeze(-1), self.means.shape[-1]
        left_out = self.num_classes - len(chosen)
        views = {name: view.counting(kept) for name, view in self.views.items()}
        if len(chosen) < 2:
            return replace(self, views=views, left_out=left_out, counted=len(chosen))
        without_rows, without_scatter = (not bool(of[..., ~kept].any()) for of in (self.counts, self.scatter))
        extras = {}
        for name, values in self.extras.items():
            known = registry.statistics()[name]
            if known.of_all_rows:
                extras[name] = values
                continue
            shape = known.shape
            sizes = zip(shape(self.num_classes, width), shape(len(chosen), width), strict=True)
            of_classes = [full != less for full, less in sizes]
            for dim, of_class in enumerate(reversed(of_classes), start=1):
                values = values.index_select(-dim, chosen) if of_class else values
            clean = without_scatter if registry.statistics()[name].within else without_rows
            extras[name] = values if clean or any(of_classes) else torch.full_like(values, float("nan"))
        rows = {name: getattr(self, name).index_select(-2, chosen) for name in ("anchors", "drifts")}
        of_classes = {name: getattr(self, name).index_select(-1, chosen) for name in ("counts", "scatter")}
        return replace(self, **rows, **of_classes, extras=extras, views=views, left_out=left_out)

    @property
    def num_classes(self) -> int:
        """K, classes without samples included."""
        return self.counts.shape[-1]

    @property
    def num_counted(self) -> int:
        """K', the number of classes that count."""
        return self.num_classes if self.counted is None else self.counted

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
        finite = finite_part(self.means)
        many = self.num_classes >= many_classes.MANY
        values = many_classes.singular_values(finite) if many else torch.linalg.svdvals(finite)
        return torch.nn.functional.pad(values, (0, self.num_classes - values.shape[-1]))

    @cached_property
    def mean_norms(self) -> Tensor:
        """||mu_c||, `(..., K)`; exactly zero where it is rounding noise."""
        squares = self.means.square().sum(-1)
        return torch.where(squares > self.noise_floor[..., None], squares, 0.0).sqrt()

    @cached_property
    def pair_distances(self) -> Tensor:
        """||mu_i - mu_j||^2 of all pairs i < j, `(..., K (K - 1) / 2)`."""
        first, second = self.pairs
        return distances(self.centred_means, self.centred_means)[..., first, second].square()

    @property
    def pairs(self) -> Tensor:
        """The classes of all pairs i < j, `(2, K (K - 1) / 2)`."""
        return torch.triu_indices(self.num_classes, self.num_classes, 1, device=self.means.device)

    @cached_property
    def spectrum_floor(self) -> Tensor:
        """Singular value up to which one of a matrix of K class means is rounding of the features, `(...)`.

        Features computed in a dtype are off by its `roundoff` times themselves, whatever is taken off them later, and
        a matrix of such errors has singular values up to about that times the longest row and column of the uncentred
        M together. Errors alike in all samples of a class do not average out, so n does not enter.
        """
        longest_row = torch.maximum(self.energy.sqrt(), torch.linalg.vector_norm(self.means, dim=-1).amax(-1))
        longest_column = torch.linalg.vector_norm(self.means, dim=-2).amax(-1)
        return self.roundoff.clamp(min=NOISE) * (longest_row + longest_column)

    def negligible(self, largest: Tensor) -> Tensor:
        """Singular value of class means up to which it is rounding noise: of the decomposition, or of the features."""
        of_svd = max(self.means.shape[-2:]) * torch.finfo(torch.float64).eps * largest
        return torch.maximum(of_svd, self.spectrum_floor)


def is_wide(extras: Sequence[registry.Statistic], num_classes: int, width: int) -> bool:
    """Whether one of these declared statistics is as large as a d x d matrix."""
    return any(math.prod(statistic.shape(num_classes, width)) >= width**2 for statistic in extras)


def finite_part(matrix: Tensor) -> Tensor:
    """Zero for NaN and infinity: LAPACK stops at the first bad member of a batch, and would take the others along."""
    return matrix.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)


def distances(rows: Tensor, others: Tensor) -> Tensor:
    """||r_i - o_j|| `(..., m, n)` by differences, which a product of the two would lose, without holding them all."""
    return torch.cdist(rows, others, compute_mode="donot_use_mm_for_euclid_dist")


def _merged(name: str, values: Sequence[Tensor], shifts: Tensor, weights: Tensor) -> Tensor:
    """A declared statistic of the whole from those of its parts, see `registry.Statistic`."""
    merge = registry.statistics()[name].merge
    if merge == "sum":
        return torch.stack(tuple(values)).sum(0)
    if merge == "max":
        return torch.stack(tuple(values)).amax(0)
    return merge(values, shifts, weights)
