#!/usr/bin/env python
"""How fast descents on cross-entropy and with features >= 0 are, and polishing: CPU seconds on one core, in turns.

    taskset -c 0 python scripts/bench_objectives.py [--rounds 5]
    python scripts/bench_objectives.py --clock [--rounds 5]

Takes a few minutes of one core. CPU seconds rather than time, so that a busy machine can run it; the median over the
rounds counts. With `--clock` all cores, which nothing else may use, and seconds of the clock: ours has all threads, as
in a run, JAX its own, the Module loop those it is fastest with (one or all). Needs the `bench` extra for JAX; without
it that column is empty.
"""

import argparse
import importlib.util
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline import dufm
from pipeline.dufm.constraints import Constraint
from pipeline.dufm.cost import Point
from pipeline.dufm.descent import Descent
from pipeline.dufm.objectives import load_objective
from pipeline.dufm.polish import polish
from pipeline.runtime.randomness import generator

LR = 0.1
GRADIENT = 1e-8
"""Norm of the gradient down to which both ways of polishing go."""


@dataclass(frozen=True)
class Case:
    """Members of one problem; features are free, all decays are equal."""

    name: str
    sizes: tuple[int, ...]
    widths: tuple[int, ...]
    loss: str = "cross_entropy"
    activation: str = "relu"
    nonnegative: bool = False
    members: int = 10
    decay: float = 5e-4

    @property
    def labels(self) -> Tensor:
        return torch.arange(len(self.sizes)).repeat_interleave(torch.tensor(self.sizes))

    def start(self) -> tuple[Tensor, list[Tensor]]:
        sources = [generator(seed, "features") for seed in range(self.members)]
        features = dufm.initial_features(sum(self.sizes), self.widths[0], sources)
        features = features.clamp(min=0) if self.nonnegative else features
        sources = [generator(seed, "weights") for seed in range(self.members)]
        return features, dufm.initial_weights(self.widths, len(self.sizes), sources)


CASES = (
    Case("cross-entropy, L = 4, width 64, K = 2, n = 50", (50, 50), (64,) * 4),
    Case("cross-entropy, L = 4, width 64, K = 10, n = 10", (10,) * 10, (64,) * 4),
    Case("cross-entropy, linear, L = 2, width 70, K = 10, n = 5", (5,) * 10, (70, 70), activation="linear"),
    Case("cross-entropy, features >= 0, L = 1, d = 32, 40, 20, 10, 2", (40, 20, 10, 2), (32,), nonnegative=True),
    Case("squared error, features >= 0, L = 4, width 64, K = 2, n = 50", (50, 50), (64,) * 4, "mse", nonnegative=True),
)
POLISHED = (
    Case("cross-entropy, linear, L = 2, width 70, K = 10, n = 5", (5,) * 10, (70, 70), activation="linear", decay=1e-3),
    Case("squared error, linear, L = 3, width 64, K = 4, n = 10", (10,) * 4, (64,) * 3, "mse", "linear", decay=1e-3),
    Case("squared error, ReLU, L = 3, width 64, K = 2, n = 50", (50, 50), (64,) * 3, "mse"),
)


def ours(case: Case, lr: float = LR) -> Descent:
    features, weights = case.start()
    return Descent(
        features,
        weights,
        case.labels,
        num_classes=len(case.sizes),
        lr=lr,
        weight_decay=case.decay,
        feature_decay=case.decay,
        activation=case.activation,
        loss=load_objective(case.loss),
        constraint=Constraint("nonnegative") if case.nonnegative else None,
    )


def module_loop(case: Case) -> Callable[[int], Tensor]:
    """One seed as an `nn.Module` under `torch.optim.SGD`; the others would take as long."""
    features, weights = case.start()
    free = nn.Parameter(features[0])
    head = dufm.DufmHead([weight[0] for weight in weights], case.activation)
    targets = dufm.one_hot(case.labels, len(case.sizes), torch.float64)
    optimizer = torch.optim.SGD([*head.parameters(), free], lr=LR, weight_decay=case.decay)

    def advance(steps: int) -> Tensor:
        for _ in range(steps):
            optimizer.zero_grad()
            outputs = head(free)
            if case.loss == "mse":
                loss = (outputs - targets).square().sum() / (2 * len(targets))
            else:
                loss = F.cross_entropy(outputs, case.labels)
            loss.backward()
            optimizer.step()
            if case.nonnegative:
                with torch.no_grad():
                    free.clamp_(min=0)
        return list(head.parameters())[-1].detach()

    return advance


def jax_scan(case: Case) -> Callable[[int], Tensor]:
    """jit of a scan of a vmap over the seeds."""
    import jax
    import numpy

    jax.config.update("jax_enable_x64", True)
    features, weights = case.start()
    targets = jax.numpy.asarray(dufm.one_hot(case.labels, len(case.sizes), torch.float64).numpy())
    state = [[jax.numpy.asarray(weight.numpy()) for weight in weights], jax.numpy.asarray(features.numpy())]

    def loss(state):
        hidden = state[1]
        for layer, weight in enumerate(state[0]):
            hidden = (jax.nn.relu(hidden) if layer and case.activation == "relu" else hidden) @ weight.T
        if case.loss == "mse":
            return jax.numpy.square(hidden - targets).sum() / (2 * len(targets))
        return -(targets * jax.nn.log_softmax(hidden)).sum() / len(targets)

    def step(state, _):
        gradients = jax.vmap(jax.grad(loss))(state)
        weights, features = jax.tree.map(lambda p, g: (1 - LR * case.decay) * p - LR * g, state, gradients)
        return [weights, jax.numpy.maximum(features, 0) if case.nonnegative else features], None

    run = jax.jit(lambda state, steps: jax.lax.scan(step, state, length=steps)[0], static_argnums=1)

    def advance(steps: int) -> Tensor:
        nonlocal state
        state = jax.block_until_ready(run(state, steps))
        return torch.from_numpy(numpy.array(state[0][-1][0]))

    return advance


Timer = Callable[[Callable[[], object]], float]


def processor(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def clock(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def fastest(threads: tuple[int, ...], seconds: Timer, work: Callable[[], object]) -> int:
    """Of the numbers of threads the one `work` takes the least time with, of turns for half a second each."""
    least = {}
    for count in threads:
        torch.set_num_threads(count)
        work()
        until, turns = time.perf_counter() + 0.5, []
        while len(turns) < 3 or time.perf_counter() < until:
            turns.append(seconds(work))
        least[count] = min(turns)
    return min(least, key=least.__getitem__)


def descents(case: Case, rounds: int, seconds: Timer, threads: tuple[int, ...]) -> list[str]:
    """A row: microseconds per seed-step of each way, and the ratios to ours."""
    descent = ours(case)
    ways: dict[str, tuple[Callable[[int], object], int]] = {"ours": (descent.advance, case.members)}
    ways["module"] = (module_loop(case), 1)
    if importlib.util.find_spec("jax"):
        ways["jax"] = (jax_scan(case), case.members)
    reached = [advance(4) for advance, _ in ways.values()][1:]
    if max(float((end - descent.weights[-1][0]).abs().max()) for end in reached) > 1e-12:
        raise RuntimeError(f"{case.name}: the ways solve different problems")
    steps, taken, count = {}, {name: [] for name in ways}, {}
    for name, (advance, _) in ways.items():
        count[name] = max(threads)  # as a run does
        if name == "module" and len(threads) > 1:
            count[name] = fastest(threads, seconds, lambda a=advance: a(8))
        torch.set_num_threads(count[name])
        steps[name] = 8
        advance(steps[name])
        while seconds(lambda a=advance, n=steps[name]: a(n)) < 0.1:
            steps[name] *= 2
            advance(steps[name])  # once outside the clock: JAX compiles a scan of another length anew
    for _ in range(rounds):
        for name, (advance, members) in ways.items():
            torch.set_num_threads(count[name])
            taken[name].append(seconds(lambda a=advance, n=steps[name]: a(n)) / steps[name] / members * 1e6)
    middle = {name: statistics.median(values) for name, values in taken.items()}
    others = []
    for name in ("jax", "module"):
        others += [f"{middle[name]:.1f}", f"{middle[name] / middle['ours']:.1f}x"] if name in middle else ["", ""]
    return [case.name, descent.backend, f"{middle['ours']:.1f}", *others]


def lbfgs(descent: Descent, member: int) -> float:
    """`torch.optim.LBFGS` on one seed, as one would write it; returns the objective at its end."""
    point = descent.point
    moving = [tensor[[member]].clone().requires_grad_() for tensor in (point.features, *point.weights)]
    cost = descent.cost.select([member])
    optimizer = torch.optim.LBFGS(
        moving,
        history_size=10,
        max_iter=5000,
        max_eval=20_000,
        tolerance_grad=GRADIENT / sum(tensor.numel() for tensor in moving) ** 0.5,
        tolerance_change=0,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        total = cost.value(Point(moving[0], tuple(moving[1:]))).total.sum()
        total.backward()
        return total

    optimizer.step(closure)
    return float(cost.value(Point(moving[0].detach(), tuple(t.detach() for t in moving[1:]))).total)


def polishing(case: Case, seconds: Timer, threads: tuple[int, ...]) -> list[str]:
    """A row: seconds of all seeds and the highest objective at the end, both ways, from the same points."""
    descent = ours(case, lr=0.5)
    descent.advance(2000)
    found, theirs = [], []
    torch.set_num_threads(max(threads))
    own = seconds(lambda: found.append(polish(descent.cost, descent.point, lr=descent.lr, tolerance=GRADIENT)))
    torch.set_num_threads(1)  # what `torch.optim.LBFGS` is fastest with, one seed at a time
    other = seconds(lambda: theirs.extend(lbfgs(descent, member) for member in range(case.members)))
    ends = descent.cost.value(found[0].point).total
    return [case.name, f"{own:.2f}", f"{ends.max():.12g}", f"{other:.1f}", f"{max(theirs):.12g}", f"{other / own:.1f}x"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clock", action="store_true", help="seconds of the clock on all cores (quiet ones)")
    options = parser.parse_args()
    seconds, threads = (clock, (1, torch.get_num_threads())) if options.clock else (processor, (1,))
    print("| problem | ours by | us per seed-step | JAX | ours is | Module loop | ours is |\n" + "| --- " * 7 + "|")
    for case in CASES:
        print("| " + " | ".join(descents(case, options.rounds, seconds, threads)) + " |", flush=True)
    print("\n| problem | polish, s | ends at most at | torch.optim.LBFGS, s | ends at most at | ours is |")
    print("| --- " * 6 + "|")
    for case in POLISHED:
        print("| " + " | ".join(polishing(case, seconds, threads)) + " |", flush=True)


if __name__ == "__main__":
    main()
