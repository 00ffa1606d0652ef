"""Foreign data: do rows of other images come to lie across the class means, and can they be told from known ones?

Paper: arXiv 2310.06823 (NECO: neural collapse based out-of-distribution detection).
Shows: NC5, and AUROC and false-positive rate of the NECO score, against the epoch and through the layers.
Expects: NC5 falls in training; foreign rows are told by their share in the leading directions, the better the deeper.
Evidence: docs/reproduction/measures.md and foreign*.csv there.
    Command: scripts/reproduce foreign --cpu
    Machine: one of 2 shared cores of an x86-64 processor, no GPU, float32, torch 2.14.1.
    Date: 2026-11-27. Commit of the code: the one that brought this file.
Provenance: NC5 and score read in the code; that features are not centred, and the number of directions (K - 1), ours
    [the official code standardises, recalled]; data of the small version (five digits against the other five), network
    and thresholds ours.
"""

from collections.abc import Sequence
from statistics import mean
from typing import TYPE_CHECKING

from pipeline.studies._family import every
from pipeline.studies._measured import (
    CLASSIFIER,
    COMMON,
    GROUP,
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
from pipeline.studies.engine.claims import OURS, READ, Claim, owned, reasoned
from pipeline.studies.engine.results import Point, Result
from pipeline.studies.engine.study import CPU, FULL, QUICK, Study, shrunk
from pipeline.views import marks, style
from pipeline.views.figures import layer_colors
from pipeline.views.sheet import Sheet

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MLP = ("backbone.hidden=[128,128,64]",)
DIGITS = tuple(Point(f"digits-digits-seed_{seed}", (*MLP, f"seed={seed}")) for seed in range(3))
LARGE = ("data.classes=null", "data.samples_per_class=1000")
RESNET = ("backbone=resnet20", "backbone.epochs=100", "backbone.loss=cross_entropy")
POINTS = (
    Point("mnist-fashion_mnist-seed_0", ("data=mnist", "data.foreign=fashion_mnist", *LARGE, *MLP)),
    Point("mnist-cifar10-seed_0", ("data=mnist", "data.foreign=cifar10", *LARGE, *MLP)),
    Point("cifar10-mnist-seed_0", ("data=cifar10", "data.foreign=mnist", *LARGE, *RESNET)),
)
QUICK_POINTS = shrunk(DIGITS, [point.name for point in DIGITS], COMMON)
FEW = {
    "mnist-cifar10-seed_0": ("data.samples_per_class=200",),
    "cifar10-mnist-seed_0": (
        "data.samples_per_class=100",
        "backbone.epochs=10",
        "protocol.every=10",
        "data.augment=none",
    ),
}
REAL = tuple(point for name, smaller in FEW.items() for point in shrunk(POINTS, [name], smaller))
"""2,000 images of MNIST against CIFAR-10, 1,000 of CIFAR-10 against MNIST; the test images of all."""
SHOWN = {
    "nc5": "NC5",
    "neco_auroc": "AUROC of the NECO score",
    "neco_fpr95": "foreign rows let through at 95 % of the known",
}
"""Metric -> what its axis says."""
TOLD = 0.9
"""AUROC from which foreign rows count as told."""


def claims(results: Sequence[Result]) -> list[Claim]:
    """NC5 over training, AUROC at the end, over training and through the layers."""
    made = []
    for kind, own in _kinds(results).items():
        begun, found = ([at(result, CLASSIFIER, "nc5") for result in own] for at in (start, end))
        fell = [after < before for before, after in zip(begun, found, strict=True)]
        text = f"{kind}: NC5 of the features falls in training"
        made += owned(READ, every(text, fell, f"{numbers(begun)} to {numbers(found)}"))
        told = [end(result, CLASSIFIER, "neco_auroc") for result in own]
        made += owned(READ, every(f"{kind}: AUROC >= {TOLD}", [value >= TOLD for value in told], numbers(told)))
        before = [start(result, CLASSIFIER, "neco_auroc") for result in own]
        rose = [after > first for first, after in zip(before, told, strict=True)]
        text = f"{kind}: training makes foreign rows easier to tell (AUROC)"
        made += owned(OURS, every(text, rose, f"{numbers(before)} to {numbers(told)}"))
        layers = [[end(result, place, "neco_auroc") for place in places(result)] for result in own]
        deeper = [values[-1] > values[0] for values in layers]
        measured = "; ".join(numbers([values[0], values[-1]]) for values in layers)
        made += owned(OURS, every(f"{kind}: the last block tells them better than the first", deeper, measured))
    return reasoned(made, {})


def draw(results: Sequence[Result]) -> "dict[str, Figure]":
    """NC5, AUROC and the false-positive rate over training, block by block, mean over seeds."""
    return figures("foreign", results, _figure)


def _figure(results: Sequence[Result]) -> "Figure":
    kinds = _kinds(results)
    title = "Known against foreign images, block by block, mean over seeds"
    with Sheet(len(kinds), len(SHOWN), title=title, width=1.3) as sheet:
        for row, (kind, own) in enumerate(kinds.items()):
            for axes, first, (metric, label) in zip(sheet.row(row), sheet.row(0), SHOWN.items(), strict=True):
                if row:
                    axes.sharey(first)
                if len(kinds) > 1:
                    sheet.tag(axes, kind.replace("-", " against "))
                sheet.legend(_layers(axes, own, metric))
                axes.set_ylabel(label)
            sheet[row, 1].axhline(0.5, **style.THRESHOLD)
        sheet.legend([marks.line("chance", **style.THRESHOLD)])
    return sheet.figure


def _kinds(results: Sequence[Result]) -> dict[str, list[Result]]:
    """The runs by known and foreign data."""
    kinds: dict[str, list[Result]] = {}
    for result in results:
        kinds.setdefault(result.point.name.partition("-seed")[0], []).append(result)
    return kinds


def _layers(axes: "Axes", own: Sequence[Result], metric: str) -> list:
    """Returns the entries of a legend."""
    layers = places(own[0])
    colors = layer_colors([layer for layer, _ in layers])
    for place in layers:
        values = [curve(result, place, metric) for result in own]
        middle = values[0].index.to_series().map(lambda step: mean(each[step] for each in values))  # noqa: B023
        drawn(axes, middle, color=colors[place[0]])
    return [marks.line(short(place), colors[place[0]]) for place in layers]


STUDY = Study(
    name="foreign",
    group=GROUP,
    title="known against foreign images: NC5 and NECO",
    versions={FULL: (*DIGITS, *POINTS), CPU: (*DIGITS, *REAL), QUICK: QUICK_POINTS},
    draw=draw,
    claims=claims,
    tables=tables("foreign", "nc5", "neco_auroc", "neco_fpr95", "test_neco_auroc", "dnc1"),
)
