"""Long tails: fixed centres for every class instead of a classifier, more of them for smaller classes.

Paper: "Neural collapse to multiple centers for imbalanced data" (NeurIPS 2024; reviews and captions read).
Shows: accuracy on a balanced test split by the loss and the number of centres, and against how long the tail is; angle
    of features to the sum of their centres against the epoch; NC1 of the features.
Expects: features collapse onto the sums of the centres; better than cross-entropy, and the more centres the better.
Evidence: docs/reproduction/measures.md and long_tail*.csv there.
    Command: scripts/reproduce long_tail --cpu
    Machine: one of 2 shared cores of an x86-64 processor, no GPU, float32, torch 2.14.1.
    Date: 2026-11-27. Commit of the code: 3c16d59.
Provenance: shape of the centres and their number (20, angle .2) from captions; loss, decision, centres per class and
    the measure of collapse ours, because the paper's were not readable. In an unconstrained model this loss moves the
    prototype and nothing more: features end on one direction per class (derived). Fixed simplex classifiers (SETF):
    one centre per class, the vertices of a simplex, with the loss of the centres (theirs recalled to be another one).
"""

from collections.abc import Sequence
from math import nan
from statistics import mean
from typing import TYPE_CHECKING

from pipeline.studies._family import every
from pipeline.studies._measured import (
    CLASSIFIER,
    COMMON,
    GROUP,
    by_data,
    curve,
    drawn,
    end,
    figures,
    numbers,
    tables,
)
from pipeline.studies.engine.claims import ABSTRACT, OURS, THEOREM, Claim, owned, reasoned
from pipeline.studies.engine.results import Point, Result
from pipeline.studies.engine.study import CPU, FULL, QUICK, Study, shrunk
from pipeline.views import marks, style
from pipeline.views.sheet import Sheet

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LOSSES = {"cross_entropy": ("backbone.loss=cross_entropy",)}
LOSSES |= {"simplex": ("backbone.loss=centres", "backbone.frame=simplex")}
LOSSES |= {f"centres_{count}": ("backbone.loss=centres", f"backbone.centres={count}") for count in (1, 4, 20)}
MLP = ("backbone.hidden=[256,128]",)
DIGITS = tuple(
    Point(f"{name}-seed_{seed}", (*MLP, *loss, f"seed={seed}")) for name, loss in LOSSES.items() for seed in range(2)
)
TAILS = tuple(
    Point(f"{name}-tau_{tau:g}", (*MLP, *LOSSES[name], f"data.imbalance={tau:g}"))
    for name in ("cross_entropy", "simplex", "centres_20")
    for tau in (0.1, 0.2)
)
MIXED = tuple(
    Point(f"{name}-mixup", (*MLP, *LOSSES[name], "backbone.mixup=1.0")) for name in ("cross_entropy", "centres_20")
)
MNIST = tuple(
    Point(f"mnist-{name}-tau_{tau:g}", ("data=mnist", *MLP, *loss, f"data.imbalance={tau:g}", "data.classes=null"))
    for name, loss in LOSSES.items()
    for tau in (0.005, 0.01, 0.02)
)
POINTS = tuple(
    Point(
        f"cifar10-{name}-tau_{tau}{mixing and '-mixup'}",
        (
            "data=cifar10",
            "data.classes=null",
            "data.samples_per_class=5000",
            f"data.imbalance={tau}",
            *loss,
            *([mixing] if mixing else []),
            *more,
        ),
    )
    for mixing in ("", "backbone.mixup=1.0")
    for more in [("backbone=resnet20", "backbone.epochs=200", "backbone.batch_size=128")]
    for name, loss in LOSSES.items()
    for tau in (0.005, 0.01, 0.02)
)
SMALL = shrunk(
    MNIST,
    [f"mnist-{name}-tau_0.02" for name in ("cross_entropy", "simplex", "centres_20")],
    ("data.samples_per_class=500", "backbone.epochs=40"),
)
"""500 images of the first class, 10 of the last."""
QUICK_POINTS = shrunk(DIGITS, [point.name for point in DIGITS], COMMON)
FLOOR, COLLAPSED = 0.0025, 0.01
"""Loss above its least value, and mean of 1 - cos to the sum of the centres, up to which features have collapsed."""
REASONS = {
    "cross-entropy": "tiny images, a loss of ours; the paper's could not be read",
}
"""Why claims do not hold, by a part of their text."""


def claims(results: Sequence[Result]) -> list[Claim]:
    """Collapse onto the sums of the centres, and accuracy by the loss and by the number of centres."""
    return reasoned((claim for data, own in by_data(results).items() for claim in _claims(data, own)), REASONS)


def _claims(data: str, results: Sequence[Result]) -> list[Claim]:
    made, kinds = [], by_loss(alike(results))
    for name, own in kinds.items():
        if count_of(own[0]):
            above = [end(result, None, "train_loss") - end(result, None, "least_loss") for result in own]
            text = f"{data}, {name}: loss over its least value, at most {FLOOR}"
            made += owned(OURS, every(text, [0 <= value + 1e-6 <= FLOOR for value in above], numbers(above)))
            away = [end(result, None, "centre_mean") for result in own]
            text = f"{data}, {name}: features lie on the sum of their centres, 1 - cos at most {COLLAPSED}"
            made += owned(ABSTRACT, every(text, [value <= COLLAPSED for value in away], numbers(away)))
            made += owned(
                THEOREM, every(f"{data}, {name}: no loss below the least", [v >= -1e-6 for v in above], numbers(above))
            )
    means = {name: sum(map(accuracy_of, own)) / len(own) for name, own in kinds.items()}
    told = ", ".join(f"{name} {value:.3f}" for name, value in means.items())
    centred = {name: value for name, value in means.items() if name.startswith("centres")}
    if len(centred) > 1:
        ordered = list(centred.values())
        text = f"{data}: the most centres are better than one (balanced accuracy)"
        made += owned(ABSTRACT, Claim(text, "higher", told, ordered[-1] > ordered[0]))
    if centred and "cross_entropy" in means:
        text = f"{data}: centres are better than cross-entropy (balanced accuracy)"
        made += owned(ABSTRACT, Claim(text, "higher", told, max(centred.values()) > means["cross_entropy"]))
    if len(centred) > 1 and "simplex" in means:
        text = f"{data}: several centres are better than a fixed simplex (balanced accuracy)"
        made += owned(ABSTRACT, Claim(text, "higher", told, list(centred.values())[-1] > means["simplex"]))
    if "cross_entropy" in means:
        for result in mixing_of(results):
            name = next(iter(by_loss([result])))
            plain, found = means.get(name, nan), accuracy_of(result)
            text = f"{data}, {name}: mixup makes it better (balanced accuracy)"
            made += owned(OURS, Claim(text, "higher", f"{plain:.3f} to {found:.3f}", found > plain))
    return made


def draw(results: Sequence[Result]) -> "dict[str, Figure]":
    """Accuracy by the loss, angles over training, NC1 by the loss."""
    return figures("long_tail", results, _figure)


def _figure(results: Sequence[Result]) -> "Figure":
    kinds, tails = by_loss(alike(results)), _by_tail(results)
    with Sheet(
        1, 4 if tails else 3, title="Long tail: several centres for every class against cross-entropy", width=1.3
    ) as sheet:
        accuracies, *over_tails, angles, scatter = sheet.row(0)
        for place, ((name, own), color) in enumerate(zip(kinds.items(), style.PALETTE, strict=False)):
            values = [accuracy_of(result) for result in own]
            marks.seeds(accuracies, [place], [values], color=color, joined=False)
            if any(result.config.backbone.mixup for result in results):
                mixed = [accuracy_of(result) for result in by_loss(mixing_of(results)).get(name, [])]
                marks.dots(accuracies, [place] * len(mixed), mixed, color, "^", filled=False)
            for result in own:
                drawn(angles, curve(result, None, "centre_mean"), color=color, linestyle=style.LINES[place % 4])
                drawn(scatter, curve(result, CLASSIFIER, "dnc1"), color=color, linestyle=style.LINES[place % 4])
            sheet.legend([marks.line(_said(name), color, style.LINES[place % 4])])
        short = {"cross_entropy": "CE", "simplex": "S"}
        marks.named(accuracies, [short.get(name, name.removeprefix("centres_")) for name in kinds])
        for axes in over_tails:
            for name, values in tails.items():
                color = style.PALETTE[list(kinds).index(name)]
                axes.plot(values.keys(), values.values(), color=color, marker="o")
            axes.set(xscale="log", xlabel="images of the last class over the first", ylabel="accuracy")
            marks.numbered(axes, sorted({tau for values in tails.values() for tau in values}))
        accuracies.set(xlabel="centres (CE: cross-entropy, S: simplex)", ylabel="accuracy on the balanced test split")
        angles.set(yscale="log", ylabel="mean of 1 - cos(feature, sum of its centres)")
        scatter.set(yscale="log", ylabel="NC1 of the features")
        if mixing_of(results):
            sheet.legend([marks.dot("with mixup", style.GREY, "^", filled=False)])
        sheet.legend([marks.dot("one seed", style.GREY), marks.line("median", style.GREY, "", marker="_")])
    return sheet.figure


def _by_tail(results: Sequence[Result]) -> dict[str, dict[float, float]]:
    """Loss -> tail -> mean accuracy, of losses that were run with several tails."""
    plain, found = [result for result in results if not result.config.backbone.mixup], {}
    for name, own in by_loss(plain).items():
        tails = sorted({tail_of(result) for result in own})
        found[name] = {tau: mean(accuracy_of(r) for r in own if tail_of(r) == tau) for tau in tails}
    return {name: values for name, values in found.items() if len(values) > 1}


def tail_of(result: Result) -> float:
    """Images of the last class over those of the first."""
    return float(result.config.data.imbalance)


def alike(results: Sequence[Result]) -> list[Result]:
    """Those without mixup and with the longest tail that most have in common."""
    plain = [result for result in results if not result.config.backbone.mixup]
    tails = [tail_of(result) for result in plain]
    longest = max(sorted(set(tails)), key=tails.count, default=None)
    return [result for result in plain if tail_of(result) == longest]


def mixing_of(results: Sequence[Result]) -> list[Result]:
    """Those with mixup."""
    return [result for result in results if result.config.backbone.mixup]


def _said(kind: str) -> str:
    """The loss in words, of `by_loss`."""
    if kind == "simplex":
        return "fixed simplex"
    count = kind.removeprefix("centres_")
    return "cross-entropy" if count == kind else f"{count} centre{'s' * (count != '1')}"


def by_loss(results: Sequence[Result]) -> dict[str, list[Result]]:
    """The runs of each loss and number of centres, of all seeds and tails."""
    found: dict[str, list[Result]] = {}
    for result in results:
        simplex = result.config.backbone.frame == "simplex"
        name = "simplex" if simplex else f"centres_{count_of(result)}" if count_of(result) else "cross_entropy"
        found.setdefault(name, []).append(result)
    return found


def count_of(result: Result) -> int:
    """Centres of the largest class, 0 of a network with a classifier."""
    backbone = result.config.backbone
    if backbone.frame == "simplex":
        return 1
    return int(backbone.centres) if backbone.loss == "centres" else 0


def accuracy_of(result: Result) -> float:
    """Mean over classes of the share told right; with a classifier the share of a test split of equal classes."""
    found = end(result, None, "test_balanced_accuracy")
    return found if found == found else end(result, None, "test_accuracy")


STUDY = Study(
    name="long_tail",
    group=GROUP,
    title="long tails: several centres per class against cross-entropy",
    versions={
        FULL: (*DIGITS, *TAILS, *MIXED, *MNIST, *POINTS),
        CPU: (*DIGITS, *TAILS, *MIXED, *SMALL),
        QUICK: QUICK_POINTS,
    },
    draw=draw,
    claims=claims,
    tables=tables(
        "long_tail", "test_balanced_accuracy", "test_accuracy", "train_loss", "least_loss", "centre_mean", "dnc1"
    ),
)
