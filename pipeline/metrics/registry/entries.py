"""Metrics, statistics and sums over rows as entries of the registry, and the decorators that make them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from torch import Tensor

from pipeline.metrics.engine.undefined import Exceptional, Formula, except_when

if TYPE_CHECKING:
    from pipeline.metrics.engine.chunks import Chunk
    from pipeline.metrics.engine.sums import ClassSums

INPUTS = {
    "statistics": "`ClassStatistics` of the rows",
    "reference": "`ClassStatistics` of the training split's rows: the rows' own, unless they are of another split",
    "unit": "`ClassStatistics` of the rows at length one, `z / ||z||`, without rows of norm zero",
    "judged": "number of rows that sums over rows are of",
    "groups": "`ClassStatistics` of the rows of each group, a list",
    "foreign": "`ClassStatistics` of rows of foreign data, all in class 0",
    "profile": "values of a metric at the places of a network in order, `(places,)`",
    "path": "two sums over images along blocks of one width: of length over way, and how many they are",
    "pair": "`PairStatistics` of the rows and those of the place before",
    "gradients": "mean of g g^T `(out, out)`, summed over outputs, g the gradient of one by what the weight gives",
    "jacobians": "`BlockOfStack`: a block among others in a row, with the Jacobians of all of them",
    "stack": "`BlockStack`: those blocks, with their last one",
    "leaky": "`LayerOfPath`: a layer of a leaky residual network, with the path of the training rows through all",
    "trajectory": "`LeakyPath`: that path, with its last layer",
    "settings": "`MeasureSettings`",
    "weight": "the weight `(..., out, d)` that the rows enter, float64",
    "spectrum": "its singular values, largest first",
    "next_weight": "the weight `(..., out', out)` that comes after it",
    "last_weight": "that one, where nothing stands between the two: no activation, no norm",
    "classifier": "the weight, if it has one row per class and none comes after it",
}
"""What any formula may take."""

VIEWS = ("unit",)
"""Those that are class statistics of something else than the rows as they are: accumulated only where taken."""

OF_RUNS = ("jacobians", "stack", "leaky", "trajectory")
"""Those that only runs have, which know how their network is built."""

OF_NETWORKS = ("profile", "path", *OF_RUNS)
"""Those that only a pass of a whole network gives, and `layer_metrics` and streams never have."""

BEYOND_A_LAYER = ("groups", "foreign", "pair", "gradients", *OF_NETWORKS)
"""Those that rows of one layer, labels and weights do not give."""

OF_TRAINING = ("gradients", "settings", *OF_RUNS)
"""Those that are of the training images alone, whatever split the rows are of."""

OF_WEIGHTS = ("weight", "spectrum", "next_weight", "last_weight", "classifier")
"""Those that do not depend on the rows."""

NEEDS = ("nearest", "decisions", *VIEWS)
"""What a sum over rows may need: that nearest class means are asked for, the decisions of the network, or views."""

SCALES = ("log", "linear")
INVARIANCES = ("rotation", "scaling", "translation")
"""Of the features, weights turning with them, under which a metric may promise not to change."""
GROUP, GIVEN = "/group=", "/labels=given"
"""Ends the name that a metric has on the rows of one group, and by the labels that training was told."""
TEST = "test_"
"""Begins the name that a metric has on the test split."""

Shape = Callable[[int, int], tuple[int, ...]]
Merge = Callable[[Sequence[Tensor], Tensor, Tensor], Tensor]
"""Values of the parts, their class means less those of the whole `(R, ..., K, d)`, counts `(R, ..., K, 1)`. It has to
be a sum over parts: ranks add what each makes of its own."""

Entry = TypeVar("Entry", "Metric", "Statistic", "RowSum", "RowValue")
FOREIGN = "foreign_"
"""Begins the name of a number of each foreign row."""


class Named:
    """An entry of the registry; pickled as its name, because what it holds may not be."""

    name: str

    def __reduce__(self) -> tuple:
        return _registered, (type(self).__name__, self.name)


@dataclass(frozen=True)
class Metric(Named):
    """A registered metric.

    Attributes:
        name: as in the record.
        title: of a panel or a column.
        target: the value at collapse; None if there is none.
        scale: of an axis, "log" or "linear".
        panel: whether figures, reports and dashboards draw it by default.
        invariant: which of `INVARIANCES` it promises; the tests hold it to that.
        version: to be raised when its numbers change; kept results of another version are not used.
        family: the file that defines it, without its ending.
        formula: float64 values `(...)` of what it takes.
        takes: the names of what it takes.
        summary: the first sentence of its docstring.
    """

    name: str
    title: str
    target: float | None = None
    scale: str = "log"
    panel: bool = False
    invariant: tuple[str, ...] = ()
    version: int = 1
    family: str = ""
    formula: Formula = field(default=None, repr=False, compare=False)
    takes: tuple[str, ...] = ()
    summary: str = ""

    @property
    def of_rows(self) -> bool:
        """Whether it depends on the rows, so that the test split has a value of its own (`test_...`)."""
        return any(name not in (*OF_WEIGHTS, *OF_TRAINING) for name in self.takes)


@dataclass(frozen=True)
class Statistic(Named):
    """Something accumulated in the first look at the rows, beside counts, means and scatter.

    Attributes:
        shape: takes (K, d) and gives the shape, without member dimensions.
        measure: float64 values `(..., *shape)` of a chunk of rows.
        merge: "sum", "max", or a function that merges the values of parts.
        within: whether rows go into it only by what they are off the mean of their class, so that a class whose rows
            are all alike, as a single one is, leaves no trace.
        of_all_rows: whether it is of rows of classes that are left out, too.
        of_sums: whether `measure` takes no more of a chunk than `ClassSums` has, so that rows need not be kept for it.
    """

    name: str
    shape: Shape
    measure: Callable[[Chunk], Tensor] | Callable[[ClassSums], Tensor]
    merge: str | Merge
    within: bool = False
    of_all_rows: bool = False
    of_sums: bool = False


@dataclass(frozen=True)
class RowSum(Named):
    """A sum over rows that takes a second look at them, because class means have to be known.

    Attributes:
        measure: the sum over a chunk of rows, from `Rows`; with `along` also the rows' deviations from their class
            means along those directions, `(..., n, r)`; with `prepare` also what that has made.
        needs: which of `NEEDS` it needs.
        along: directions `(..., d, r)` from the class statistics.
        prepare: makes a tensor once, before the look, of what it takes: `statistics`, `reference`, `settings`, and
            declared statistics, which are those of the reference.
        shape: of the sum, from (K, d), without member dimensions; a number by default.
        instead: gives the same from what it takes, like a formula, where rows cannot be looked at again.
    """

    name: str
    measure: Callable[..., Tensor]
    needs: tuple[str, ...] = ()
    along: Callable[..., Tensor] | None = None
    prepare: Callable[..., Tensor] | None = None
    shape: Shape | None = None
    instead: Callable[..., Tensor] | None = None

    def size(self, num_classes: int, num_features: int) -> tuple[int, ...]:
        """Shape of the sum, () for a number."""
        return () if self.shape is None else tuple(self.shape(num_classes, num_features))

    @property
    def prepare_takes(self) -> tuple[str, ...]:
        """Names of what `prepare` takes."""
        return () if self.prepare is None else parameters_of(self.prepare)

    @property
    def instead_takes(self) -> tuple[str, ...]:
        """Names of what `instead` takes."""
        return () if self.instead is None else parameters_of(self.instead)


@dataclass(frozen=True)
class RowValue(Named):
    """A number for each row `(..., n)`, kept: of the rows themselves, and as `foreign_NAME` of foreign ones.

    Attributes:
        measure: the numbers of a chunk of rows, from `Rows` and what `prepare` has made.
        prepare: as of a `RowSum`; for foreign rows it is made of the training split, too.
    """

    name: str
    measure: Callable[..., Tensor]
    prepare: Callable[..., Tensor]

    @property
    def prepare_takes(self) -> tuple[str, ...]:
        """Names of what `prepare` takes."""
        return parameters_of(self.prepare)


METRICS: dict[str, Metric] = {}
ROW_VALUES: dict[str, RowValue] = {}
STATISTICS: dict[str, Statistic] = {}
ROW_SUMS: dict[str, RowSum] = {}
"""What the families imported so far have registered, by name, in the order of definition."""

_homes: dict[str, str] = {}


def metric(
    *undefined: Exceptional,
    title: str,
    target: float | None = None,
    scale: str = "log",
    panel: bool = False,
    invariant: tuple[str, ...] = (),
    version: int = 1,
) -> Callable[[Formula], Formula]:
    """Register a formula as a metric under its own name; see `Metric`.

    Args:
        undefined: in which cases it has no finite value; they get what the formula takes, and the first counts.

    Raises:
        ValueError: for a name that is taken or begins with "test_", an unknown scale or invariance.
    """
    _check_among("scale", (scale,), SCALES)
    _check_among("invariant", invariant, INVARIANCES)

    def register(formula: Formula) -> Formula:
        name = formula.__name__
        if name.startswith(TEST):
            raise ValueError(f"a metric's name must not begin with {TEST!r}, got {name!r}: the test split's names do.")
        guarded = except_when(*undefined)(formula)
        family, takes = formula.__module__.rpartition(".")[2], parameters_of(formula)
        summary = (inspect.getdoc(formula) or "").partition("\n\n")[0].replace("\n", " ")
        own = Metric(name, title, target, scale, panel, invariant, version, family, guarded, takes, summary)
        add(METRICS, own, formula)
        return guarded

    return register


def statistic(
    *, shape: Shape, merge: str | Merge, within: bool = False, of_all_rows: bool = False, of_sums: bool = False
) -> Callable[[Callable[[Chunk], Tensor]], Statistic]:
    """Register a function of a chunk of rows as a statistic under its own name; see `Statistic`.

    Raises:
        ValueError: for a name that is taken, or an unknown way to merge.
    """
    if not callable(merge) and merge not in ("sum", "max"):
        raise ValueError(f"merge must be sum, max or a function, got {merge!r}.")

    def register(measure: Callable[[Chunk], Tensor]) -> Statistic:
        own = Statistic(measure.__name__, shape, measure, merge, within, of_all_rows, of_sums)
        return add(STATISTICS, own, measure)

    return register


def row_sum(
    *,
    needs: tuple[str, ...] = (),
    along: Callable[..., Tensor] | None = None,
    prepare: Callable[..., Tensor] | None = None,
    shape: Shape | None = None,
    instead: Callable[..., Tensor] | None = None,
) -> Callable[[Callable[..., Tensor]], RowSum]:
    """Register a function of `Rows` as a sum over rows under its own name; see `RowSum`.

    Raises:
        ValueError: for a name that is taken, or an unknown need.
    """
    _check_among("needs", needs, NEEDS)

    def register(measure: Callable[..., Tensor]) -> RowSum:
        return add(ROW_SUMS, RowSum(measure.__name__, measure, needs, along, prepare, shape, instead), measure)

    return register


def row_value(*, prepare: Callable[..., Tensor]) -> Callable[[Callable[..., Tensor]], RowValue]:
    """Register a function of `Rows` and of what `prepare` has made as a number for each row; see `RowValue`.

    Raises:
        ValueError: for a name that is taken.
    """

    def register(measure: Callable[..., Tensor]) -> RowValue:
        return add(ROW_VALUES, RowValue(measure.__name__, measure, prepare), measure)

    return register


def _check_among(name: str, values: tuple[str, ...], allowed: tuple[str, ...]) -> None:
    for value in values:
        if value not in allowed:
            raise ValueError(f"{name} must be of {', '.join(allowed)}, got {value!r}.")


def _registered(kind: str, name: str) -> Named:
    from pipeline.metrics.registry import listing  # loads families, which import this module

    known = {
        "Metric": listing.metrics,
        "Statistic": listing.statistics,
        "RowSum": listing.row_sums,
        "RowValue": listing.row_values,
        "ClassValue": listing.class_values,
    }
    return known[kind]()[name]


def add(entries: dict[str, Entry], entry: Entry, function: Callable, known_as: str | None = None) -> Entry:
    """Enter it; the same function of the same module again, as in a notebook, replaces what it was.

    `known_as`: what must be nobody else's, by default the name.
    """
    name, home = known_as or entry.name, f"{function.__module__}.{function.__qualname__}"
    if name in INPUTS or _homes.setdefault(name, home) != home:
        raise ValueError(f"the name {name!r} is taken by {_homes.get(name, 'an input of formulas')}; got {home}.")
    entries[entry.name] = entry
    return entry


def parameters_of(function: Callable) -> tuple[str, ...]:
    """Names of the parameters without a default."""
    parameters = inspect.signature(function).parameters.values()
    return tuple(parameter.name for parameter in parameters if parameter.default is parameter.empty)
