"""Progressive collapse: in a residual network rows collapse block by block, along nearly straight lines.

Paper: arXiv 2405.00985 (progressive feedforward collapse of ResNet training).
Shows: PFC1 (nc1_pinv), PFC2 (nc2_simplex) and PFC3 (1 - ncm_accuracy) against the block before, during and after
    training, with and without decay; straightness of the samples' ways against the epoch.
Expects: all three fall along the blocks of a trained network, and not of an untrained one; ways get straighter.
Evidence: docs/reproduction/measures.md and progressive*.csv there.
    Command: scripts/reproduce progressive --cpu
    Machine: one of 2 shared cores of an x86-64 processor, no GPU, float32, torch 2.14.1.
    Date: 2026-11-27. Commit of the code: 3c16d59.
Provenance: that the metrics fall read (abstract), their definitions recalled; straightness ours, after the claim of
    arXiv 2102.09235 that ways are lines; data and epochs of the small version ours. Blocks of different width are not
    comparable as points, and untrained networks fall with the width of the stage; maps are averaged over positions.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipeline.studies._measured import (
    COMMON,
    GROUP,
    Place,
    curve,
    drawn,
    end,
    figures,
    numbers,
    places,
    short,
    start,
    tables,
)
from pipeline.studies.engine.claims import ABSTRACT, OURS, Claim, owned, reasoned
from pipeline.studies.engine.results import Point, Result
from pipeline.studies.engine.study import CPU, FULL, QUICK, Study, shrunk
from pipeline.views import marks, style
from pipeline.views.sheet import Sheet

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DECAYS = (0.0, 5e-4)
DIGITS = tuple(Point(f"decay_{decay:g}", (f"optimizer.weight_decay={decay:g}",)) for decay in DECAYS)
LARGE = ("data.classes=null", "data.samples_per_class=null", "backbone=resnet18", "backbone.epochs=200")
POINTS = tuple(
    Point(f"{data}-decay_{decay:g}", (f"data={data}", f"optimizer.weight_decay={decay:g}", *LARGE))
    for data in ("mnist", "fashion_mnist", "cifar10")
    for decay in DECAYS
)
QUICK_POINTS = shrunk(DIGITS, [point.name for point in DIGITS], ("backbone.epochs=10", *COMMON))
SMALL = (
    "data.samples_per_class=100",
    "backbone=resnet20",
    "backbone.epochs=15",
    "backbone.batch_size=32",
    "protocol.every=15",
)
SMALL += ("data.augment=none",)
CPU_POINTS = (*DIGITS, *shrunk(POINTS, ["cifar10-decay_0.0005"], SMALL))
"""1,000 images of CIFAR-10."""
PFC = {"PFC1": "nc1_pinv", "PFC2": "nc2_simplex", "PFC3": "ncm_accuracy"}
MEANT = {"PFC1": "scatter", "PFC2": "distance to a simplex", "PFC3": "errors of the nearest mean"}
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
            text = f"{name}: ways through the blocks up to {short(place)} get straighter"
            made += owned(OURS, Claim(text, "rising", numbers(ends), ends[1] > ends[0]))
    return reasoned(made, {})


def draw(results: Sequence[Result]) -> "dict[str, Figure]":
    """The metrics along the blocks at several epochs, and straightness; a column for each decay."""
    return figures("progressive", results, _figure)


def _figure(results: Sequence[Result]) -> "Figure":
    title = "Collapse block by block in a residual network, and how straight the ways through it are"
    with Sheet(len(PFC) + 1, len(results), title=title, alike=True, width=1.3) as sheet:
        for column, result in enumerate(results):
            *along, straightness = sheet.column(column)
            sheet.tag(along[0], f"weight decay {result.config.optimizer.weight_decay:g}")
            for axes, (word, metric) in zip(along, PFC.items(), strict=True):
                sheet.legend(_along(axes, result, metric))
                axes.set_ylabel(f"{word}: {MEANT[word]}")
            for place, color, marker in zip(_straight(result), style.PALETTE[2:], style.MARKERS[1:], strict=False):
                drawn(straightness, curve(result, place, "straightness"), color=color, marker=marker)
                sheet.legend([marks.line(f"straightness up to {short(place)}", color, marker=marker)])
            straightness.set_ylabel("straightness of the ways")
    return sheet.figure


def _straight(result: Result) -> list[Place]:
    """The places at which stages of one width end."""
    return [place for place in places(result) if len(curve(result, place, "straightness"))]


def _along(axes: "Axes", result: Result, metric: str) -> list:
    """Returns the entries of a legend."""
    curves = [curve(result, place, metric) for place in places(result)]
    epochs = [int(epoch) for epoch in curves[0].index]
    shown = sorted({epochs[0], *epochs[1:2], epochs[len(epochs) // 2], epochs[-1]})
    colors = dict(zip(shown, style.shades(len(shown)), strict=True))
    blocks = range(1, len(curves) + 1)
    for epoch, color in colors.items():
        values = [1 - values[epoch] if metric.endswith("accuracy") else values[epoch] for values in curves]
        axes.plot(blocks, values, color=color, marker="o")
    axes.set(xlabel="block", yscale="linear" if metric.endswith("accuracy") else "log")
    marks.numbered(axes, blocks)
    return [marks.line(f"epoch {epoch}", color, marker="o") for epoch, color in colors.items()]


STUDY = Study(
    name="progressive",
    group=GROUP,
    title="collapse block by block in residual networks",
    versions={FULL: (*DIGITS, *POINTS), CPU: CPU_POINTS, QUICK: QUICK_POINTS},
    draw=draw,
    claims=claims,
    tables=tables("progressive", *PFC.values(), "dnc1", "straightness"),
)
