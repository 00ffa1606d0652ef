"""Long tails: fixed centres for every class instead of a classifier, more of them for smaller classes.

Paper: "Neural collapse to multiple centers for imbalanced data" (NeurIPS 2024; reviews and captions read).
Shows: accuracy on a balanced test split by the loss and the number of centres; angle of features to the sum of their
    centres against the epoch; NC1 and norms of class means.
Expects: features collapse onto the sums of the centres; better than cross-entropy, and the more centres the better.
Evidence: docs/reproduction/measures.md and long_tail*.csv there.
    Command: scripts/reproduce long_tail --quick
    Machine: one of 2 shared cores of an x86-64 processor, no GPU, float32, torch 2.14.1.
    Date: 2026-11-26. Commit of the code: the one that brought this file.
Provenance: shape of the centres and their number (20, angle .2) from captions; loss, decision, centres per class and
    the measure of collapse ours, because the paper's were not readable. In an unconstrained model this loss moves the
    prototype and nothing more: features end on one direction per class (derived). Fixed simplex classifiers (SETF) and
    mixup: not here.
"""

from collections.abc import Sequence
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
LOSSES |= {f"centres_{count}": ("backbone.loss=centres", f"backbone.centres={count}") for count in (1, 4, 20)}
DIGITS = tuple(
    Point(f"{name}-seed_{seed}", ("backbone.hidden=[256,128]", *loss, f"seed={seed}"))
    for name, loss in LOSSES.items()
    for seed in range(2)
)
POINTS = tuple(
    Point(
        f"cifar10-{name}-tau_{tau}",
        (
            "data=cifar10",
            "data.classes=null",
            "data.samples_per_class=5000",
            f"data.imbalance={tau}",
            *loss,
            *more,
        ),
    )
    for more in [("backbone=resnet20", "backbone.epochs=200", "backbone.batch_size=128")]
    for name, loss in LOSSES.items()
    for tau in (0.005, 0.01, 0.02)
)
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
    made, kinds = [], by_loss(results)
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
    centred = {name: value for name, value in means.items() if name != "cross_entropy"}
    if len(centred) > 1:
        ordered = list(centred.values())
        text = f"{data}: the most centres are better than one (balanced accuracy)"
        made += owned(ABSTRACT, Claim(text, "higher", told, ordered[-1] > ordered[0]))
    if centred and "cross_entropy" in means:
        text = f"{data}: centres are better than cross-entropy (balanced accuracy)"
        made += owned(ABSTRACT, Claim(text, "higher", told, max(centred.values()) > means["cross_entropy"]))
    return made


def draw(results: Sequence[Result]) -> "dict[str, Figure]":
    """Accuracy by the loss, angles over training, NC1 by the loss."""
    return figures("long_tail", results, _figure)


def _figure(results: Sequence[Result]) -> "Figure":
    kinds = by_loss(results)
    with Sheet(1, 3, title="Long tail: several centres for every class against cross-entropy", width=1.3) as sheet:
        accuracies, angles, scatter = sheet.row(0)
        for place, ((name, own), color) in enumerate(zip(kinds.items(), style.PALETTE, strict=False)):
            values = [accuracy_of(result) for result in own]
            marks.seeds(accuracies, [place], [values], color=color, joined=False)
            for result in own:
                drawn(angles, curve(result, None, "centre_mean"), color=color, linestyle=style.LINES[place % 4])
                drawn(scatter, curve(result, CLASSIFIER, "dnc1"), color=color, linestyle=style.LINES[place % 4])
            sheet.legend([marks.line(_said(name), color, style.LINES[place % 4])])
        marks.named(
            accuracies, ["CE" if name == "cross_entropy" else str(count_of(own[0])) for name, own in kinds.items()]
        )
        accuracies.set(xlabel="centres (CE: cross-entropy)", ylabel="accuracy on the balanced test split")
        angles.set(yscale="log", ylabel="mean of 1 - cos(feature, sum of its centres)")
        scatter.set(yscale="log", ylabel="NC1 of the features")
        sheet.legend([marks.dot("one seed", style.GREY), marks.line("median", style.GREY, "", marker="_")])
    return sheet.figure


def _said(kind: str) -> str:
    """The loss in words, of `by_loss`."""
    count = kind.removeprefix("centres_")
    return "cross-entropy" if count == kind else f"{count} centre{'s' * (count != '1')}"


def by_loss(results: Sequence[Result]) -> dict[str, list[Result]]:
    """The runs of each loss and number of centres, of all seeds and tails."""
    found: dict[str, list[Result]] = {}
    for result in results:
        count = count_of(result)
        found.setdefault(f"centres_{count}" if count else "cross_entropy", []).append(result)
    return found


def count_of(result: Result) -> int:
    """Centres of the largest class, 0 of a network with a classifier."""
    backbone = result.config.backbone
    return int(backbone.centres) if backbone.loss == "centres" else 0


def accuracy_of(result: Result) -> float:
    """Mean over classes of the share told right; with a classifier the share of a test split of equal classes."""
    found = end(result, None, "test_balanced_accuracy")
    return found if found == found else end(result, None, "test_accuracy")


STUDY = Study(
    name="long_tail",
    group=GROUP,
    title="long tails: several centres per class against cross-entropy",
    versions={FULL: (*DIGITS, *POINTS), CPU: DIGITS, QUICK: QUICK_POINTS},
    draw=draw,
    claims=claims,
    tables=tables(
        "long_tail", "test_balanced_accuracy", "test_accuracy", "train_loss", "least_loss", "centre_mean", "dnc1"
    ),
)
