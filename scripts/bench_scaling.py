#!/usr/bin/env python
"""How cost grows with samples, features, layers, seeds and processes: tables, and exponents fitted to them.

    python scripts/bench_scaling.py [--quick] [--out table.md]

Takes a minute and a half on 2 CPU cores. One thing is varied at a time. Every number is the least of some repetitions
in turns: seconds of the processor, all threads together; but for processes the median, of the clock's. An exponent is
the slope of log cost against log size by least squares: 1 is linear, 0 is free.
"""

import argparse
import math
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command does, see pipeline/runtime/startup.py
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

import torch
from bench_descent import machine, markdown
from bench_measuring import K, in_turns, ours, random_images
from rich.console import Console
from rich.table import Table

from pipeline import dufm
from pipeline.dufm.descent import Descent
from pipeline.measure.heads import measure_head
from pipeline.measure.layers import measure_backbone
from pipeline.networks import build_backbone
from pipeline.runtime import ranks
from pipeline.runtime.randomness import generator

SAMPLES, WIDTHS, DEPTHS = (1_000, 10_000, 60_000), (64, 512, 2048), (2, 4, 8, 16)
SEEDS, PROCESSES = (1, 4, 16, 64), (1, 2)
STEPS = 20


def exponent(sizes: Sequence[int], costs: Sequence[float]) -> float:
    """Least-squares slope of log cost against log size."""
    x, y = [math.log(size) for size in sizes], [math.log(cost) for cost in costs]
    middle = statistics.mean(x)
    return sum((a - middle) * b for a, b in zip(x, y, strict=True)) / sum((a - middle) ** 2 for a in x)


def rows_measured(samples: int, d: int) -> Callable[[], object]:
    """All metrics of one place whose rows are at hand."""
    source = torch.Generator().manual_seed(0)
    labels = torch.randint(0, K, (samples,), generator=source)
    features = torch.randn(samples, d, generator=source)
    return lambda: ours(features, labels)


def head(depth: int, seeds: int) -> tuple[Callable[[], object], Callable[[], object]]:
    """A block of descent steps, and measuring every layer, of heads of width 64 on N = 100, two classes."""
    weights = dufm.initial_weights([64] * depth, 2, [generator(seed, "weights") for seed in range(seeds)])
    features = dufm.initial_features(100, 64, [generator(seed, "features") for seed in range(seeds)])
    labels = torch.arange(2).repeat_interleave(50)
    descent = Descent(
        features, weights, labels, num_classes=2, lr=0.1, weight_decay=5e-4, feature_decay=5e-4, activation="relu"
    )
    descent.advance(2)
    return lambda: descent.advance(STEPS), lambda: list(measure_head(features, weights, labels, 2, "relu"))


def processes_seconds(count: int) -> float:
    """Measuring ResNet-20 on 5120 random images, shared by so many processes of one thread each."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    common = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, "--rank"]
    environments = [os.environ | common | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(count)]
    started = [subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) for env in environments]
    return max(float(process.communicate()[0]) for process in started)


def one_rank() -> None:
    torch.set_num_threads(1)
    if int(os.environ["WORLD_SIZE"]) > 1:
        ranks.connect("gloo")
    images = random_images(4096)
    backbone = build_backbone("resnet20", images.image_shape)
    measure_backbone(backbone, random_images(256))
    taken = []
    for _ in range(3):
        ranks.barrier()
        began = time.perf_counter()
        measure_backbone(backbone, images)
        taken.append(time.perf_counter() - began)
    ranks.disconnect()
    print(statistics.median(taken))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer repetitions")
    parser.add_argument("--out", type=Path, help="also write the table to this markdown file")
    parser.add_argument("--rank", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.rank:
        return one_rank()
    rounds = 3 if options.quick else 7
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(machine())
    ways = {
        "metrics of a place, d = 512, against N": (SAMPLES, [rows_measured(count, 512) for count in SAMPLES]),
        "metrics of a place, N = 10,000, against d": (WIDTHS, [rows_measured(10_000, d) for d in WIDTHS]),
        f"{STEPS} descent steps of 10 seeds, against L": (DEPTHS, [head(depth, 10)[0] for depth in DEPTHS]),
        "measuring a head of 10 seeds, against L": (DEPTHS, [head(depth, 10)[1] for depth in DEPTHS]),
        f"{STEPS} descent steps, L = 4, against seeds": (SEEDS, [head(4, seeds)[0] for seeds in SEEDS]),
        "measuring a head, L = 4, against seeds": (SEEDS, [head(4, seeds)[1] for seeds in SEEDS]),
    }
    lines = []
    for name, (sizes, works) in ways.items():
        costs = list(in_turns({str(size): work for size, work in zip(sizes, works, strict=True)}, rounds).values())
        lines.append((name, sizes, costs))
    shared = [processes_seconds(count) for count in PROCESSES]
    lines.append(("measuring ResNet-20 on 5,120 images, against processes", PROCESSES, shared))
    rows = [
        [
            name,
            ", ".join(f"{n:,}: {_seconds(cost)}" for n, cost in zip(sizes, costs, strict=True)),
            f"{exponent(sizes, costs):.2f}",
        ]
        for name, sizes, costs in lines
    ]
    header = ["cost of", "measured", "exponent"]
    table = Table(*header)
    for row in rows:
        table.add_row(*row)
    console.print(table)
    if options.out:
        options.out.write_text(f"Measured on {machine()}.\n\n{markdown(header, rows)}\n")


def _seconds(value: float) -> str:
    return f"{value:.2f} s" if value >= 1 else f"{1e3 * value:.3g} ms"


if __name__ == "__main__":
    main()
