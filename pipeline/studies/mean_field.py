"""Mean field: wide networks of three layers collapse as their loss and its gradient get small, balanced or not.

Paper: Wu & Mondelli, arXiv 2501.19104.
Shows: NC1 (within over total variation), loss, norm of the gradient and balancedness over epochs, four seeds, with W
    frozen at its start, trained, and trained under noise.
Expects: NC1 follows loss and gradient down in all three; with W frozen, neurons and W stay unbalanced.
Evidence: docs/reproduction/beyond.md and mean_field*.csv there.
    Command: scripts/reproduce mean_field --cpu
    Machine: one of 2 shared cores of an x86-64 processor, no GPU, float32, torch 2.14.1. The full version: not run.
    Date: 2026-11-27. Commit of the code: the one that brought this file.
Provenance: data, sizes, batches, decays and the range of balancedness read. The full version has the paper's second
    rate from the start, and 1,000 epochs of ours; the small one 300 images per class and 512 neurons (specification)
    and a rate of ours, all in mean-field time. Temperature ours: a tenth of the decay.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd

from pipeline.studies._family import every
from pipeline.studies._measured import COMMON, numbers
from pipeline.studies.engine.claims import READ, THEOREM, Claim, Measurement, owned, reasoned, spread
from pipeline.studies.engine.results import Point, Result
from pipeline.studies.engine.study import CPU, FULL, QUICK, Study, shrunk
from pipeline.studies.kernels import GROUP
from pipeline.views import marks, style
from pipeline.views.sheet import Sheet

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

KINDS = {
    "frozen": ("W frozen", ("protocol.last_layer=frozen",)),
    "trained": ("W trained", ("protocol.last_layer=trained",)),
    "noisy": ("W trained, noise", ("protocol.last_layer=trained", "protocol.temperature=1e-5")),
}
"""What is trained, by the names of points: as figures call it, and its settings."""
SMALL = tuple(Point(name, settings) for name, (_, settings) in KINDS.items())
LARGE = ("data.samples_per_class=10000", "protocol.neurons=6272", "optimizer.lr=1e-2", "backbone.epochs=1000")
POINTS = tuple(Point(point.name, (*point.overrides, *LARGE)) for point in SMALL)
ON_DIGITS = ("data=digits", "data.samples_per_class=100", "protocol.neurons=128", "protocol.repeats=2")
QUICK_POINTS = shrunk(SMALL, [*KINDS], (*ON_DIGITS, "backbone.epochs=100", *COMMON))
MEASURES = {
    "nc1_wm": "NC1, within over total",
    "train_loss": "loss",
    "gradient_norm": "norm of the gradient",
    "balancedness": "distance from balance",
}
REASONS = {
    "W trained, noise: further": "the theorem is of stationary points, which the runs have not reached: NC1 is some "
    "forty times that of a stationary a; the noise, a tenth of the decay, moves less than seeds differ"
}
"""Why claims do not hold, by a part of their text."""
LOW, FOLLOWS, UNBALANCED = 0.1, 0.9, (0.59, 0.85)
"""NC1 that counts as low, rank correlation that counts as following (both ours); balancedness at the end (read)."""


def series(result: Result, metric: str) -> pd.DataFrame:
    """A metric by epoch, a column for each seed."""
    rows = result.record[result.record.metric == metric]
    return rows.pivot(index="step", columns="seed", values="value")


def last(result: Result, metric: str) -> list[float]:
    """A metric at the end, of every seed."""
    return series(result, metric).iloc[-1].tolist()


def following(result: Result, metric: str) -> list[float]:
    """Rank correlation of NC1 with a metric over the epochs recorded, of every seed."""
    collapse, other = series(result, "nc1_wm").rank(), series(result, metric).rank()
    return [float(collapse[seed].corr(other[seed])) for seed in collapse]


def claims(results: Sequence[Result]) -> list[Claim]:
    """NC1 low and following in each kind; who is balanced."""
    found = {result.point.name: result for result in results if result.completed}
    made = []
    for kind, result in found.items():
        name, values = KINDS[kind][0], last(result, "nc1_wm")
        text = f"{name}: NC1 at the end is low, <= {LOW:g}, every seed"
        made += owned(READ, every(text, [value <= LOW for value in values], numbers(values)))
        for metric, what in (("train_loss", "loss"), ("gradient_norm", "norm of the gradient")):
            ranks = following(result, metric)
            text = f"{name}: NC1 follows the {what} over epochs, rank correlation >= {FOLLOWS:g}, every seed"
            made += owned(READ, every(text, [rank >= FOLLOWS for rank in ranks], numbers(ranks)))
    distances = {kind: last(result, "balancedness") for kind, result in found.items()}
    if "frozen" in distances:
        low, high = UNBALANCED
        text = "W frozen: unbalanced at the end, every seed"
        inside = [low <= value <= high for value in distances["frozen"]]
        measured = f"{sum(inside)} of {len(inside)}: {numbers(distances['frozen'])}"
        made += owned(READ, Claim(text, f"{low:g} to {high:g}", measured, all(inside)))
    for other in ("frozen", "noisy"):
        if {other, "trained"} <= distances.keys():
            text = f"{KINDS[other][0]}: further from balance at the end than W trained without noise, every seed"
            pairs = list(zip(distances[other], distances["trained"], strict=True))
            told = f"{numbers(distances[other])} against {numbers(distances['trained'])}"
            made += owned(THEOREM, every(text, [one > two for one, two in pairs], told))
    return reasoned(made, REASONS)


def measurements(results: Sequence[Result]) -> list[Measurement]:
    """What the directions would give at a point stationary in a, and test accuracy."""
    made = []
    for result in results:
        if result.completed:
            name, reached = KINDS[result.point.name][0], f"reached: {spread(last(result, 'nc1_wm'))}"
            exact = series(result, "stationary_nc1_wm")
            if exact.notna().all(axis=None):
                text = f"{name}: NC1 where a is stationary, exactly, for the u and W at the end"
                made.append(Measurement(text, spread(exact.iloc[-1].tolist()), reached))
            text = f"{name}: test accuracy at the end"
            made.append(Measurement(text, spread(last(result, "test_accuracy")), "chance: about 1/3"))
    return made


def tables(results: Sequence[Result]) -> dict[str, pd.DataFrame]:
    """Every seed at the start and at the end."""
    rows = []
    for result in results:
        for metric in sorted(set(result.record.metric)) if result.completed else ():
            values = series(result, metric)
            for seed in values:
                ends = {"first": values[seed].iloc[0], "last": values[seed].iloc[-1], "epochs": values.index[-1]}
                rows.append({"kind": result.point.name, "seed": seed, "metric": metric} | ends)
    return {"mean_field": pd.DataFrame(rows)}


def draw(results: Sequence[Result]) -> "dict[str, Figure]":
    """The four measures over epochs, the median and all between the smallest and the largest seed."""
    completed = [result for result in results if result.completed]
    data = " and ".join(dict.fromkeys(result.config.data.name for result in completed))
    title = f"Mean-field networks on {data}, digit mod 3: median, and smallest to largest seed"
    with Sheet(1, len(MEASURES), title=title, height=1.2) as sheet:
        for axes, (metric, label) in zip(sheet.row(0), MEASURES.items(), strict=True):
            for result in completed:
                _curves(axes, result, metric)
            axes.set(xscale="symlog", xlabel="epoch", ylabel=label)
            if metric != "balancedness":
                axes.set_yscale("log")
        places = [[*KINDS].index(result.point.name) for result in completed]
        names = [name for name, _ in KINDS.values()]
        sheet.legend([marks.line(names[place], style.PALETTE[place], style.LINES[place]) for place in places])
        sheet.legend([marks.line("0.59 and 0.85, the paper's with W frozen", **style.THRESHOLD)])
        for level in UNBALANCED:
            sheet[0, len(MEASURES) - 1].axhline(level, **style.THRESHOLD)
    return {"mean_field": sheet.figure}


def _curves(axes: "Axes", result: Result, metric: str) -> None:
    place, values = [*KINDS].index(result.point.name), series(result, metric)
    look = {"color": style.PALETTE[place], "linestyle": style.LINES[place]}
    axes.plot(values.index, values.median(axis=1), **look)
    axes.fill_between(values.index, values.min(axis=1), values.max(axis=1), color=look["color"], **style.BAND)


STUDY = Study(
    name="mean_field",
    group=GROUP,
    title="mean-field networks: collapse, loss, gradient and balancedness over epochs",
    versions={FULL: POINTS, CPU: SMALL, QUICK: QUICK_POINTS},
    draw=draw,
    claims=claims,
    measurements=measurements,
    tables=tables,
)
