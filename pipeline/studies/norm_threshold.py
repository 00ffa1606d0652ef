"""Feature norms and the onset of collapse: does it begin where the mean norm falls to a value of network and data?

Paper: arXiv 2604.00230 (neural collapse dynamics: depth, activation, regularisation, and feature norm threshold).
Shows: NC1 against the mean norm of features, a curve for each run; the norm over the epochs; onset, and epochs from the
    fall of the norm below its usual value at the onset until the onset, by learning rate.
Expects: (the paper's) one norm at the onset within 8 %, whatever the rate and the seed; the fall below it 62 epochs,
    within 24, before the onset. Ours: the onset keeps the time 1/rate, so that no number of epochs can be its lead.
Evidence: docs/reproduction/beyond.md and norm_threshold*.csv there.
    Command: scripts/reproduce norm_threshold --cpu
    Machine: one of 2 shared cores of an x86-64 processor, no GPU, float32, torch 2.14.1.
    Date: 2026-11-27. Commit of the code: the one that brought this file.
Provenance: claims and their numbers read in the paper's abstract, which says neither what the onset is nor how the
    value is found. Ours, written down before any run: the onset is the first epoch with training NC1 of .1 (between
    records), the value of a run is the mean norm at the onset of the other runs of that network and data, the fall is
    counted after the largest norm. Networks, loss, decay, rates and sizes ours.
"""

from collections.abc import Sequence
from statistics import mean, stdev
from typing import TYPE_CHECKING

import numpy as np

from pipeline.studies._crossings import crossing
from pipeline.studies._family import every
from pipeline.studies._measured import CLASSIFIER, COMMON, curve, end, numbers, tables
from pipeline.studies.engine.claims import ABSTRACT, OURS, Claim, Measurement, owned, reasoned
from pipeline.studies.engine.results import Point, Result
from pipeline.studies.engine.study import CPU, FULL, QUICK, Study, shrunk
from pipeline.studies.kernels import GROUP
from pipeline.views import marks, style
from pipeline.views.sheet import Sheet

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ONSET = 0.1
"""NC1 at which collapse counts as begun."""
TIGHT, LEAD, WITHIN = 0.08, 62.0, 24.0
"""Standard deviation over mean, mean lead and its mean error in epochs, of the paper's abstract."""
ALIKE = 1.5
"""Largest over smallest of times that count as the same."""
RATES = (0.02, 0.05, 0.1)
COLORS = dict(zip(RATES, style.shades(len(RATES)), strict=True))
BIG = ("data.samples_per_class=5000", "backbone.batch_size=128")


def _points(pair: str, seeds: Sequence[int], *settings: str) -> tuple[Point, ...]:
    return tuple(
        Point(f"{pair}-lr_{rate:g}-seed_{seed}", (*settings, f"optimizer.lr={rate}", f"seed={seed}"))
        for rate in RATES
        for seed in seeds
    )


RESNET = ("backbone=resnet20", "backbone.hidden=[256,64]")  # the default: a ResNet has no hidden widths

DIGITS = _points("digits", (0, 1), "data=digits", "data.classes=null")
MNIST = _points("mnist", (0,), "data=mnist", "data.classes=null", "data.samples_per_class=100")
POINTS = (
    *(_points("mnist_5000", (0, 1, 2), "data=mnist", "data.classes=null", *BIG)),
    *(_points("cifar10_5000", (0, 1, 2), "data=cifar10", "data.classes=null", *BIG)),
    *(_points("mnist_resnet20", (0, 1, 2), "data=mnist", "data.classes=null", *BIG, *RESNET)),
    *(_points("cifar10_resnet20", (0, 1, 2), "data=cifar10", "data.classes=null", *BIG, *RESNET)),
)
AT_ONCE = "where the value is the norm at the onset, fall and onset are one moment but for its spread; the abstract "
AT_ONCE += "gives no other value"
REASONS = {"before the onset": AT_ONCE, "62 epochs before": AT_ONCE}
"""Why claims do not hold, by a part of their text."""


def pairs(results: Sequence[Result]) -> dict[str, list[Result]]:
    """The runs of each network and data set, by name."""
    names = dict.fromkeys(pair_of(result) for result in results)
    return {name: [result for result in results if pair_of(result) == name] for name in names}


def pair_of(result: Result) -> str:
    """Network and data set of a run."""
    return result.point.name.partition("-")[0]


def onset(result: Result) -> float:
    """The epoch at which NC1 is down to `ONSET`; NaN if it never is."""
    return crossing(curve(result, CLASSIFIER, "dnc1"), ONSET, falling=True, log=True)


def norm_at(result: Result, epoch: float) -> float:
    """Mean norm of the features at an epoch, between records linear over its logarithm; NaN for no epoch."""
    values = curve(result, CLASSIFIER, "feature_norm")
    values = values[values.index > 0]
    if epoch != epoch or not len(values):
        return float("nan")
    return float(np.interp(np.log(max(epoch, 1)), np.log(values.index), values))


def fall(result: Result, level: float) -> float:
    """The epoch at which the norm, once it has been largest, is down to a level; NaN if it never was above it."""
    values = curve(result, CLASSIFIER, "feature_norm")
    if not len(values) or values.max() <= level:
        return float("nan")
    return crossing(values[values.index >= values.idxmax()], level, falling=True, log=True)


def leads(results: Sequence[Result]) -> list[float]:
    """Epochs from the fall below the others' mean norm at the onset until the onset, of each run of a pair."""
    at = [norm_at(result, onset(result)) for result in results]
    found = []
    for number, result in enumerate(results):
        others = at[:number] + at[number + 1 :]
        found.append(onset(result) - fall(result, mean(others)) if others else float("nan"))
    return found


def variation(values: Sequence[float]) -> float:
    """Standard deviation over mean; NaN of one value alone."""
    return stdev(values) / mean(values) if len(values) > 1 else float("nan")


def claims(results: Sequence[Result]) -> list[Claim]:
    """The norm at the onset, the lead of its fall, and how onset and lead depend on the rate, by pair."""
    made, found = [], pairs([result for result in results if onset(result) == onset(result)])
    for pair, own in pairs(results).items():
        if pair not in found or len(found[pair]) < 2:
            text = f"{pair}: mean feature norm at the onset is one value, standard deviation over mean"
            said = f"{len(found.pop(pair, []))} of {len(own)} runs get to an onset"
            made += owned(ABSTRACT, Claim(text, f"< {TIGHT:g}", said, None))
    for pair, own in found.items():
        at, times = [norm_at(result, onset(result)) for result in own], [onset(result) for result in own]
        cov, ahead = variation(at), leads(own)
        text = f"{pair}: mean feature norm at the onset is one value, standard deviation over mean"
        made += owned(ABSTRACT, Claim(text, f"< {TIGHT:g}", f"{cov:.3f}; {numbers(at)}", cov < TIGHT))
        text = f"{pair}: the norm falls below its usual value at the onset before the onset"
        made += owned(ABSTRACT, every(text, [lead > 0 for lead in ahead], f"epochs before: {numbers(ahead)}"))
        error = mean(abs(lead - LEAD) for lead in ahead)
        text = f"{pair}: it does so {LEAD:g} epochs before, mean error"
        made += owned(ABSTRACT, Claim(text, f"<= {WITHIN:g}", f"{error:.3g}", error <= WITHIN))
        by_rate = [time * result.config.optimizer.lr for time, result in zip(times, own, strict=True)]
        same = max(by_rate) <= ALIKE * min(by_rate)
        text = f"{pair}: the onset times the learning rate is one number, epochs"
        measured = f"{numbers(by_rate)}; onsets {numbers(times)}"
        made += owned(OURS, Claim(text, f"largest <= {ALIKE:g} x smallest", measured, same))
    if len(found) > 1:
        values = {pair: mean(norm_at(result, onset(result)) for result in own) for pair, own in found.items()}
        ratio = max(values.values()) / min(values.values())
        text = "the norm at the onset depends on network and data: largest over smallest of the pairs"
        measured = f"{ratio:.3g}; " + ", ".join(f"{pair} {value:.3g}" for pair, value in values.items())
        made += owned(ABSTRACT, Claim(text, f"> {1 + 2 * TIGHT:g}", measured, ratio > 1 + 2 * TIGHT))
    return reasoned(made, REASONS)


def measurements(results: Sequence[Result]) -> list[Measurement]:
    """The runs in which collapse does not begin, which claims leave out; the norm at its largest, and at the end."""
    made = []
    for pair, own in pairs(results).items():
        late = [result.point.name for result in own if onset(result) != onset(result)]
        said = f"{len(late)} of {len(own)} runs" + (f": {', '.join(late)}" if late else "")
        made.append(Measurement(f"{pair}: NC1 of {ONSET:g} is not reached", said, "left out of the claims"))
        for what, values in (
            ("largest", [curve(result, CLASSIFIER, "feature_norm").max() for result in own]),
            ("last", [end(result, CLASSIFIER, "feature_norm") for result in own]),
        ):
            said = f"{numbers(values)}; standard deviation over mean {variation(values):.3f}"
            made.append(Measurement(f"{pair}: {what} mean feature norm", said, "by rate and seed"))
    return made


def draw(results: Sequence[Result]) -> "dict[str, Figure]":
    """A row for each pair: NC1 against the norm, the norm over the epochs, norms and leads by rate."""
    found = pairs(results)
    title = "Mean feature norm and the onset of collapse"
    with Sheet(len(found), 3, title=title, width=1.3) as sheet:
        for row, (pair, own) in enumerate(found.items()):
            path, over, ahead = sheet.row(row)
            sheet.tag(path, pair.replace("_", " "))
            for result in own:
                _paths(path, over, result)
            begun = [result for result in own if onset(result) == onset(result)]
            at = [norm_at(result, onset(result)) for result in begun]
            for axes, put in ((path, path.axvline), (over, over.axhline)):
                if at:
                    put(mean(at), **style.OPTIMUM)
                axes.set(yscale="log")
            path.axhline(ONSET, **style.THRESHOLD)
            path.set(xscale="log", xlabel="mean feature norm", ylabel="NC1")
            over.set(xscale="log", xlabel="epoch", ylabel="mean feature norm")
            if not begun:
                sheet.drop(ahead)
                continue
            rates = [result.config.optimizer.lr for result in begun]
            marks.dots(ahead, rates, leads(begun), style.RED)
            marks.dots(ahead, rates, [onset(result) for result in begun], style.BLUE, "s")
            ahead.axhline(LEAD, **style.THRESHOLD)
            ahead.set(xscale="log", xlabel="learning rate", ylabel="epochs")
        made = {result.config.optimizer.lr for result in results}
        sheet.legend([marks.line(f"rate {rate:g}", color) for rate, color in COLORS.items() if rate in made])
        sheet.legend([marks.line("mean norm at the onset", **style.OPTIMUM)])
        sheet.legend([marks.line(f"NC1 of {ONSET:g}; lead of {LEAD:g}", **style.THRESHOLD)])
        sheet.legend([marks.dot("lead", style.RED), marks.dot("onset", style.BLUE, "s")])
    return {"norm_threshold": sheet.figure}


def _paths(path: "Axes", over: "Axes", result: Result) -> None:
    color = COLORS[result.config.optimizer.lr]
    norms, nc1 = (curve(result, CLASSIFIER, name) for name in ("feature_norm", "dnc1"))
    path.plot(norms.values, nc1.values, color=color)
    later = norms[norms.index > 0]
    over.plot(later.index, later.values, color=color)


STUDY = Study(
    name="norm_threshold",
    group=GROUP,
    title="does collapse begin at a mean feature norm of network and data?",
    versions={
        FULL: (*DIGITS, *MNIST, *POINTS),
        CPU: (*DIGITS, *MNIST),
        QUICK: shrunk(
            DIGITS, [point.name for point in DIGITS if "lr_0.02" not in point.name], ("backbone.epochs=150", *COMMON)
        ),
    },
    draw=draw,
    claims=claims,
    measurements=measurements,
    tables=tables("norm_threshold", "feature_norm", "feature_norm_cov", "dnc1", "train_accuracy", "test_accuracy"),
)
