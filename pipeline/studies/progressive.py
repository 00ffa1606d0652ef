"""Progressive collapse: in a residual network rows collapse block by block, along nearly straight lines.

Paper: arXiv 2405.00985 (progressive feedforward collapse of ResNet training).
Shows: PFC1 (nc1_pinv), PFC2 (nc2_simplex) and PFC3 (1 - ncm_accuracy) against the block before, during and after
    training, with and without decay; straightness of the samples' ways against the epoch.
Expects: all three fall along the blocks of a trained network, and not of an untrained one; ways get straighter.
Evidence: docs/reproduction/measures.md and progressive*.csv there.
    Command: scripts/reproduce progressive --quick
    Machine: one of 2 shared cores of an x86-64 processor, no GPU, float32, torch 2.14.1.
    Date: 2026-11-26. Commit of the code: the one that brought this file.
Provenance: that the metrics fall read (abstract), their definitions recalled; straightness ours, after the claim of
    arXiv 2102.09235 that ways are lines; data and epochs of the small version ours. Blocks of different width are not
    comparable as points, and untrained networks fall with the width of the stage; maps are averaged over positions.
"""

from collections.abc import Sequence

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline.studies._measured import COMMON, GROUP, Place, curve, drawn, end, figures, numbers, places, start, tables
from pipeline.studies.engine.claims import ABSTRACT, OURS, Claim, owned, reasoned
from pipeline.studies.engine.results import Point, Result
from pipeline.studies.engine.study import CPU, FULL, QUICK, Study, shrunk
from pipeline.views.figures import STYLE

DECAYS = (0.0, 5e-4)
DIGITS = tuple(Point(f"decay_{decay:g}", (f"optimizer.weight_decay={decay:g}",)) for decay in DECAYS)
LARGE = ("data.classes=null", "data.samples_per_class=null", "backbone=resnet18", "backbone.epochs=200")
POINTS = tuple(
    Point(f"{data}-decay_{decay:g}", (f"data={data}", f"optimizer.weight_decay={decay:g}", *LARGE))
    for data in ("mnist", "fashion_mnist", "cifar10")
    for decay in DECAYS
)
QUICK_POINTS = shrunk(DIGITS, [point.name for point in DIGITS], ("backbone.epochs=10", *COMMON))
PFC = {"PFC1": "nc1_pinv", "PFC2": "nc2_simplex", "PFC3": "ncm_accuracy"}
MOST = 0.8
"""Share of blocks at which a metric must fall."""


def claims(results: Sequence[Result]) -> list[Claim]:
    """Share of blocks at which each metric falls, before and after training, and straightness."""
    made = []
    for result in results:
        name, last = result.point.name, places(result)[-1]
        for word, metric in PFC.items():
            share, before = (at(result, last, f"decreasing_share/{metric}") for at in (end, start))
            text = f"{name}: {word} falls at {MOST:.0%} of the blocks once trained"
            made += owned(ABSTRACT, Claim(text, f">= {MOST}", f"{share:.3g}", share >= MOST))
            text = f"{name}: {word} does not fall at so many before training"
            made += owned(OURS, Claim(text, f"< {MOST}", f"{before:.3g}", before < MOST))
        for place in _straight(result):
            ends = [at(result, place, "straightness") for at in (start, end)]
            text = f"{name}: ways through the blocks up to {place[0].rpartition('network.')[2]} get straighter"
            made += owned(OURS, Claim(text, "rising", numbers(ends), ends[1] > ends[0]))
    return reasoned(made, {})


def draw(results: Sequence[Result]) -> dict[str, Figure]:
    """The metrics along the blocks at several epochs, a row for each decay, and straightness."""
    return figures("progressive", results, _figure)


def _figure(results: Sequence[Result]) -> Figure:
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(12, 3.1 * len(results)), layout="constrained")
        for row, result in zip(figure.subplots(len(results), 4, squeeze=False), results, strict=True):
            for axes, (word, metric) in zip(row, PFC.items(), strict=False):
                _along(axes, result, metric)
                axes.set_title(f"{result.point.name}: {word}")
            for place in _straight(result):
                drawn(row[3], curve(result, place, "straightness"), label=f"up to {place[0].rpartition('network.')[2]}")
            row[3].set(title="straightness", ylim=(None, 1.02))
            row[3].legend()
            row[0].legend()
    return figure


def _straight(result: Result) -> list[Place]:
    """The places at which stages of one width end."""
    return [place for place in places(result) if len(curve(result, place, "straightness"))]


def _along(axes: Axes, result: Result, metric: str) -> None:
    blocks = places(result)
    curves = [curve(result, place, metric) for place in blocks]
    epochs = [int(epoch) for epoch in curves[0].index]
    shown = sorted({epochs[0], *epochs[1:2], epochs[len(epochs) // 2], epochs[-1]})
    shades = matplotlib.colormaps["viridis"]
    for number, epoch in enumerate(shown):
        values = [1 - values[epoch] if metric.endswith("accuracy") else values[epoch] for values in curves]
        color = shades(number / len(shown))
        axes.plot(range(1, len(values) + 1), values, "o-", color=color, markersize=3, label=f"epoch {epoch}")
    axes.set(xlabel="block", yscale="linear" if metric.endswith("accuracy") else "log")


STUDY = Study(
    name="progressive",
    group=GROUP,
    title="collapse block by block in residual networks",
    versions={FULL: (*DIGITS, *POINTS), CPU: DIGITS, QUICK: QUICK_POINTS},
    draw=draw,
    claims=claims,
    tables=tables("progressive", *PFC.values(), "dnc1", "straightness"),
)
