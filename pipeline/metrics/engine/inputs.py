"""What formulas take at a place, by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pipeline.metrics import registry
from pipeline.metrics.engine import many_classes
from pipeline.metrics.engine.settings import DEFAULT, MeasureSettings
from pipeline.metrics.engine.statistics import ClassStatistics, finite_part
from pipeline.metrics.registry import Metric
from pipeline.runtime.devices import moved

if TYPE_CHECKING:
    from pipeline.metrics.engine.plan import Plan


class Inputs:
    """What formulas may take at a place, by name (`registry.INPUTS`, statistics, sums over rows), all of it on the CPU.

    Args:
        statistics: of the rows.
        reference: of the training split's rows; those of the rows themselves by default.
        weight, next_weight: what the rows enter, and what comes after it, of any float dtype; None where not known.
        sums: those over rows, by name.
        judged: how many rows they are of.
        more: other inputs by name (`registry.INPUTS`), and numbers of each row.
        settings: with the sizes of classes that are left out: of the statistics, and of the rows of a classifier.

    Attributes:
        counting: the classes that count, int64 `(K',)`; all where fewer than two do, of which nothing is measured.
    """

    def __init__(
        self,
        statistics: ClassStatistics,
        reference: ClassStatistics | None = None,
        weight: Tensor | None = None,
        next_weight: Tensor | None = None,
        sums: Mapping[str, Tensor] | None = None,
        judged: Tensor | int | None = None,
        settings: MeasureSettings = DEFAULT,
        more: Mapping[str, object] | None = None,
    ) -> None:
        statistics, reference = statistics.on_cpu, None if reference is None else reference.on_cpu
        # In one copy, if they come from a GPU.
        sums, judged, more, weight, next_weight = moved(
            (dict(sums or {}), judged, dict(more or {}), weight, next_weight), "cpu"
        )
        self.sums = sums
        kept, candidates = kept_classes(settings, statistics, reference)
        num_classes = statistics.num_classes
        self._raw, statistics = statistics, statistics.counting(kept)
        everyone = torch.arange(num_classes)
        self.counting = everyone if statistics.num_classes == num_classes else everyone[kept]
        if statistics.num_classes < num_classes:
            self.sums = {name: _of_kept(name, found, kept, statistics) for name, found in self.sums.items()}
        reference = statistics if reference is None else reference.counting(candidates)
        double = lambda matrix: None if matrix is None else matrix.detach().to(statistics.means)  # noqa: E731
        self._values = {
            "statistics": statistics,
            "reference": reference,
            "weight": double(weight),
            "next_weight": double(next_weight),
            "last_weight": double(next_weight),  # unless `more` knows that something stands between the two
            "judged": judged,
            "settings": settings,
            **statistics.views,
            **statistics.extras,
            **more,
        }
        if kept is not None and self._values.get("groups") is not None:
            self._values["groups"] = [group.counting(kept) for group in self._values["groups"]]
        if weight is not None:
            last = next_weight is None and weight.shape[-2] == num_classes
            own = self._values["weight"]
            if last and statistics.num_classes < num_classes:
                own = own.index_select(-2, kept.nonzero().squeeze(-1))
            self._values["classifier"] = own if last else None
            self._beside_rows = own

    @property
    def counts(self) -> Tensor:
        """How many rows each class has, `(K,)`, those left out included."""
        return self._raw.counts

    def of_all_classes(self, found: Tensor) -> Tensor:
        """Values `(..., K')` of the classes that count among those of all, `(..., K)`; NaN for the others."""
        whole = found.new_full((*found.shape[:-1], self._raw.num_classes), float("nan"))
        return whole.index_copy(-1, self.counting, found)

    def offers(self, names: Iterable[str]) -> bool:
        """Whether all of these are there."""
        return all(self[name] is not None for name in names)

    def arguments(self, metric: Metric) -> list[Tensor | ClassStatistics | int]:
        """What it takes; a weight beside rows is without a classifier's rows of the classes left out."""
        return [self._beside_rows if name == "weight" and metric.of_rows else self[name] for name in metric.takes]

    def is_mixed(self, plan: Plan, name: str) -> bool:
        """Whether a metric takes an accumulated statistic that rows of classes left out have gone into."""
        statistics = self["statistics"]
        known = {row_sum.name: row_sum.instead_takes for row_sum in plan._substituted}
        takes = registry.metrics()[name].takes
        used = {*takes, *(extra for sums in takes for extra in known.get(sums, ()))} & statistics.extras.keys()
        spoilt = [extra for extra in used if bool(statistics.extras[extra].isnan().all())]
        return any(not bool(self._raw.extras[extra].isnan().all()) for extra in spoilt)

    def __getitem__(self, name: str) -> Tensor | ClassStatistics | int | None:
        if name == "spectrum" and name not in self._values and self._values["weight"] is not None:
            self._values[name] = spectrum(self._values["weight"], len(self._raw.counts) >= many_classes.MANY)
        return self._values.get(name, self.sums.get(name))


MIXED = (
    "samples of classes left out by min_samples have gone into what is accumulated for it: "
    "a second look (covariance=False and look_again, or layer_metrics) leaves them out"
)


def _of_kept(name: str, found: Tensor, kept: Tensor, counting: ClassStatistics) -> Tensor:
    """A sum over rows without its entries of classes left out."""
    width, row_sum = counting.means.shape[-1], registry.row_sums()[name]
    sizes = zip(row_sum.size(len(kept), width), row_sum.size(counting.num_classes, width), strict=True)
    for dim, (full, less) in enumerate(reversed(list(sizes)), start=1):
        found = found.index_select(-dim, kept.nonzero().squeeze(-1)) if full != less else found
    return found


def kept_classes(
    settings: MeasureSettings, own: ClassStatistics, reference: ClassStatistics | None = None
) -> tuple[Tensor | None, Tensor | None]:
    """Which classes count, in rows and among the means of the training split, `(K,)` each; None, None if all do.

    A class of the rows counts if it does in the training split as well.
    """
    candidates = _counting(settings, (reference or own).counts)
    kept = candidates & _counting(settings, own.counts)
    return (None, None) if bool(kept.all()) else (kept, candidates)


def _counting(settings: MeasureSettings, counts: Tensor) -> Tensor:
    enough = counts >= settings.min_samples
    return enough if settings.max_samples is None else enough & (counts <= settings.max_samples)


def spectrum(matrix: Tensor, large: bool = False) -> Tensor:
    """Singular values of a float64 matrix `(..., m, n)`, largest first; NaN for a member that is not finite.

    A large one is made a triangle first.
    """
    finite = matrix.isfinite().all(-1).all(-1)[..., None]
    decompose = many_classes.singular_values if large else torch.linalg.svdvals
    return torch.where(finite, decompose(finite_part(matrix)), float("nan"))
