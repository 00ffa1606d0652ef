#!/usr/bin/env python
"""What layer-wise measuring adds to the forward pass it rides on, and what the usual way would.

    python scripts/bench_measuring.py [--quick] [--families] [--out table.md]

`--families` measures each family of metrics on ResNet-18 instead, and all of them together.

Takes about four minutes on 2 CPU cores (`--quick`: one). Contenders take turns. Time is that of the processor, all
threads together, which neighbours disturb less than the clock on the wall, and the least over the rounds counts,
because neighbours only ever add to it. The usual way, written from its formulas, is three passes: class means; a
covariance of every class, K x d x d; nearest class means. Its pseudo-inverse is of a d x d matrix. Random images and
weights: what they show costs nothing else.
"""

import argparse
import inspect
import math
import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command does, see pipeline/__main__.py

import torch
from bench_descent import machine, markdown
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from pipeline.data import ImageData, Split
from pipeline.measure import layers as measuring
from pipeline.measure.extraction import BLOCK_IMAGES, Block, backbone_features
from pipeline.measure.layers import SecondLook, measure_backbone
from pipeline.metrics import ClassStatistics
from pipeline.metrics.engine.plan import Plan
from pipeline.metrics.engine.settings import DEFAULT, MeasureSettings
from pipeline.metrics.registry import CORE, OF_WEIGHTS, families
from pipeline.networks import Backbone, build_backbone
from pipeline.networks.rows import Rows
from pipeline.networks.taps import Taps

K = 10
PLACE = ("layer", "post")
PASSES = ("foreign", "agop", "tail")
"""Families that need what is not there: other images, gradients, weights."""
TARGETS = {"resnet20": 0.05, "resnet18": 0.15}
IMAGES = 12_500
"""Two classes of CIFAR-10, both splits."""
MEMORY_NUMBERS = (1_000, 10_000, 60_000, 240_000)


def random_images(count: int, size: int = 32, grouped: bool = False) -> ImageData:
    """A training split of so many images, and a test split a quarter as large; in two groups if that is asked for."""
    source = torch.Generator().manual_seed(0)

    def split(number: int) -> Split:
        pixels = torch.randint(0, 256, (number, 3, size, size), generator=source, dtype=torch.uint8)
        labels = torch.randint(0, K, (number,), generator=source)
        return Split(pixels, labels, torch.arange(number) % 2) if grouped else Split(pixels, labels)

    names = tuple(map(str, range(K)))
    return ImageData.from_splits("random", split(count), split(count // 4), names, ("a", "b") if grouped else ())


def in_turns(contenders: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Least processor seconds of each."""
    taken: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, work in contenders.items():
            began = time.process_time()
            work()
            taken[name].append(time.process_time() - began)
    return {name: min(values) for name, values in taken.items()}


@dataclass(frozen=True)
class Cost:
    """Processor seconds of measuring both splits, the test split being a quarter as large as the training split.

    Per image: of a bare pass, of reading all places on the way, of statistics; of these also per block of images, and
    of formulas per measurement, however many images there are. ``difference``: per image, of all beyond the bare pass,
    where it was measured on so many ``images``.
    """

    images: int
    bare: float
    reading: float
    statistics: float
    block: float
    formulas: float
    difference: float

    def shares(self, images: int) -> dict[str, float]:
        """What each part adds to the bare pass over so many images, as a share of it."""
        test = images // 5
        blocks = math.ceil((images - test) / BLOCK_IMAGES) + math.ceil(test / BLOCK_IMAGES)
        seconds = {
            "reading": self.reading * images,
            "statistics": self.statistics * images + self.block * blocks,
            "formulas": self.formulas,
        }
        return {name: value / (self.bare * images) for name, value in seconds.items()}

    def added(self, images: int) -> float:
        """What all of them add."""
        return sum(self.shares(images).values())

    def by_difference(self, images: int) -> float:
        """The same with all else that a measurement spends time on, and the noise of a difference."""
        return self.difference / self.bare + self.added(images) - self.added(self.images)

    def row(self, images: int) -> list[str]:
        """The shares of the parts, in words."""
        shares = {name: f"{100 * share:.1f} %" for name, share in self.shares(images).items()}
        return [shares["reading"], shares["statistics"], f"{shares['formulas']} ({1e3 * self.formulas:.0f} ms)"]


@contextmanager
def timed(functions: dict[tuple[object, str], str], spent: Counter) -> Iterator[None]:
    """Within, the time that functions take, by owner and name, is added to what it is spent on, and on how many images
    where these are a block, else 0."""

    def wrapped(function: Callable, what: str) -> Callable:
        def run(*arguments: object, **more: object) -> object:
            images = next((len(it.labels) for it in arguments if isinstance(it, Block)), 0)
            began = time.process_time()
            try:
                return function(*arguments, **more)
            finally:
                spent[what, images] += time.process_time() - began

        return run

    before = {(owner, name): getattr(owner, name) for owner, name in functions}
    for (owner, name), what in functions.items():
        setattr(owner, name, wrapped(before[owner, name], what))
    passing = measuring.run_over

    def run_over_timed(*arguments: object, **more: object) -> object:
        call = inspect.signature(passing).bind(*arguments, **more)
        call.arguments["listen"] = wrapped(call.arguments["listen"], "statistics")
        return passing(*call.args, **call.kwargs)

    measuring.run_over = run_over_timed
    try:
        yield
    finally:
        measuring.run_over = passing
        for (owner, name), function in before.items():
            setattr(owner, name, function)


PARTS = {
    (Taps, "_read"): "reading",
    (SecondLook, "add"): "statistics",
    (SecondLook, "__init__"): "formulas",
    (measuring, "_layer"): "formulas",
}


def on_network(name: str, count: int, rounds: int, settings: MeasureSettings = DEFAULT, grouped: bool = False) -> Cost:
    """The costs of measuring so many training images, few enough for one block, and a quarter as many test images.

    Each part is timed where it happens: differences of whole passes would be lost in their noise. What a block costs
    whatever its size is told from what an image does by the blocks of both splits.
    """
    images = random_images(count, grouped=grouped)
    backbone, total = build_backbone(name, images.image_shape).eval(), count + count // 4
    parts: list[Counter] = []

    def bare() -> None:
        for split in (images.train, images.test):
            backbone_features(backbone, images, split)

    def everything() -> None:
        parts.append(Counter())
        with timed(PARTS, parts[-1]):
            measure_backbone(backbone, images, lambda features: features[:, :K], settings=settings)

    bare()
    least = in_turns({"bare": bare, "all": everything}, rounds)
    own = {key: min(spent[key] for spent in parts) for key in parts[0]}
    larger, smaller = (own["statistics", images] for images in (count, count // 4))
    statistics = max(0.0, (larger - smaller) / (count - count // 4))
    return Cost(
        images=total,
        bare=least["bare"] / total,
        reading=own["reading", 0] / total,
        statistics=statistics,
        block=max(0.0, smaller - statistics * (count // 4)),
        formulas=own["formulas", 0],
        difference=(least["all"] - least["bare"]) / total,
    )


def blocks_of(features: Tensor, labels: Tensor, size: int) -> list[Block]:
    parts = zip(features.split(size), labels.split(size), strict=True)
    return [Block(own, rows, {PLACE: Rows(rows)}) for rows, own in parts]


def ours(features: Tensor, labels: Tensor) -> dict[str, float]:
    """All metrics of one place from rows that are at hand, as `measure_backbone` does."""
    blocks, plan = blocks_of(features, labels, 4096), Plan.full(without=("decisions", *OF_WEIGHTS))
    parts = [plan.first_look(block.features, block.labels, K) for block in blocks]
    own = ClassStatistics.merged([replace(part, source=None) for part in parts])
    look = SecondLook(plan, {PLACE: own}, {PLACE: own}, None)
    for block in blocks:
        look.add(block)
    look.join_ranks()
    return {name: float(value) for name, value in look.evaluate(PLACE)[0].items()}


def the_usual_way(features: Tensor, labels: Tensor, dtype: torch.dtype, batch: int = 512) -> dict[str, float]:
    """Three passes in float32 or float64; one GEMM per class and batch is the fastest way to fill K x d x d."""
    d, blocks = features.shape[1], blocks_of(features, labels, batch)
    blocks = [replace(block, features=block.features.to(dtype)) for block in blocks]
    sums, counts = torch.zeros(K, d, dtype=dtype), torch.zeros(K, dtype=dtype)
    for block in blocks:
        member = nn.functional.one_hot(block.labels, K).to(dtype)
        sums += member.T @ block.features
        counts += member.sum(0)
    means = sums / counts[:, None]
    covariances = torch.zeros(K, d, d, dtype=dtype)
    for block in blocks:
        for label in range(K):
            rows = block.features[block.labels == label] - means[label]
            covariances[label] += rows.T @ rows
    hits = 0
    for block in blocks:
        hits += int((torch.cdist(block.features, means).argmin(1) == block.labels).sum())
    within = covariances.sum(0) / len(labels)
    centred = means - sums.sum(0) / counts.sum()
    between = centred.T @ centred / K
    variances = covariances.diagonal(dim1=1, dim2=2).sum(1) / counts
    first, second = torch.triu_indices(K, K, 1)
    distances = (means[first] - means[second]).square().sum(1)
    values = torch.linalg.svdvals(means)
    return {
        "dnc1": float(within.trace() / between.trace()),
        "nc1_pinv": float((within @ torch.linalg.pinv(between, rtol=1e-4, hermitian=True)).trace() / K),
        "cdnv": float(((variances[first] + variances[second]) / (2 * distances)).mean()),
        "dnc2": float(values[0] / values[-1]),
        "ncm_accuracy": hits / len(labels),
    }


WAYS: dict[str, Callable[[Tensor, Tensor], dict[str, float]]] = {
    "ours, float64": ours,
    "K x d x d, float64": lambda features, labels: the_usual_way(features, labels, torch.float64),
    "K x d x d, float32": lambda features, labels: the_usual_way(features, labels, torch.float32),
}
OURS, USUAL, USUAL32 = WAYS


def rows_of(count: int, d: int, spread: float) -> tuple[Tensor, Tensor]:
    """Features of so many samples about class means of length sqrt(d), and labels."""
    source = torch.Generator().manual_seed(0)
    labels = torch.randint(0, K, (count,), generator=source)
    means = torch.randn(K, d, generator=source)
    return spread * torch.randn(count, d, generator=source) + means[labels], labels


def on_features(count: int, d: int, rounds: int) -> dict[str, float]:
    """Seconds of all ways on rows at hand, after seeing that they agree."""
    features, labels = rows_of(count, d, spread=3.0)
    found = {name: way(features, labels) for name, way in WAYS.items()}
    for name, value in found[USUAL].items():
        for way, tolerance in ((OURS, 1e-9), (USUAL32, 1e-3)):
            if abs(found[way][name] - value) > tolerance * abs(value):
                raise RuntimeError(f"{name} is {value} in float64 the usual way, and {found[way][name]} by {way}")
    return in_turns({name: lambda way=way: way(features, labels) for name, way in WAYS.items()}, rounds)


def errors_when_collapsed(d: int) -> dict[str, float]:
    """Relative error of DNC1 where it is near 1e-10, against deviations from means in float64, in two passes."""
    features, labels = rows_of(2_000, d, spread=1e-5)
    exact = features.double()
    means = torch.stack([exact[labels == label].mean(0) for label in range(K)])
    within = (exact - means[labels]).square().sum() / len(labels)
    dnc1 = float(within / ((means - exact.mean(0)).square().sum() / K))
    return {name: abs(way(features, labels)["dnc1"] / dnc1 - 1) for name, way in WAYS.items()}


def our_state(d: int) -> int:
    """Bytes that statistics of one place and split take."""
    found = ClassStatistics.from_features(torch.zeros(K, d), torch.arange(K), K)
    return sum(value.nbytes for entry in fields(found) if isinstance(value := getattr(found, entry.name), Tensor))


def peak(count: int, kept: int) -> None:
    """Print by how many MiB measuring a small network on so many images raises this process's memory at its peak."""
    stage = [nn.Conv2d(3, 64, 4, stride=4), nn.ReLU(), nn.Conv2d(64, 64, 1), nn.ReLU()]
    images = random_images(1_000, size=8)
    backbone = Backbone(nn.Sequential(*stage), images.image_shape, name="small")
    measure_backbone(backbone, images)
    images, measuring.KEPT_BYTES = random_images(count, size=8), kept
    Path("/proc/self/clear_refs").write_text("5")  # Linux: the peak is counted from here
    before = _status("VmRSS")
    measure_backbone(backbone, images)
    print((_status("VmHWM") - before) / 1024)


def _status(name: str) -> int:
    """A number of kibibytes that the system knows of this process."""
    return int(re.search(rf"{name}:\s+(\d+)", Path("/proc/self/status").read_text())[1])


def memory_rows() -> list[list[str]]:
    rows = []
    for count in MEMORY_NUMBERS:
        grown = []
        for kept in (measuring.KEPT_BYTES, 0):
            command = [sys.executable, __file__, "--peak", str(count), str(kept)]
            grown.append(float(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
        features = (count + count // 4) * 64 * 4 / 2**20
        rows.append([f"{count:,}", f"{features:.0f}", *(f"{value:.0f}" for value in grown)])
    return rows


def family_rows(count: int, rounds: int) -> list[list[str]]:
    """What each family adds to a pass of ResNet-18 over `IMAGES`, with core, and what all of them together do.

    Foreign rows and gradients are passes of their own over as many images as there are, and left out; so are weights.
    """
    asked = {"core": (CORE,)} | {name: (CORE, name) for name in families() if name not in (CORE, *PASSES)}
    together = ("all of these", tuple(dict.fromkeys(name for names in asked.values() for name in names)))
    rows = []
    for name, names in (*asked.items(), together):
        cost = on_network("resnet18", count, rounds, MeasureSettings(families=names), "groups" in names)
        rows.append([name, *cost.row(IMAGES), f"{1 + cost.added(IMAGES):.2f}", f"{1 + cost.by_difference(IMAGES):.2f}"])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer images and rounds")
    parser.add_argument("--families", action="store_true", help="each family of metrics on ResNet-18, and all together")
    parser.add_argument("--out", type=Path, help="also write the tables to this markdown file")
    parser.add_argument("--peak", nargs=2, type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peak:
        return peak(*options.peak)
    rounds = 3 if options.quick else 7
    # Images of the training split, and rounds.
    sizes = (
        {"resnet20": (512, 3), "resnet18": (128, 3)}
        if options.quick
        else {"resnet20": (2_500, 16), "resnet18": (128, 9)}
    )
    number = 4096 if options.quick else 16_384
    console, written, targets = Console(width=None if sys.stdout.isatty() else 120), [], []
    console.print(machine())

    def show(title: str, header: list[str], rows: list[list[str]]) -> None:
        table = Table(*header, title=title)
        for row in rows:
            table.add_row(*row)
        console.print(table)
        written.append(f"{title}\n\n{markdown(header, rows)}")

    def aim(what: str, goal: str, measured: str, met: bool) -> None:
        targets.append([what, goal, measured, "yes" if met else "no"])

    if options.families:
        header = ["families", "reading", "statistics", "formulas", f"passes, {IMAGES:,} images", "by difference"]
        show(
            "What families of metrics add to a pass of ResNet-18",
            header,
            family_rows(*((32, 1) if options.quick else (96, 3))),
        )
        if options.out:
            options.out.write_text("\n\n".join([f"Measured on {machine()}.", *written]) + "\n")
        return None
    rows, errors = on_features(number, 512, rounds), errors_when_collapsed(512)
    state = {OURS: our_state(512), USUAL: 8 * (K * 512 * 512 + K * 512 + K)}
    state[USUAL32] = state[USUAL] // 2
    show(
        f"One place, d = 512, K = {K}, {number:,} rows at hand",
        ["way", "passes", "us/row", "ours is", "state, KiB", "error of DNC1 = 1e-10"],
        [
            [
                way,
                "1" if way == OURS else "3",
                f"{1e6 * rows[way] / number:.1f}",
                f"{rows[way] / rows[OURS]:.1f}x",
                f"{state[way] / 1024:,.0f}",
                f"{errors[way]:.0e}",
            ]
            for way in WAYS
        ],
    )
    show(
        "Growth of the peak memory while measuring (MiB), 4 places of 64 features",
        ["N", "features of both splits", f"rows kept up to {measuring.KEPT_BYTES >> 20} MiB", "no rows kept"],
        memory_rows(),
    )
    costs, lines = {}, []
    for name, (count, repeats) in sizes.items():
        cost = costs[name] = on_network(name, count, repeats)
        goal, added = TARGETS[name], cost.added(IMAGES)
        ends = [f"{100 * value:.1f} %" for value in (added, cost.by_difference(IMAGES))]
        lines.append([name, f"{1e3 * cost.bare:.2f}", *cost.row(IMAGES), *ends])
        aim(f"{name}: added to the forward pass", f"<= {goal:.0%}", f"{added:.1%}", added <= goal)
    show(
        f"What measuring {IMAGES:,} images adds to the forward pass",
        [
            "network",
            "bare pass, ms/image",
            "reading all places",
            "statistics",
            "formulas",
            "all of it",
            "by difference",
        ],
        lines,
    )
    # Of the usual way one place is measured, of ours all.
    cost = costs["resnet18"]
    added = (2 * cost.bare + rows[USUAL32] / number) / (cost.added(IMAGES) * cost.bare)
    aim("usual way (float32) over ours: what is added to one pass of ResNet-18", ">= 5", f"{added:.0f}", added >= 5)
    for way in (USUAL, USUAL32):
        ratio = rows[way] / rows[OURS]
        aim(f"{way} over ours: on rows at hand, without a network", ">= 5", f"{ratio:.1f}", ratio >= 5)
    ratio = state[USUAL32] / state[OURS]
    aim("usual way (float32) over ours: state of a place, d = 512", ">= 20", f"{ratio:.0f}", ratio >= 20)
    show("Targets", ["what", "target", "measured", "met"], targets)
    if options.out:
        options.out.write_text("\n\n".join([f"Measured on {machine()}.", *written]) + "\n")


if __name__ == "__main__":
    main()
