"""Neural feature ansatz: do a layer's weights follow the gradients of the network, and what of a layer collapses rows?

Paper: arXiv 2402.13728 (average gradient outer product as a mechanism for deep neural collapse).
Shows: correlation of W^T W with the root of the average gradient outer product against the epoch; NC1 of h, S V^T h and
    relu(W h) layer by layer.
Expects: W^T W correlates with it; most of a layer's drop in NC1 is made by S V^T, not by the nonlinearity; a small
    start collapses more.
Evidence: docs/reproduction/measures.md and nfa*.csv there.
    Command: scripts/reproduce nfa --cpu
    Machine: one of 2 shared cores of an x86-64 processor, no GPU, float32, torch 2.14.1.
    Date: 2026-11-27. Commit of the code: the one that brought this file.
Provenance: quantities, claims and settings of the full version read in the paper's code; images, width and epochs of
    the small one ours, its targets one-hot (the paper's: plus and minus one). The correlation is high before training,
    because the weight stands on both sides: the figure shows where it begins. Of ResNet-18 the weights of linear layers
    at its end are compared (the paper: an MLP on its features). Not here: VGG-11, whose layers are convolutions.
"""

from collections.abc import Sequence
from itertools import pairwise
from math import isfinite
from typing import TYPE_CHECKING

from pipeline.studies._family import every
from pipeline.studies._measured import (
    COMMON,
    GROUP,
    Place,
    by_data,
    curve,
    drawn,
    end,
    figures,
    numbers,
    places,
    start,
    tables,
)
from pipeline.studies.engine.claims import OURS, READ, Claim, owned, reasoned
from pipeline.studies.engine.results import Point, Result
from pipeline.studies.engine.study import CPU, FULL, QUICK, Study, shrunk
from pipeline.views import marks, style
from pipeline.views.sheet import Sheet

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GAINS = (1.0, 0.3)
DIGITS = tuple(Point(f"gain_{gain:g}", (f"backbone.init_scale={gain:g}",)) for gain in GAINS)
WIDE = ("data.classes=null", "data.samples_per_class=5000", "backbone.hidden=[512,512,512,512,512]")
POINTS = tuple(
    Point(f"{data}-gain_{gain:g}", (f"data={data}", f"backbone.init_scale={gain:g}", *WIDE))
    for data in ("mnist", "cifar10")
    for gain in (1.0, 0.5, 0.3, 0.1)
)
RESNET = ("data=cifar10", *WIDE[:2], "backbone=resnet18", "backbone.hidden=[256,64]", "backbone.linear_tail=2")
POINTS += (Point("cifar10-resnet18-gain_1", RESNET),)
"""A network with three linear layers at its end, whose weights are those that are compared; ours."""
QUICK_POINTS = shrunk(DIGITS, [point.name for point in DIGITS], ("backbone.epochs=100", "measure.every=20", *COMMON))
SMALL = ("data.samples_per_class=100", "backbone.hidden=[256,256,256]", "backbone.epochs=150")
CPU_POINTS = (*DIGITS, *shrunk(POINTS, [f"mnist-gain_{gain:g}" for gain in GAINS], SMALL))
"""1,000 images of MNIST."""
HIGH, LINEAR = 0.7, 0.8
"""Correlation that counts as high; share of a layer's drop in NC1 that its linear part is said to make."""


def claims(results: Sequence[Result]) -> list[Claim]:
    """Correlation at the end and before training, what the linear part does, and the scale of the start."""
    return reasoned((claim for data, own in by_data(results).items() for claim in _claims(data, own)), {})


def _claims(data: str, results: Sequence[Result]) -> list[Claim]:
    made = []
    for result in results:
        name = result.point.name
        found, begun = ([at(result, place, "nfa") for place in entered(result)] for at in (end, start))
        made += owned(
            READ, every(f"{name}: W^T W correlates with AGOP^1/2, > {HIGH}", [v > HIGH for v in found], numbers(found))
        )
        text = f"{name}: and does so before training, > {HIGH}"
        made += owned(OURS, every(text, [value > HIGH for value in begun], numbers(begun)))
        shares = shares_of_linear(result)
        text = f"{name}: S V^T makes at least {LINEAR} of each layer's drop in NC1"
        made += owned(READ, every(text, [share >= LINEAR for share in shares], numbers(shares)))
    small, large = (next((r for r in results if _gain(r) == gain), None) for gain in (0.3, 1.0))
    if small is not None and large is not None:
        ends = [end(result, entered(result)[-1], "dnc1") for result in (large, small)]
        text = f"{data}: a small start collapses more: NC1 of the last layer, gains 1 and .3"
        made += owned(OURS, Claim(text, "less", numbers(ends), ends[1] < ends[0]))
    return made


def draw(results: Sequence[Result]) -> "dict[str, Figure]":
    """Correlations over training and NC1 through the layers, a column for each start."""
    return figures("nfa", results, _figure)


def _figure(results: Sequence[Result]) -> "Figure":
    title = "Neural feature ansatz: correlation of $W^T W$ with the root of the average gradient outer product"
    with Sheet(2, len(results), title=title, alike=True, width=1.4) as sheet:
        for column, result in enumerate(results):
            above, below = sheet.column(column)
            sheet.tag(above, f"start scaled by {_gain(result):g}")
            sheet.legend(_correlations(above, result))
            sheet.legend(_through(below, result))
    return sheet.figure


def shares_of_linear(result: Result) -> list[float]:
    """Share of the drop in NC1 from what enters a layer to what leaves it that S V^T makes, of the inner layers."""
    found = []
    for here, there in pairwise(entered(result)):
        before, linear, after = end(result, here, "dnc1"), end(result, here, "dnc1_svt"), end(result, there, "dnc1")
        found.append((before - linear) / (before - after))
    return found


def entered(result: Result) -> list[Place]:
    """The places whose rows enter linear layers, in the order of data flow."""
    return [place for place in places(result) if isfinite(end(result, place, "nfa"))]


def _gain(result: Result) -> float:
    return float(result.config.backbone.init_scale)


def _correlations(axes: "Axes", result: Result) -> list:
    """Returns the entries of a legend."""
    layers, handles = entered(result), []
    for number, (place, color) in enumerate(zip(layers, style.shades(len(layers)), strict=True), start=2):
        drawn(axes, curve(result, place, "nfa"), color=color, marker="o")
        axes.axhline(start(result, place, "nfa"), color=color, linestyle=style.LINES[2])
        handles.append(marks.line(style.weight_name(number), color, marker="o"))
    axes.set_ylabel("NFA correlation")
    return [*handles, marks.line("before training", style.GREY, style.LINES[2])]


def _through(axes: "Axes", result: Result) -> list:
    """Returns the entries of a legend."""
    values, names = [], []
    for number, place in enumerate(entered(result), start=2):
        values += [end(result, place, "dnc1"), end(result, place, "dnc1_svt")]
        names += [f"$h_{number}$", f"$S V^T h_{number}$"]
    marks.dots(axes, range(0, len(values), 2), values[::2], style.BLUE)
    marks.dots(axes, range(1, len(values), 2), values[1::2], style.RED, "s")
    marks.named(axes, names)
    axes.set(yscale="log", xlabel="rows, in the order of data flow", ylabel="NC1 at the end")
    return [marks.dot("$h_l$: after the ReLU", style.BLUE), marks.dot(r"$S V^T h_l$: linear part", style.RED, "s")]


STUDY = Study(
    name="nfa",
    group=GROUP,
    title="neural feature ansatz, and what of a layer collapses",
    versions={FULL: (*DIGITS, *POINTS), CPU: CPU_POINTS, QUICK: QUICK_POINTS},
    draw=draw,
    claims=claims,
    tables=tables("nfa", "nfa", "nfa_full", "nfa_cosine", "dnc1", "dnc1_svt"),
)
