#!/usr/bin/env python
"""How fast `pipeline.dufm.descent` is: ours against the ways one would otherwise write it, on one problem, in one run.

    python scripts/bench_descent.py [--quick] [--out docs/descent_speed_table.md]

Takes about six minutes on 2 CPU cores (`--quick`: one). Contenders take turns, a fraction of a second each, and the
median over the rounds counts, so a noisy neighbour hits all of them alike. Each runs with the number of threads it is
fastest with, one or all. Needs the `bench` extra for JAX; without it
that row is left out.
"""

import argparse
import ctypes
import importlib.util
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command does, see pipeline/runtime/startup.py
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from pipeline import dufm
from pipeline.dufm.descent import Descent, log_schedule
from pipeline.dufm.descent_precision import single_steps
from pipeline.measure.heads import measure_head
from pipeline.runtime.native import built
from pipeline.runtime.randomness import generator

LR, DECAY, DEPTH, WIDTH, NUM_CLASSES = 0.1, 5e-4, 4, 64, 2
GEMM_SHAPES = ((512, 512, 512), (1024, 1024, 1024), (2048, 2048, 2048), (64, 64, 10_000))
OURS = "ours"
DECAY_BY_OPTIMIZER = "(a) nn.Module + SGD(weight_decay)"
PENALTY_IN_LOSS = "(a) nn.Module + SGD, penalty in the loss"
ALL_THREADS = torch.get_num_threads()
E1_STEPS = 100_000


@dataclass(frozen=True)
class Case:
    """One problem: all contenders start from these features and weights."""

    name: str
    members: int
    samples: int
    free: bool
    dtype: torch.dtype

    def start(self) -> tuple[Tensor, list[Tensor], Tensor]:
        weights = dufm.initial_weights(
            [WIDTH] * DEPTH, NUM_CLASSES, [generator(seed, "weights") for seed in range(self.members)], dtype=self.dtype
        )
        sources = [generator(seed, "features") for seed in range(self.members if self.free else 1)]
        features = dufm.initial_features(self.samples, WIDTH, sources, dtype=self.dtype)
        labels = torch.arange(NUM_CLASSES).repeat_interleave(self.samples // NUM_CLASSES)
        return (features if self.free else features[0]), weights, labels

    @property
    def flops_per_seed_step(self) -> int:
        """Multiply-adds count two: forward, gradient of each factor, and of each layer's input if that is needed."""
        outputs = [WIDTH] * (DEPTH - 1) + [NUM_CLASSES]
        passes = [3 if layer > 0 or self.free else 2 for layer in range(DEPTH)]
        return sum(2 * self.samples * WIDTH * out * count for out, count in zip(outputs, passes, strict=True))


class Contender(Protocol):
    def advance(self, steps: int) -> None: ...

    def last_weight(self) -> Tensor:
        """W_L of the first member, to see that all solve the same problem."""
        ...


class Ours:
    def __init__(self, case: Case, backend: str = "auto") -> None:
        features, weights, labels = case.start()
        self._descent = Descent(
            features,
            weights,
            labels,
            num_classes=NUM_CLASSES,
            lr=LR,
            weight_decay=DECAY,
            feature_decay=DECAY if case.free else None,
            backend=backend,
        )
        self.advance = self._descent.advance

    def last_weight(self) -> Tensor:
        return self._descent.weights[-1][0]


class PlainTorch:
    """(a): one nn.Module per seed under torch.optim.SGD. One seed is timed; the others would take as long."""

    def __init__(self, case: Case, penalty_in_loss: bool) -> None:
        features, weights, labels = case.start()
        self._features = features[0] if case.free else features
        self._head = dufm.DufmHead([weight[0] for weight in weights])
        self._penalised = list(self._head.parameters())
        if case.free:
            self._features = torch.nn.Parameter(self._features)
            self._penalised.append(self._features)
        self._targets = dufm.one_hot(labels, NUM_CLASSES, case.dtype)
        self._penalty_in_loss = penalty_in_loss
        decay = 0.0 if penalty_in_loss else DECAY
        self._optimizer = torch.optim.SGD(self._penalised, lr=LR, weight_decay=decay)

    def advance(self, steps: int) -> None:
        for _ in range(steps):
            self._optimizer.zero_grad()
            loss = (self._head(self._features) - self._targets).square().sum() / (2 * len(self._targets))
            if self._penalty_in_loss:
                loss = loss + sum(DECAY / 2 * parameter.square().sum() for parameter in self._penalised)
            loss.backward()
            self._optimizer.step()

    def last_weight(self) -> Tensor:
        return list(self._head.parameters())[-1].detach()


class BatchedAutograd:
    """(b), and (c) with the loss compiled (its backward is then compiled with it)."""

    def __init__(self, case: Case, compiled: bool) -> None:
        features, weights, labels = case.start()
        targets = dufm.one_hot(labels, NUM_CLASSES, case.dtype)
        self._features = features.requires_grad_(case.free)
        self._moving = [weight.requires_grad_() for weight in weights] + ([self._features] if case.free else [])

        def loss(features: Tensor, *weights: Tensor) -> Tensor:
            hidden = features
            for layer, weight in enumerate(weights):
                hidden = torch.matmul(torch.relu(hidden) if layer else hidden, weight.mT)
            return (hidden - targets).square().sum() / (2 * len(targets))

        self._loss: Callable[..., Tensor] = torch.compile(loss, dynamic=False) if compiled else loss

    def advance(self, steps: int) -> None:
        for _ in range(steps):
            gradients = torch.autograd.grad(self._loss(self._features, *self._moving[:DEPTH]), self._moving)
            with torch.no_grad():
                torch._foreach_mul_(self._moving, 1 - LR * DECAY)
                torch._foreach_add_(self._moving, gradients, alpha=-LR)

    def last_weight(self) -> Tensor:
        return self._moving[DEPTH - 1][0].detach()


class Jax:
    """(d): jit of a scan of a vmap over the seeds."""

    def __init__(self, case: Case) -> None:
        import jax

        jax.config.update("jax_enable_x64", True)
        features, weights, labels = case.start()
        targets = jax.numpy.asarray(dufm.one_hot(labels, NUM_CLASSES, case.dtype).numpy())
        fixed = jax.numpy.asarray(features.numpy())
        self._state = {"weights": [jax.numpy.asarray(weight.numpy()) for weight in weights]}
        if case.free:
            self._state["features"] = fixed

        def loss(state):
            hidden = state["features"] if case.free else fixed
            for layer, weight in enumerate(state["weights"]):
                hidden = (jax.nn.relu(hidden) if layer else hidden) @ weight.T
            return jax.numpy.square(hidden - targets).sum() / (2 * len(targets))

        def step(state, _):
            moved = jax.tree.map(lambda p, g: (1 - LR * DECAY) * p - LR * g, state, jax.vmap(jax.grad(loss))(state))
            return moved, None

        self._run = jax.jit(lambda state, steps: jax.lax.scan(step, state, length=steps)[0], static_argnums=1)
        self._block_until_ready = jax.block_until_ready

    def advance(self, steps: int) -> None:
        self._state = self._block_until_ready(self._run(self._state, steps))

    def last_weight(self) -> Tensor:
        import numpy

        return torch.from_numpy(numpy.array(self._state["weights"][-1][0]))


@dataclass(frozen=True)
class Result:
    """Medians over the rounds: seed-steps per second of every contender, and the best GEMM rate in FLOP/s."""

    case: Case
    rates: dict[str, float]
    threads: dict[str, int]
    gemm: float
    gemm_shape: tuple[int, int, int]
    peak: float  # multiply-adds that stay in registers, on as many threads as ours, FLOP/s; NaN without a compiler

    def ratio(self, other: str) -> float:
        return self.rates[OURS] / self.rates[other] if other in self.rates else float("nan")

    @property
    def share_of_gemm(self) -> float:
        return self.rates[OURS] * self.case.flops_per_seed_step / self.gemm

    @property
    def share_of_peak(self) -> float:
        return self.rates[OURS] * self.case.flops_per_seed_step / self.peak


def contenders(case: Case, quick: bool) -> dict[str, Contender]:
    found: dict[str, Contender] = {
        OURS: Ours(case),
        "ours, plain PyTorch backend": Ours(case, backend="torch"),
        DECAY_BY_OPTIMIZER: PlainTorch(case, penalty_in_loss=False),
        PENALTY_IN_LOSS: PlainTorch(case, penalty_in_loss=True),
        "(b) batched autograd": BatchedAutograd(case, compiled=False),
    }
    if not quick:
        found["(c) batched autograd, torch.compile"] = BatchedAutograd(case, compiled=True)
    if importlib.util.find_spec("jax"):
        found["(d) JAX jit + scan + vmap"] = Jax(case)
    return found


def measure(case: Case, rounds: int, seconds: float, quick: bool) -> Result:
    """Let all contenders take turns for some rounds."""
    found = contenders(case, quick)
    steps, threads, rates = {}, {}, {name: [] for name in found}
    for name, contender in found.items():
        for _ in range(2):
            contender.advance(2)
        if (error := float((contender.last_weight() - _four_steps(case)).abs().max())) > 1e-4:
            raise RuntimeError(f"{name} solves another problem: W_L is off by {error} after 4 steps")
        threads[name] = _best_threads(seconds, contender)
        torch.set_num_threads(threads[name])
        steps[name] = _steps_lasting(seconds, contender)
    gemms = {shape: _gemm(shape, case.dtype) for shape in GEMM_SHAPES}
    gemm_rates, peaks = {shape: [] for shape in gemms}, []
    for _ in range(rounds):
        for name, contender in found.items():
            torch.set_num_threads(threads[name])
            members = 1 if isinstance(contender, PlainTorch) else case.members
            rates[name].append(members * steps[name] / _seconds(lambda c=contender, n=steps[name]: c.advance(n)))
        peaks.append(_peak(case.dtype, threads[OURS], seconds))
        torch.set_num_threads(ALL_THREADS)
        for shape, multiply in gemms.items():
            repeats = max(1, round(seconds * 1e10 / (2 * shape[0] * shape[1] * shape[2])))
            taken = _seconds(lambda f=multiply, n=repeats: [f() for _ in range(n)])
            gemm_rates[shape].append(2 * shape[0] * shape[1] * shape[2] * repeats / taken)
    medians = {shape: statistics.median(values) for shape, values in gemm_rates.items()}
    best = max(medians, key=medians.__getitem__)
    middle = {name: statistics.median(values) for name, values in rates.items()}
    return Result(case, middle, threads, medians[best], best, statistics.median(peaks))


def _four_steps(case: Case) -> Tensor:
    reference = BatchedAutograd(case, compiled=False)
    reference.advance(4)
    return reference.last_weight()


def _best_threads(seconds: float, contender: Contender) -> int:
    """One thread or all, whichever takes more steps in the same time."""
    if isinstance(contender, Jax):
        return ALL_THREADS  # JAX has its own threads
    pace = {}
    for threads in {1, ALL_THREADS}:
        torch.set_num_threads(threads)
        steps = _steps_lasting(seconds, contender)
        pace[threads] = _seconds(lambda n=steps: contender.advance(n)) / steps
    return min(pace, key=pace.__getitem__)


def _steps_lasting(seconds: float, contender: Contender) -> int:
    steps = 1
    while True:
        contender.advance(steps)  # once outside the clock: JAX compiles a scan of another length anew
        if _seconds(lambda n=steps: contender.advance(n)) > seconds / 2:
            return steps
        steps *= 2


def _gemm(shape: tuple[int, int, int], dtype: torch.dtype) -> Callable[[], Tensor]:
    rows, inner, columns = shape
    left, right = torch.randn(rows, inner, dtype=dtype), torch.randn(inner, columns, dtype=dtype)
    out = torch.empty(rows, columns, dtype=dtype)
    return lambda: torch.mm(left, right, out=out)


def _peak(dtype: torch.dtype, threads: int, seconds: float) -> float:
    """FLOP/s of `fma_peak.cpp`, on some threads at once."""
    library = built(Path(__file__).with_name("fma_peak.cpp"), "the multiply-add peak is left out")
    if library is None:
        return float("nan")
    name = str(dtype).removeprefix("torch.")
    number = ctypes.c_double if dtype == torch.float64 else ctypes.c_float
    run, rounds = library[f"peak_{name}"], round(seconds * 1e8)
    run.restype, run.argtypes = ctypes.c_double, [ctypes.c_int64, number, ctypes.c_void_p]
    started = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:  # ctypes lets go of the interpreter's lock
        done = list(pool.map(lambda out: run(rounds, 1.0, ctypes.addressof(out)), [number() for _ in range(threads)]))
    return sum(done) / (time.perf_counter() - started)


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def rate_rows(results: Sequence[Result]) -> list[list[str]]:
    rows = []
    for result in results:
        precision = str(result.case.dtype).removeprefix("torch.")
        for name, rate in result.rates.items():
            gflops = rate * result.case.flops_per_seed_step / 1e9
            share = 1e9 * gflops / result.gemm
            numbers = [
                str(result.threads[name]),
                f"{rate:,.0f}",
                f"{gflops:.1f}",
                f"{share:.0%}",
                f"{result.ratio(name):.2f}x",
            ]
            rows.append([result.case.name, precision, name, *numbers])
        name = "multiply-adds in registers"
        if result.peak == result.peak:
            numbers = [
                str(result.threads[OURS]),
                "",
                f"{result.peak / 1e9:.1f}",
                f"{result.peak / result.gemm:.0%}",
                "",
            ]
            rows.append([result.case.name, precision, name, *numbers])
        shape = " x ".join(str(size) for size in result.gemm_shape)
        rows.append(
            [result.case.name, precision, f"GEMM {shape}", str(ALL_THREADS), "", f"{result.gemm / 1e9:.1f}", "100%", ""]
        )
    return rows


def seconds_per_measurement(case: Case) -> float:
    """What measuring every layer once takes: the median of many."""
    features, weights, labels = case.start()
    taken = [_seconds(lambda: list(measure_head(features, weights, labels, NUM_CLASSES, "relu"))) for _ in range(50)]
    return statistics.median(taken)


def measuring_share(double: Result, measurement: float) -> float:
    """Share of a run of `E1_STEPS` steps that measuring on the default schedule takes."""
    measuring = measurement * len(log_schedule(E1_STEPS))
    return measuring / (measuring + E1_STEPS * double.case.members / double.rates[OURS])


def target_rows(results: Sequence[Result], measurement: float, two_precisions: float) -> list[list[str]]:
    by_dtype = {result.case.dtype: result for result in results if result.case.free and result.case.members == 10}
    double, single = by_dtype[torch.float64], by_dtype[torch.float32]
    targets = [
        ("float64, 10 seeds: over (a), penalty in the loss", 9.0, double.ratio(PENALTY_IN_LOSS)),
        ("float64, 10 seeds: over (a), decay by the optimizer", 9.0, double.ratio(DECAY_BY_OPTIMIZER)),
        ("float64, 10 seeds: over (d)", 2.5, double.ratio("(d) JAX jit + scan + vmap")),
        ("float64, 10 seeds: share of the GEMM rate", 0.5, double.share_of_gemm),
        ("float64, 10 seeds: share of the multiply-add peak", 0.8, double.share_of_peak),
        ("float32, 10 seeds: share of the multiply-add peak", 0.8, single.share_of_peak),
        ("float32, 10 seeds: over (a), penalty in the loss", 14.0, single.ratio(PENALTY_IN_LOSS)),
        ("float32, 10 seeds: over (a), decay by the optimizer", 14.0, single.ratio(DECAY_BY_OPTIMIZER)),
        ("frozen N = 10,000: a whole descent in two precisions", 1.7, two_precisions),
    ]
    verdict = {True: "yes", False: "no"}
    rows = [
        [name, f">= {goal}", f"{value:.2f}", "not measured" if value != value else verdict[value >= goal]]
        for name, goal, value in targets
    ]
    share = measuring_share(double, measurement)
    return [
        *rows,
        ["time of measuring at the default schedule, 1e5 steps", "<= 3 %", f"{share:.1%}", verdict[share <= 0.03]],
    ]


def gain_of_two_precisions(steps: int) -> float:
    """CPU time of a whole descent of one seed on frozen N = 10,000 in float64, over that with `precision=auto`: ReLU,
    momentum 0.9, decay 5e-3; blocks of steps take turns."""
    features = dufm.initial_features(10_000, WIDTH, [generator(0, "features")])[0]
    labels = features[:, :10].argmax(dim=1)  # of some sense, unlike those of a case
    weights = dufm.initial_weights([WIDTH] * DEPTH, 10, [generator(0, "weights")])
    settings = {"num_classes": 10, "lr": LR, "weight_decay": 5e-3, "momentum": 0.9}
    descents = [
        Descent(features, weights, labels, **settings, mixed=mixed, single=single_steps(steps))
        for mixed in (False, True)
    ]
    taken = [0.0, 0.0]
    while descents[0].step < steps:
        for way, descent in enumerate(descents):
            started = time.process_time()
            descent.advance(min(100, steps - descent.step))
            taken[way] += time.process_time() - started
    return taken[0] / taken[1]


def machine() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    models = [line.split(":")[1].strip() for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
    processor = models[0] if models else platform.processor()
    capability = torch.backends.cpu.get_cpu_capability()
    return f"{processor} ({capability}), {torch.get_num_threads()} threads, PyTorch {torch.__version__}"


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer rounds, no torch.compile; about a minute")
    parser.add_argument("--out", type=Path, help="also write the tables to this markdown file")
    options = parser.parse_args()
    rounds, seconds = (3, 0.15) if options.quick else (9, 0.4)
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(f"L = {DEPTH}, width {WIDTH}, K = {NUM_CLASSES}, all decays {DECAY:g}. {machine()}")
    if not importlib.util.find_spec("jax"):
        console.print("JAX is not installed (the bench extra): row (d) is left out")
    # First, before JAX starts threads of its own.
    measurement = seconds_per_measurement(Case("", 10, 100, True, torch.float64))
    two_precisions = gain_of_two_precisions(1000 if options.quick else 4000)
    results = []
    for dtype in (torch.float64, torch.float32):
        for case in (
            Case("10 seeds, n = 50", 10, 100, True, dtype),
            Case("1 seed, n = 50", 1, 100, True, dtype),
            Case("10 seeds, frozen, N = 10,000", 10, 10_000, False, dtype),
        ):
            results.append(measure(case, rounds, seconds, options.quick))
    tables = {
        "Rates": (
            ["problem", "dtype", "way", "threads", "seed-steps/s", "GFLOP/s", "of GEMM", "ours is"],
            rate_rows(results),
        ),
        "Targets": (["what", "target", "measured", "met"], target_rows(results, measurement, two_precisions)),
    }
    for title, (header, rows) in tables.items():
        table = Table(*header, title=title)
        for row in rows:
            table.add_row(*row)
        console.print(table)
    if options.out:
        blocks = [f"Measured on {machine()}.", *(markdown(header, rows) for header, rows in tables.values())]
        options.out.write_text("\n\n".join(blocks) + "\n")


if __name__ == "__main__":
    main()
