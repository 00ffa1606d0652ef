"""Label bias: labels of one group are given wrongly; does collapse differ between groups, and who pays for it?

Paper: arXiv 2407.05843 (neural collapse and fairness).
Shows: NC1 of each group and F1 of each group on clean test labels against the epoch; distance of the groups, and F1
    against the rate of wrong labels.
Expects: NC1 of the groups apart at first and one configuration at the end; F1 falls in all groups once wrong labels are
    memorised.
Evidence: docs/reproduction/measures.md and label_bias*.csv there.
    Command: scripts/reproduce label_bias --cpu
    Machine: one of 2 shared cores of an x86-64 processor, no GPU, float32, torch 2.14.1.
    Date: 2026-11-27. Commit of the code: the one that brought this file.
Provenance: the two claims read (abstract); data, classes (digits up to 4 and from 5 on, among others), groups (inverted
    images), rates, network and what counts as apart, together and fallen ours. PAPILA, HAM10000 and CheXpert: not here.
"""

from collections.abc import Sequence
from itertools import pairwise
from math import isnan
from typing import TYPE_CHECKING

from pipeline.studies._measured import CLASSIFIER, COMMON, GROUP, curve, drawn, end, numbers, tables
from pipeline.studies.engine.claims import ABSTRACT, OURS, Claim, owned, reasoned
from pipeline.studies.engine.results import Point, Result
from pipeline.studies.engine.study import CPU, FULL, QUICK, Study, shrunk
from pipeline.views import marks, style
from pipeline.views.sheet import Sheet

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

RATES = (0.0, 0.25, 0.5)
DIGITS = tuple(Point(f"rate_{rate:g}", (f"data.flip.rate={rate:g}",)) for rate in RATES)
SETS = {"mnist": ("8", "3"), "cifar10": ("ship", "cat")}
"""Class whose labels are given wrongly, and as which."""
POINTS = tuple(
    Point(
        f"{data}-rate_{rate:g}",
        (
            f"data={data}",
            "data.classes=[3,8]",
            f"data.flip.from={old}",
            f"data.flip.to={new}",
            f"data.flip.rate={rate:g}",
        ),
    )
    for data, (old, new) in SETS.items()
    for rate in RATES
)
HALVES = ("data.classes=[[0,1,2,3,4],[5,6,7,8,9]]", "data.flip.from=1", "data.flip.to=0")
"""Two classes: digits up to 4, and from 5 on."""
MERGED = tuple(
    Point(f"{data}-halves-rate_{rate:g}", (f"data={data}", *HALVES, f"data.flip.rate={rate:g}"))
    for data in ("digits", "mnist")
    for rate in RATES
)
SMALL = ("data.samples_per_class=500", "data.augment=none", "optimizer.lr=0.02", "backbone.epochs=40")
CPU_POINTS = (
    *(point for point in MERGED if "digits" in point.name),
    *shrunk(MERGED, [point.name for point in MERGED if "mnist" in point.name], SMALL),
    *shrunk(POINTS, [point.name for point in POINTS if "cifar10" in point.name], SMALL),
)
"""500 images of a class. A first run, with 1,000 of them at a rate of .1, lost all units of both networks."""
QUICK_POINTS = shrunk(DIGITS, [point.name for point in DIGITS], COMMON)
GROUPS = ("0", "1")
LOOKS = {"color": style.BLUE, "marker": "o"}, {"color": style.RED, "marker": "^"}
EVERYONE = {"color": style.GREEN, "linestyle": style.LINES[1]}
TOGETHER, LOST, APART = 1.5, 0.05, 1.2
"""Ratio of NC1 up to which groups are together; F1 that counts as lost; ratio from which groups are apart."""

REASONS = {
    "in all groups": "the groups are told apart at a glance (inverted images), so that what is wrong in one is learned "
    "of that one alone",
}
"""Why claims do not hold, by a part of their text."""


def claims(results: Sequence[Result]) -> list[Claim]:
    """The groups' NC1 over training, F1 of each group, and how far the groups end apart."""
    return reasoned((claim for kind, own in _kinds(results).items() for claim in _claims(kind, own)), REASONS)


def _claims(data: str, results: Sequence[Result]) -> list[Claim]:
    made, clean = [], next((result for result in results if rate_of(result) == 0), None)
    for result in (each for each in results if rate_of(each) > 0):
        name, ratios = result.point.name, _ratios(result)
        measured = f"ratio of NC1 {numbers(ratios[:1])} after the first epochs, {ratios[-1]:.3g} at the end"
        apart = max(ratios[0], 1 / ratios[0]) > APART
        text = f"{name}: NC1 of the groups is apart early"
        made += owned(ABSTRACT, Claim(text, f"> {APART}", measured, _unless_dead(apart, result)))
        near = max(ratios[-1], 1 / ratios[-1]) <= TOGETHER
        text = f"{name}: the groups end in one configuration"
        made += owned(ABSTRACT, Claim(text, f"<= {TOGETHER}", measured, _unless_dead(near, result)))
        scores = [end(result, CLASSIFIER, f"test_f1/group={group}") for group in GROUPS]
        told = f"groups 0, 1: {numbers(scores)}"
        if clean is not None:
            before = [end(clean, CLASSIFIER, f"test_f1/group={group}") for group in GROUPS]
            lost = [old - new for old, new in zip(before, scores, strict=True)]
            told += f"; without wrong labels {numbers(before)}"
            text = f"{name}: F1 falls in all groups"
            made += owned(ABSTRACT, Claim(text, f"by > {LOST}", told, _unless_dead(min(lost) > LOST, result, clean)))
            text = f"{name}: F1 falls in the biased group alone"
            alone = _unless_dead(lost[1] > LOST >= lost[0], result, clean)
            made += owned(OURS, Claim(text, f"by > {LOST}", told, alone))
    gaps = [end(result, CLASSIFIER, "group_gap") for result in sorted(results, key=rate_of)]
    if len(gaps) > 1:
        rising = all(a < b for a, b in pairwise(gaps))
        text = f"{data}: the distance of the groups at the end rises with the rate of wrong labels"
        made += owned(OURS, Claim(text, "rising", numbers(gaps), _unless_dead(rising, *results)))
    return made


def draw(results: Sequence[Result]) -> "dict[str, Figure]":
    """NC1 and F1 of the groups over training at the middle rate; distance over training, F1 over rates."""
    kinds = _kinds(results)
    return {"label_bias" if len(kinds) == 1 else f"label_bias_{kind}": _figure(own) for kind, own in kinds.items()}


def _figure(results: Sequence[Result]) -> "Figure":
    ordered = sorted(results, key=rate_of)
    with Sheet(2, 2, title="Wrong labels in one group: collapse and F1 of each", width=1.6, height=1.1) as sheet:
        (nc1, scores), (gaps, rates) = sheet.row(0), sheet.row(1)
        rates.sharey(scores)
        for result in [result for result in ordered if rate_of(result) > 0][:1]:
            _of_groups(nc1, result, "dnc1/group={}")
            _of_groups(scores, result, "test_f1/group={}")
            drawn(nc1, curve(result, CLASSIFIER, "dnc1"), **EVERYONE)
            for axes in (nc1, scores):
                sheet.tag(axes, f"rate of wrong labels {rate_of(result):g}")
        nc1.set(yscale="log", ylabel="NC1 of the features, by true labels")
        scores.set_ylabel("F1 on clean test labels")
        sheet.legend([marks.line(f"group {group}", **look) for group, look in zip(GROUPS, LOOKS, strict=True)])
        sheet.legend([marks.line("all images", **EVERYONE)])
        greys = zip(ordered, style.greys(len(ordered)), style.LINES, strict=False)
        for result, color, dashes in greys:
            drawn(gaps, curve(result, CLASSIFIER, "group_gap"), color=color, linestyle=dashes)
            sheet.legend([marks.line(f"rate {rate_of(result):g}", color, dashes)])
        gaps.set(yscale="log", ylabel=r"squared distance of the groups' means over tr $\Sigma_B$")
        for group, look in zip(GROUPS, LOOKS, strict=True):
            ends = [end(result, CLASSIFIER, f"test_f1/group={group}") for result in ordered]
            rates.plot([rate_of(result) for result in ordered], ends, **look)
        rates.set(xlabel="rate of wrong labels in group 1, class 1", ylabel="F1 at the end")
        marks.numbered(rates, [rate_of(result) for result in ordered])
    return sheet.figure


def _kinds(results: Sequence[Result]) -> dict[str, list[Result]]:
    """The runs on each data set with the same classes, by its name."""
    kinds: dict[str, list[Result]] = {}
    for result in results:
        own = result.point.name.rpartition("rate_")[0].removesuffix("-")
        kinds.setdefault(own or result.config.data.name, []).append(result)
    return kinds


def rate_of(result: Result) -> float:
    """Share of the labels of group 1, class 1 that are given wrongly."""
    return float(result.config.data.flip["rate"])


def _unless_dead(holds: bool, *results: Result) -> bool | None:
    """None where all features of one of these have become the same: such a training decides nothing."""
    return None if any(isnan(end(result, CLASSIFIER, "dnc1")) for result in results) else holds


def _ratios(result: Result) -> list[float]:
    """NC1 of group 1 over that of group 0, epoch by epoch from the first measured one after the start."""
    first, second = (curve(result, CLASSIFIER, f"dnc1/group={group}") for group in GROUPS)
    return (second / first).iloc[1:].tolist() or [float("nan")]


def _of_groups(axes: "Axes", result: Result, metric: str) -> None:
    for group, look in zip(GROUPS, LOOKS, strict=True):
        drawn(axes, curve(result, CLASSIFIER, metric.format(group)), **look)


STUDY = Study(
    name="label_bias",
    group=GROUP,
    title="wrong labels in one group: collapse and F1 of each",
    versions={FULL: (*DIGITS, *MERGED, *POINTS), CPU: CPU_POINTS, QUICK: QUICK_POINTS},
    draw=draw,
    claims=claims,
    tables=tables(
        "label_bias", "dnc1", "dnc1/group=0", "dnc1/group=1", "test_f1/group=0", "test_f1/group=1", "group_gap"
    ),
)
