"""Which metrics there are. The file is the registration: `pipeline/metrics/<family>.py` holds a family of metrics.

    @metric(*MEANS_EXIST, title="Longest over shortest class mean", target=1.0)
    def norm_ratio(statistics: ClassStatistics) -> Tensor:
        norms = statistics.mean_norms
        return norms.amax(-1) / norms.amin(-1)

A metric is a pure formula. What it takes, by the names of its parameters, says all the rest: where it can be measured,
whether the test split has its twin, what has to be accumulated for it. It may take

* each of `INPUTS`: the class statistics of the rows, the weight that they enter, ...;
* a *statistic* that some family declares with `@statistic`: one more thing to accumulate in the first look at the rows;
* a *sum over rows* that some family declares with `@row_sum`: what the rows come to once class means are known, in a
  second look.

`@class_value` registers what there is of every class beside a family's metrics (see `registry.of_classes`).

A file that says `optional(__name__)` is measured only if its family is asked for, and what it alone takes is then not
accumulated either.

Nothing else lists metrics: rows of the record, tracker, streams, tables and figures all ask `metrics`.
"""

from typing import TYPE_CHECKING

from pipeline.runtime.on_demand import passes_on

if TYPE_CHECKING:
    from pipeline.metrics.registry.classes import CLASS, FEW_CLASSES
    from pipeline.metrics.registry.entries import (
        BEYOND_A_LAYER,
        FOREIGN,
        GIVEN,
        GROUP,
        INPUTS,
        INVARIANCES,
        OF_NETWORKS,
        OF_RUNS,
        OF_WEIGHTS,
        TEST,
        VIEWS,
        Metric,
        RowSum,
        RowValue,
        Statistic,
        metric,
        row_sum,
        row_value,
        statistic,
    )
    from pipeline.metrics.registry.family import ALL, CORE, Family, known_families, optional
    from pipeline.metrics.registry.listing import (
        base_name,
        chosen,
        class_values,
        class_values_of,
        entry,
        families,
        metrics,
        of_families,
        row_sums,
        row_values,
        signature,
        statistics,
        table,
    )
    from pipeline.metrics.registry.of_classes import ClassValue, class_value

__all__ = [
    "ALL",
    "BEYOND_A_LAYER",
    "CLASS",
    "CORE",
    "FEW_CLASSES",
    "FOREIGN",
    "GIVEN",
    "GROUP",
    "INPUTS",
    "INVARIANCES",
    "OF_NETWORKS",
    "OF_RUNS",
    "OF_WEIGHTS",
    "TEST",
    "VIEWS",
    "ClassValue",
    "Family",
    "Metric",
    "RowSum",
    "RowValue",
    "Statistic",
    "base_name",
    "chosen",
    "class_value",
    "class_values",
    "class_values_of",
    "entry",
    "families",
    "known_families",
    "metric",
    "metrics",
    "of_families",
    "optional",
    "row_sum",
    "row_sums",
    "row_value",
    "row_values",
    "signature",
    "statistic",
    "statistics",
    "table",
]

__getattr__ = passes_on(__name__, __file__)
