"""Batch norm and weight decay: features of fixed length collapse more the stronger the decay.

Paper: arXiv 2309.04644 (the effects of batch normalization and weight decay on neural collapse).
Shows: smallest cosine within a class and largest between classes against the decay, with and without batch norm; the
    loss of the normalised networks over the optimum of theory.
Expects: with batch norm the former rises and the latter falls with the decay; more collapse than without.
Evidence: docs/reproduction/measures.md and norm_decay*.csv there.
    Command: scripts/reproduce norm_decay --cpu
    Machine: one of 2 shared cores of an x86-64 processor, no GPU, float32, torch 2.14.1.
    Date: 2026-11-27. Commit of the code: the one that brought this file.
Provenance: cosines and claims read in a digest (roots of the rates [M], which have no constants, so that no line of a
    bound can be drawn); optimum derived (`pipeline.theory.bn_optimum`); data, network, decays and epochs ours.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from pipeline.studies._family import every
from pipeline.studies._measured import CLASSIFIER, COMMON, GROUP, curve, end, numbers, tables
from pipeline.studies.engine.claims import READ, THEOREM, Claim, owned, reasoned
from pipeline.studies.engine.results import Point, Result
from pipeline.studies.engine.study import CPU, FULL, QUICK, Study, shrunk
from pipeline.views import marks, style
from pipeline.views.sheet import Sheet

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DECAYS = (1e-4, 1e-3, 5e-3, 2e-2)
NORMS = ("batch", "none")


def _points(data: str, *more: str, name: str = "") -> tuple[Point, ...]:
    return tuple(
        Point(
            f"{name or data}-{norm}-decay_{decay:g}",
            (f"data={data}", f"backbone.norm={norm}", f"optimizer.weight_decay={decay}", *more),
        )
        for norm in NORMS
        for decay in DECAYS
    )


CONES = _points("cones", "data.samples_per_class=200")
DIGITS = _points("digits", "data.classes=null")
POINTS = tuple(
    point
    for name, data, more in (
        ("mnist-mlp", "mnist", ("backbone.hidden=[512,512,512]",)),
        ("cifar10-mlp", "cifar10", ("backbone.hidden=[512,512,512,512,512,512]",)),
    )
    for point in _points(data, "data.classes=null", "backbone.epochs=200", *more, name=name)
)
SMALL = ("data.samples_per_class=100", "backbone.hidden=[128,128,128]", "backbone.epochs=60")
MNIST = shrunk(POINTS, [point.name for point in POINTS if "mnist" in point.name], SMALL)
"""1,000 images."""
BELOW = 1e-6
"""How far rounding in float32 may take a loss below the optimum, relatively."""

REASONS = {"within a class is larger": "60 epochs leave the normalised networks far above their optimum (relative gap)"}
"""Why claims do not hold, by a part of their text."""


def claims(results: Sequence[Result]) -> list[Claim]:
    """The trends with decay of the normalised networks, batch norm against none, and the optimum."""
    made = []
    for data in dict.fromkeys(result.config.data.name for result in results):
        with_norm, without = (series(results, data, norm) for norm in NORMS)
        for metric, text, sign in (
            ("cos_intra_min", "smallest cosine within a class rises", 1),
            ("cos_inter_max", "largest cosine between classes falls", -1),
        ):
            values = [end(result, CLASSIFIER, metric) for result in with_norm]
            if len(values) > 1:
                right = all(sign * (after - before) > 0 for before, after in pairwise(values))
                claim = Claim(f"{data}: {text} with decay, with batch norm", "monotone", numbers(values), right)
                made += owned(READ, claim)
            others = [end(result, CLASSIFIER, metric) for result in without]
            if values and len(values) == len(others):
                better = [sign * (a - b) > 0 for a, b in zip(values, others, strict=True)]
                what = "larger" if sign > 0 else "smaller"
                cosine = text.rpartition(" ")[0]
                text = f"{data}: {cosine} is {what} with batch norm than without, at every decay"
                made += owned(READ, every(text, better, f"{numbers(values)} against {numbers(others)}"))
        gaps = [gap for result in with_norm if (gap := gap_of(result)) is not None]
        if gaps:
            text = f"{data}: the loss is nowhere below the optimum, relative gap"
            made += owned(THEOREM, every(text, [gap >= -BELOW for gap in gaps], numbers(gaps)))
    return reasoned(made, REASONS)


def draw(results: Sequence[Result]) -> "dict[str, Figure]":
    """Cosines over the decay, one column for each data set, and the gap to the optimum."""
    sets = list(dict.fromkeys(result.config.data.name for result in results))
    with Sheet(1, len(sets) + 1, title="Batch norm and weight decay: cosines of features", width=1.4) as sheet:
        *columns, gaps = sheet.row(0)
        for axes, data in zip(columns, sets, strict=True):
            sheet.tag(axes, data)
            sheet.legend(_cosines(axes, results, data))
        if not (handles := _gaps(gaps, results, sets)):
            sheet.drop(gaps)
        sheet.legend(handles)
    return {"norm_decay": sheet.figure}


def series(results: Sequence[Result], data: str, norm: str) -> list[Result]:
    """The runs on a data set with or without batch norm, by decay."""
    found = [r for r in results if r.config.data.name == data and r.config.backbone.norm == norm]
    return sorted(found, key=lambda result: result.config.optimizer.weight_decay)


def gap_of(result: Result) -> float | None:
    """The loss over the optimum, less 1, where theory knows that."""
    values = curve(result, None, "relative_gap")
    return float(values.iloc[-1]) if len(values) else None


def _cosines(axes: "Axes", results: Sequence[Result], data: str) -> list:
    """Returns the entries of a legend."""
    handles = []
    for norm, marker, dashes in zip(NORMS, style.MARKERS, style.LINES, strict=False):
        found = series(results, data, norm)
        decays = [result.config.optimizer.weight_decay for result in found]
        for metric, color, text in (
            ("cos_intra_min", style.BLUE, "smallest within a class"),
            ("cos_inter_max", style.RED, "largest between classes"),
        ):
            look = {"color": color, "marker": marker, "linestyle": dashes}
            axes.plot(decays, [end(result, CLASSIFIER, metric) for result in found], **look)
            handles.append(marks.line(f"{text}, {'batch norm' if norm == 'batch' else 'no norm'}", **look))
    axes.set(xscale="log", xlabel="weight decay", ylabel="cosine of features", ylim=(-0.55, 1.05))
    return handles


def _gaps(axes: "Axes", results: Sequence[Result], sets: Sequence[str]) -> list:
    """The loss over the optimum by data set; returns the entries of a legend, none where theory knows no optimum."""
    handles = []
    for data, color, marker in zip(sets, style.PALETTE[2:], style.MARKERS[2:], strict=False):
        found = series(results, data, "batch")
        known = [(result.config.optimizer.weight_decay, gap_of(result)) for result in found]
        known = [(decay, gap) for decay, gap in known if gap is not None]
        if known:
            axes.plot(*zip(*known, strict=True), color=color, marker=marker)
            handles.append(marks.line(f"{data}, batch norm", color, marker=marker))
    axes.set(xscale="log", yscale="log", xlabel="weight decay", ylabel=style.GAP)
    return handles


STUDY = Study(
    name="norm_decay",
    group=GROUP,
    title="batch norm and weight decay: cosines of features",
    versions={
        FULL: (*CONES, *DIGITS, *POINTS),
        CPU: (*CONES, *DIGITS, *MNIST),
        QUICK: shrunk(CONES, [point.name for point in CONES], COMMON),
    },
    draw=draw,
    claims=claims,
    tables=tables("norm_decay", "cos_intra_min", "cos_intra_mean", "cos_inter_max", "cos_inter_mean", "dnc1", "loss"),
)
