#!/usr/bin/env python
"""What thousands of classes cost: time and memory of class statistics, of the second look at rows, and of formulas.

    python scripts/bench_classes.py [--threads 1] [--cases 1000x2048 1000x512 29000x256] [--rows 100000] [--profile]

Each case `K x d` is a process. Rows are drawn in batches of 4,096 about random class means and streamed through
`CollapseMetrics` (all of `core` with a classifier), twice: only the metric's own time counts, that of the processor,
all threads together, and of the clock. Statistics and second look grow with the rows: they are given per million. The
peak is `ru_maxrss`, of which `base` was there before the first batch.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

BATCH = 4096


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", default=["1000x2048", "1000x512", "29000x256", "29000x1024"])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--profile", action="store_true", help="shares of the formulas, of each metric by itself")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        sizes = map(int, options.child.split("x"))
        print(json.dumps(measured(*sizes, options.rows, options.threads, options.profile)))
        return
    print(f"{options.rows} rows, {options.threads} thread(s); seconds of the processor (of the clock)\n")
    print("Statistics and second look: a million rows.\n")
    print("| K x d | statistics | directions | second look | formulas | peak MiB | base |")
    print("|---|---|---|---|---|---|---|")
    for case in options.cases:
        command = [sys.executable, __file__, "--child", case, "--rows", str(options.rows)]
        command += ["--threads", str(options.threads), *["--profile"] * options.profile]
        environment = os.environ | {"OMP_NUM_THREADS": str(options.threads)}
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
        found = json.loads(done.stdout.splitlines()[-1])
        times = [found[name] for name in ("statistics", "directions", "second look", "formulas")]
        told = " | ".join(f"{own:.2f} ({clock:.2f})" for own, clock in times)
        print(f"| {case} | {told} | {found['peak']:.0f} | {found['base']:.0f} |", flush=True)
        for name, seconds in found.get("shares", {}).items():
            print(f"    {name}: {seconds:.3f} s", flush=True)


def measured(classes: int, width: int, rows: int, threads: int, profile: bool) -> dict[str, object]:
    """What one process needs."""
    import torch

    from pipeline.metrics import CollapseMetrics

    torch.set_num_threads(threads)
    generator = torch.Generator().manual_seed(0)
    means = torch.randn(classes, width, generator=generator)
    weight = torch.randn(classes, width, generator=generator)

    def batches() -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        draw = torch.Generator().manual_seed(1)
        for start in range(0, rows, BATCH):
            labels = torch.arange(start, min(start + BATCH, rows)) % classes
            yield means[labels] + torch.randn(len(labels), width, generator=draw), labels

    metric = CollapseMetrics(classes, width, covariance=False, metrics=of_core())
    base = peak()
    clock = Clock()
    for features, labels in batches():
        clock.time("statistics", lambda: metric.update(features, labels))  # noqa: B023
    clock.time("statistics", lambda: metric.statistics)
    nobody = torch.zeros(0, width), torch.zeros(0, dtype=torch.int64)
    clock.time("directions", lambda: metric.look_again(*nobody, decisions=nobody[1]))
    for features, labels in batches():
        clock.time("second look", lambda: metric.look_again(features, labels, labels))  # noqa: B023
    found = clock.time("formulas", lambda: metric.compute(weight=weight))
    scaled = {name: [it * 1e6 / rows for it in clock.spent[name]] for name in ("statistics", "second look")}
    told = clock.spent | scaled | {"peak": peak(), "base": base}
    told |= {"values": {name: float(value) for name, value in found.items()}}
    return told | ({"shares": shares(metric, weight)} if profile else {})


def of_core() -> list[str]:
    """All metrics of `core` but those of two weights."""
    from pipeline.metrics.registry import families, metrics

    return [name for name in families()["core"].metrics if "next_weight" not in metrics()[name].takes]


def shares(metric: object, weight: object) -> dict[str, float]:
    """Seconds of each metric as if it were the only one: what several need counts in each."""
    from dataclasses import replace

    plan, found = metric._plan, {}
    for it in plan.metrics:
        metric._plan = replace(plan, metrics=(it,))
        metric._plan.__dict__["row_sums"] = plan.row_sums
        metric._merged = None  # with what is known of it
        began = time.process_time()
        metric.compute(weight=weight)
        found[it.name] = time.process_time() - began
    metric._plan = plan
    return found


class Clock:
    """Time by name: of the processor, and on the wall."""

    def __init__(self) -> None:
        self.spent: dict[str, list[float]] = {}

    def time(self, name: str, work: Callable[[], object]) -> object:
        own, clock = time.process_time(), time.perf_counter()
        found = work()
        spent = self.spent.setdefault(name, [0.0, 0.0])
        spent[0] += time.process_time() - own
        spent[1] += time.perf_counter() - clock
        return found


def peak() -> float:
    """Peak of this process's memory so far, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
