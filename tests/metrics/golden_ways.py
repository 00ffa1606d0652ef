"""Ways to measure the input T of the specification of network measures: at once, and batch by batch."""

import pickle

from golden import H as ROWS
from golden import K
from golden import W as CLASSIFIER
from golden import Y as LABELS
from torch import Tensor

from pipeline.metrics import CollapseMetrics, layer_metrics


def measured(*families: str, rows: Tensor = ROWS, labels: Tensor = LABELS, **given: object) -> dict[str, float]:
    """All metrics of these families at once."""
    values = layer_metrics(rows, labels, K, families=families, **given)
    return {name: float(value) for name, value in values.items()}


def streamed(*families: str, sizes: list[int], weight: Tensor | None = None, **how: object) -> dict[str, float]:
    """The same from batches of these sizes, each of a metric of its own that the next one takes in, as ranks do."""
    whole = CollapseMetrics(K, 4, families=families, **how)
    batches = list(zip(ROWS.split(sizes), LABELS.split(sizes), strict=True))
    for rows, labels in batches:
        part = CollapseMetrics(K, 4, families=families, **how)
        part.update(rows, labels)
        whole.merge_state(pickle.loads(pickle.dumps(part)))
    for rows, labels in batches:
        whole.look_again(rows, labels, (rows @ CLASSIFIER.T).argmax(1))
    return {name: float(value) for name, value in whole.compute(weight=weight).items()}


WAYS = [[12], [5, 0, 5, 2], [1] * 12]
"""Sizes of batches."""
