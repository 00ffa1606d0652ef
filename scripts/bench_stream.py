"""How fast `CollapseMetrics` takes in batches, beside float32 accumulators in two passes.

    python scripts/bench_stream.py [--quick] [--threads 1]

The other side is written here in the style of the neural-collapse library (github.com/rhubarbwu/neural-collapse): one
pass sums features by class, a second one, about the means of the first, adds up the d x d within-class covariance and
each class's variance, in float32 and each in an accumulator of its own. Ours sees the batches once and accumulates in
float64. Both include all that the metrics then need, and exclude what is computed at the end. Runs of the two
alternate; time is that of the processor, all threads together, which neighbours disturb less than the clock on the
wall; the table holds medians, and the median of the ratios.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from pipeline.metrics import CollapseMetrics

Batches = list[tuple[Tensor, Tensor]]


def memberships(labels: Tensor, num_classes: int) -> Tensor:
    """One row per class, 1 where a sample is of it, `(K, n)` float32."""
    return (labels[:, None] == torch.arange(num_classes)).T.float()


class Means:
    """Class sums and counts."""

    def __init__(self, num_classes: int, num_features: int) -> None:
        self.counts = torch.zeros(num_classes)
        self.sums = torch.zeros(num_classes, num_features)

    def accumulate(self, features: Tensor, labels: Tensor) -> None:
        of_class = memberships(labels, len(self.counts))
        self.counts += of_class.sum(1)
        self.sums += of_class @ features

    def compute(self) -> Tensor:
        return self.sums / self.counts[:, None]


class Covariance:
    """Pooled scatter matrix about given means."""

    def __init__(self, means: Tensor) -> None:
        self.means, self.pooled = means, torch.zeros(means.shape[1], means.shape[1])

    def accumulate(self, features: Tensor, labels: Tensor) -> None:
        centred = features - self.means[labels]
        self.pooled += centred.T @ centred


class Variances:
    """Sum of the squared distances from given means, class by class."""

    def __init__(self, means: Tensor) -> None:
        self.means, self.squares = means, torch.zeros(len(means))

    def accumulate(self, features: Tensor, labels: Tensor) -> None:
        squares = (features - self.means[labels]).square()
        self.squares += (memberships(labels, len(self.means)) @ squares).sum(1)


def two_passes(batches: Batches, num_classes: int, num_features: int) -> tuple[Covariance, Variances]:
    """Both passes of the float32 accumulators."""
    means = Means(num_classes, num_features)
    for batch in batches:
        means.accumulate(*batch)
    seconds = Covariance(means.compute()), Variances(means.compute())
    for batch in batches:
        for accumulator in seconds:
            accumulator.accumulate(*batch)
    return seconds


def one_pass(batches: Batches, num_classes: int, num_features: int) -> CollapseMetrics:
    """`CollapseMetrics` with all metrics of one pass."""
    metric = CollapseMetrics(num_classes, num_features)
    for batch in batches:
        metric.update(*batch)
    assert metric.statistics.counts.sum() == sum(len(labels) for _, labels in batches)  # none waits any more
    return metric


def seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer rows and repetitions, to see that it runs")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows, repetitions = (2_000, 1) if options.quick else (20_000, 7)
    print(f"{rows} rows, {options.threads} thread(s), torch {torch.__version__}; seconds, medians of {repetitions}\n")
    print("| d | K | batch | float32, two passes | ours, float64, one pass | ours / theirs |")
    print("|---|---|---|---|---|---|")
    for width in (64, 512):
        for classes in (10, 100):
            generator = torch.Generator().manual_seed(0)
            labels = torch.randint(0, classes, (rows,), generator=generator)
            means = torch.randn(classes, width, generator=generator)
            features = (means[labels] + torch.randn(rows, width, generator=generator)).relu_()
            for size in (128, 1000):
                batches = list(zip(features.split(size), labels.split(size), strict=True))
                arguments = batches, classes, width
                two_passes(*arguments), one_pass(*arguments)
                pairs = [
                    (seconds(lambda: two_passes(*arguments)), seconds(lambda: one_pass(*arguments)))  # noqa: B023
                    for _ in range(repetitions)
                ]
                theirs, ours = (statistics.median(times) for times in zip(*pairs, strict=True))
                ratio = statistics.median(own / other for other, own in pairs)
                print(f"| {width} | {classes} | {size} | {theirs:.4f} | {ours:.4f} | {ratio:.2f} |", flush=True)


if __name__ == "__main__":
    main()
