"""Lazy neurons: how many activations are not zero, by the labels, the width and the time trained.

Paper: arXiv 2210.06313 (the lazy neuron phenomenon).
Shows: share of non-zero activations against the epoch and against the width, with true labels, with random ones, and
    with inputs that are noise; layer by layer in transformers.
Expects: one half before training; it falls in training, whatever the labels, the more the wider the layer.
Evidence: docs/reproduction/measures.md and lazy*.csv there.
    Command: scripts/reproduce lazy --cpu
    Machine: one of 2 shared cores of an x86-64 processor, no GPU, float32, torch 2.14.1.
    Date: 2026-11-27. Commit of the code: 3c16d59, of transformers 8b47e4a.
Provenance: claims read (abstract, captions); that one half is where it begins derived for symmetric weights without
    bias; data, networks and epochs of the small versions ours. Random inputs: normal vectors whose labels say nothing
    of them. Top-k accuracy: not here.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from pipeline.studies._family import every
from pipeline.studies._measured import COMMON, GROUP, Place, curve, drawn, end, numbers, places, start, tables
from pipeline.studies.engine.claims import ABSTRACT, THEOREM, Claim, owned, reasoned
from pipeline.studies.engine.results import Point, Result
from pipeline.studies.engine.study import CPU, FULL, QUICK, Study, shrunk
from pipeline.views import marks, style
from pipeline.views.sheet import Sheet

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTHS = (64, 256, 1024)
LABELS = {"true": (), "random": ("data.random_labels=true",)}
MLPS = tuple(
    Point(f"mlp-{labels}-width_{width}", (f"backbone.hidden=[{width}]", *more))
    for labels, more in LABELS.items()
    for width in WIDTHS
)
NOISE = tuple(
    Point(
        f"mlp-noise-width_{width}",
        (
            "data=mixture",
            "data.num_classes=10",
            "data.dim=64",
            "data.snr=0",
            "data.samples_per_class=144",
            f"backbone.hidden=[{width}]",
        ),
    )
    for width in WIDTHS
)
MNIST = tuple(
    Point(f"mnist-{labels}-width_{width}", ("data=mnist", f"backbone.hidden=[{width}]", *more))
    for labels, more in LABELS.items()
    for width in WIDTHS
)
TEXT = ("data=pydoc", "data.samples_per_class=null", "measure.positions=true", "optimizer=adamw", "optimizer.lr=3e-3")
TEXT += ("optimizer.weight_decay=0.1", "optimizer.schedule=one_cycle", "protocol.every=null")
ACTIVATIONS = "backbone.layers=['blocks.*.mlp.act']"
"""Where transformers are read: a block's own output is the stream past its ReLU, in which nothing is zero."""
TEXT += ("backbone.epochs=5", "backbone.batch_size=64", ACTIVATIONS)
TRANSFORMERS = tuple(
    Point(f"transformer-width_{width}", ("backbone=transformer", "backbone.depth=2", f"backbone.width={width}", *TEXT))
    for width in (32, 64)
)
VIT = ("data=cifar10", "data.classes=null", "backbone=vit_small", "backbone.epochs=300", ACTIVATIONS)
VIT += ("+backbone.kwargs.act_layer=relu",)
POINTS = tuple(Point(f"vit-{labels}", (*VIT, *more)) for labels, more in LABELS.items())
QUICK_POINTS = shrunk(MLPS, [point.name for point in MLPS], COMMON)
SMALL = shrunk(MNIST, [point.name for point in MNIST if "256" not in point.name], ("data.samples_per_class=100",))
"""1,000 images."""
SHEETS = {"mixture": "digits"}
"""Data -> with which other data they share a figure."""
HALF = 0.05
"""How far from one half the share may begin."""


def claims(results: Sequence[Result]) -> list[Claim]:
    """The share before training, that it falls, and the more the wider."""
    made, begun = [], [start(result, layer, "active_share") for result in results for layer in hidden(result)[:1]]
    text = f"before training half of the activations are not zero, within {HALF}"
    made += owned(THEOREM, every(text, [abs(share - 0.5) <= HALF for share in begun], numbers(begun)))
    for kind in dict.fromkeys(kind_of(result) for result in results):
        own = sorted((result for result in results if kind_of(result) == kind), key=width_of)
        falls = {width_of(result): -changes(result)[-1] for result in own}
        measured = ", ".join(f"width {width}: {-fall:+.3f}" for width, fall in falls.items())
        text = f"{kind}: the share falls in training (change of the last hidden layer)"
        made += owned(ABSTRACT, every(text, [fall > 0 for fall in falls.values()], measured))
        if len(falls) > 1:
            more = all(after > before for before, after in pairwise(falls.values()))
            made += owned(ABSTRACT, Claim(f"{kind}: it falls by more in wider networks", "monotone", measured, more))
    return reasoned(made, {})


def draw(results: Sequence[Result]) -> "dict[str, Figure]":
    """The share over training, and its ends over the width."""
    sheets: dict[str, list[Result]] = {}
    for result in results:
        name = result.config.data.name
        sheets.setdefault(SHEETS.get(name, name), []).append(result)
    named = {"lazy" if len(sheets) == 1 else f"lazy_{name}": own for name, own in sheets.items()}
    return {name: _figure(own) for name, own in named.items()}


def _figure(results: Sequence[Result]) -> "Figure":
    kinds = list(dict.fromkeys(kind_of(result) for result in results))
    title = "Activations that are not zero, over training and by the width"
    with Sheet(1, 2, title=title, alike=True, width=1.7, height=1.4) as sheet:
        over_epochs, over_widths = sheet.row(0)
        for place, (kind, color, marker) in enumerate(zip(kinds, style.PALETTE, style.MARKERS, strict=False)):
            own = sorted((result for result in results if kind_of(result) == kind), key=width_of)
            for result, dashes in zip(own, reversed(style.LINES[: len(own)]), strict=False):
                drawn(over_epochs, curve(result, hidden(result)[-1], "active_share"), color=color, linestyle=dashes)
                sheet.legend([marks.line(_said(result.point.name), color, dashes)])
            _over_widths(over_widths, own, color, marker, 1.06**place)
            sheet.legend([marks.dot(f"{_said(kind)}, end", color, marker)])
            sheet.legend([marks.dot(f"{_said(kind)}, before training", color, marker, filled=False)])
        over_epochs.set_ylabel("share of non-zero activations")
        over_widths.set(xscale="log", xlabel="width")
        marks.numbered(over_widths, sorted({width_of(result) for result in results} - {0}))
        over_epochs.axhline(0.5, **style.OPTIMUM)
        sheet.legend([marks.line("one half: theory, before training", **style.OPTIMUM)])
    return sheet.figure


def kind_of(result: Result) -> str:
    """Network and labels, as the name of its point begins."""
    return result.point.name.partition("-width")[0]


def width_of(result: Result) -> int:
    """Of the layer that is looked at."""
    backbone = result.config.backbone
    return int(backbone.hidden[-1]) if backbone.name == "mlp" else int(getattr(backbone, "width", 0) or 0)


def hidden(result: Result) -> list[Place]:
    """The places of activations."""
    return [place for place in places(result) if len(curve(result, place, "active_share"))]


def changes(result: Result) -> list[float]:
    """How much the share has risen in training, layer by layer."""
    return [end(result, place, "active_share") - start(result, place, "active_share") for place in hidden(result)]


def _said(name: str) -> str:
    """A kind, or a point, in words."""
    for part, words in (
        ("-true", ", true labels"),
        ("-random", ", random labels"),
        ("-noise", ", random inputs"),
        ("-width_", ", width "),
    ):
        name = name.replace(part, words)
    return name


def _over_widths(axes: "Axes", own: Sequence[Result], color: str, marker: str, beside: float) -> None:
    """Kinds stand ``beside`` one another: those of the same start have the same values there."""
    shown = [result for result in own if width_of(result)]
    widths = [width_of(result) * beside for result in shown]
    for at, dashes in ((end, style.LINES[0]), (start, style.LINES[2])):
        values = [at(result, hidden(result)[-1], "active_share") for result in shown]
        axes.plot(widths, values, color=color, linestyle=dashes, zorder=1.9)
        marks.dots(axes, widths, values, color, marker, filled=at is end)


STUDY = Study(
    name="lazy",
    group=GROUP,
    title="share of activations that are not zero",
    versions={
        FULL: (*MLPS, *NOISE, *MNIST, *TRANSFORMERS, *POINTS),
        CPU: (*MLPS, *NOISE, *SMALL, *TRANSFORMERS),
        QUICK: QUICK_POINTS,
    },
    draw=draw,
    claims=claims,
    tables=tables("lazy", "active_share", "dead_share", "always_share", "rate_top10"),
)
