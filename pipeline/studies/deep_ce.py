"""Deep cross-entropy: collapse persists from some starts, although pairs of classes cost less.

Paper: arXiv 2410.23169 (persistence of neural collapse despite low-rank bias).
Shows: the loss of runs that start near collapse and near pairs, with their mean logits; the rank of the logits and the
    share of collapse of random starts by the width; the values of the frames of ten classes by depth. Of networks on
    images loss, DNC1 and singular values (`deep_ce_networks`).
Expects: collapse stays (a critical point with positive semidefinite Hessian) at .0907, pairs at .0800; the best frame
    loses rank with depth; random starts end at ranks 5..9, more often at collapse in wider heads.
Evidence: --cpu, the model in full and small networks, docs/reproduction: 12 of 13 claims, 4 open.
    Command: scripts/reproduce deep_ce --cpu (144 s of CPU, networks 417 s)
    Machine: one of 2 shared cores of an x86-64 processor, no GPU, float64, torch 2.14.1.
    Date: 2026-11-27. Commit of the code: 824b049.
Provenance: settings and theorems read; values of frames and the sharper bound at K = 5 derived (`pipeline.theory`); the
    scale of the start ours (features N(0, 1), weights N(0, 1/d)), and it decides what random starts find. Networks:
    ResNet-20, heads, decays, lr and batch read; momentum, schedule and epochs ours (conf/experiment/
    family_networks.yaml), and so is the MLP. --cpu takes fewer images and as much more decay of the features, which
    leaves the values of theory as they are.
"""

import math
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from pipeline.dufm.head_measures import head_shape
from pipeline.studies._deep_ce_networks import CPU_SIZES, LINE, NAMES, TRAINED, network_claims
from pipeline.studies._family import (
    BELOW,
    FEW_RECORDS,
    GROUP,
    ends,
    every,
    gaps,
    plot_shares,
    reference,
    share_at,
    weights,
    width,
)
from pipeline.studies._family_networks import models, networks, networks_figure, smaller, tables_of
from pipeline.studies.engine.claims import FIGURE, OURS, THEOREM, Claim, at_most, counted, owned
from pipeline.studies.engine.results import Point, Result
from pipeline.studies.engine.study import CPU, FULL, QUICK, Study, shrunk
from pipeline.theory import Problem, references
from pipeline.views import marks, style
from pipeline.views.sheet import Sheet

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NEAR = ("protocol.start_noise=0.1",)
STARTS = {"collapsed": "collapsed solution", "pairs": "pairs"}
"""protocol.start -> the state that a run from there is to end at."""
WIDTHS = (10, 30, 70, 140)
MODELS = (
    *(Point(f"from_{start}", (f"protocol.start={start}", *NEAR)) for start in STARTS),
    *(
        Point(f"width_{width}", (f"head.width={width}", f"protocol.feature_scale={math.sqrt(width):.6g}"))
        for width in WIDTHS
    ),
)
POINTS = (*MODELS, *TRAINED)
FASTER = ("descent.momentum=0.9", "descent.steps=3000", *FEW_RECORDS)
QUICK_POINTS = (
    *shrunk(MODELS, ("from_collapsed", "from_pairs"), ("descent.seeds=2", *FASTER)),
    *shrunk(MODELS, ("width_10", "width_70"), ("descent.seeds=4", *FASTER)),
)
GAP, RTOL = 1e-3, 1e-2
COLLAPSED, DECAY = STARTS["collapsed"], 2.0**-10
BEST = {2: "pairs", 3: "johnson 5", 5: "polygon of 10"}
"""Of the frames of ten classes, by depth, at decay 2^-10 and n = 5."""


def claims(results: Sequence[Result]) -> list[Claim]:
    """Where the runs stay, what costs less than collapse, and what random starts find."""
    made = []
    for result in results:
        start = result.point.name.removeprefix("from_")
        if start in STARTS:
            text = f"from {start} plus noise: gap to the value of {STARTS[start]}"
            made += owned(THEOREM if start == "collapsed" else OURS, at_most(text, _away(result, STARTS[start]), GAP))
    best = [min(_values(10, depth), key=_values(10, depth).get) for depth in BEST]
    right = [found == wanted for found, wanted in zip(best, BEST.values(), strict=True)]
    made += owned(OURS, every("ten classes: pairs, Johnson, decagon cost least at L = 2, 3, 5", right, ", ".join(best)))
    five = _values(5, 2)
    least = min(five, key=five.get)
    text = "five classes, two layers: a frame costs less than collapse (the paper's theorem: from six on)"
    measured = f"{least}: {five[least]:.6f} against {five[COLLAPSED]:.6f}"
    made += owned(OURS, Claim(text, f"below {five[COLLAPSED]:.6f}", measured, five[least] < five[COLLAPSED]))
    return made + _of_random_starts(_random(results)) + network_claims(networks(results))


def draw(results: Sequence[Result]) -> "dict[str, Figure]":
    """The model, and networks under its penalties where some were trained."""
    figures = {"deep_ce": _models(models(results))}
    if trained := networks(results):
        figures["deep_ce_networks"] = networks_figure(trained, NAMES, dict(LINE.values()))
    return figures


def _models(results: Sequence[Result]) -> "Figure":
    """Runs and logits above; ranks and shares by the width, and frames by depth, below."""
    started = [result for result in results if result.point.name.startswith("from_") and result.completed]
    title = "Cross-entropy, linear layers, ten classes: collapse and the frames below it"
    with Sheet(2, 3, title=title, most=3 if style.medium().most > 3 else None, width=1.4) as sheet:
        logits = sheet.row(0)[1:]
        for axes, result in zip(logits, started, strict=False):
            _logits(sheet, axes, result)
        for axes in logits[len(started) :]:
            sheet.drop(axes)
        _losses(sheet, sheet[0, 0], started)
        _ranks(sheet[1, 0], _random(results))
        plot_shares(sheet[1, 1], _random(results), COLLAPSED)
        _frames(sheet, sheet[1, 2])
        sheet.legend([marks.line("values that theory knows", **style.OPTIMUM), marks.line("median", style.BLUE)])
    return sheet.figure


def rank(result: Result) -> list[int]:
    """Of the class means of the outputs, per seed."""
    tensors, problem = result.tensors, result.summary["problem"]
    places = head_shape(tensors["features/1"], weights(result), tensors["labels"], problem["activation"], RTOL)
    return places[-1].spectrum.rank.int().tolist()


@cache
def _values(classes: int, depth: int) -> dict[str, float]:
    """Name -> value of the frames that fit all classes, five samples each."""
    problem = Problem("cross_entropy", "linear", (5,) * classes, depth, DECAY, DECAY)
    return {state.name: state.value for state in references(problem) if "zero" not in state.name}


def _away(result: Result, name: str) -> list[float]:
    return [abs(gap) for gap in gaps(result, reference(result, name))]


def _random(results: Sequence[Result]) -> list[Result]:
    found = [result for result in results if result.point.name.startswith("width_")]
    return sorted(found, key=width)


def _of_random_starts(results: Sequence[Result]) -> list[Claim]:
    if not results:
        return []
    found = [end for result in results for end in ends(result)]
    above = [end != BELOW for end in found]
    made = owned(OURS, every("random starts: no seed lies below the frames", above, counted(found)))
    ranks = [value for result in results if result.completed for value in rank(result)]
    text = "random starts: the logits have ranks 5..9"
    span = f"ranks {min(ranks)} to {max(ranks)} at {RTOL:g} of the largest value" if ranks else "none finished"
    made += owned(FIGURE, every(text, [5 <= value <= 9 for value in ranks], span))
    shares = [share_at(result, COLLAPSED) for result in results]
    measured = ", ".join(f"{width(result)}: {share:.0%}" for result, share in zip(results, shares, strict=True))
    text = "random starts: collapse is more frequent in the widest head than in the narrowest"
    made += owned(FIGURE, Claim(text, "a larger share", measured, shares[-1] > shares[0]))
    return made


def _losses(sheet: Sheet, axes: "Axes", results: Sequence[Result]) -> None:
    for result, color in zip(results, style.PALETTE, strict=False):
        state = STARTS[result.point.name.removeprefix("from_")]
        rows = result.record[(result.record.metric == "loss") & (result.record.step > 0)]
        marks.spread(rows, axes, color=color)
        axes.axhline(reference(result, state), **style.OPTIMUM)
        sheet.legend([marks.line(f"start near: {state}, {reference(result, state):.4f}", color)])
    axes.set_ylim(bottom=0.078)
    axes.set(xscale="log", yscale="log", xlabel=style.STEPS, ylabel="loss")


def _logits(sheet: Sheet, axes: "Axes", result: Result) -> None:
    features, labels = result.tensors["features/1"][0], result.tensors["labels"]
    outputs = features
    for weight in weights(result):
        outputs = outputs @ weight[0].T
    means = np.stack([outputs[labels == label].mean(dim=0).numpy() for label in labels.unique()])
    largest = abs(means).max()
    image = axes.imshow(means, cmap=style.DIVERGING, vmin=-largest, vmax=largest)
    axes.grid(visible=False)
    axes.set(xticks=[], yticks=[], ylabel="class (columns: outputs)")
    sheet.tag(axes, ends(result)[0])
    axes.figure.colorbar(image, ax=axes, location="bottom", label="mean logit")


def _ranks(axes: "Axes", results: Sequence[Result]) -> None:
    shown = [result for result in results if result.completed]
    marks.seeds(axes, [width(result) for result in shown], [rank(result) for result in shown])
    axes.axhline(9, **style.OPTIMUM)
    axes.set(xlabel="width", ylabel="rank of the logits", ylim=(3.5, 9.5))
    if shown:
        marks.numbered(axes, [width(result) for result in shown])


def _frames(sheet: Sheet, axes: "Axes") -> None:
    """Value over that of collapse, by depth."""
    depths = range(2, 7)
    looks, ends_of_lines = zip(style.PALETTE, style.MARKERS, strict=True), []
    for name, (color, marker) in zip(BEST.values(), looks, strict=False):
        values = [_values(10, depth).get(name, np.nan) / _values(10, depth)[COLLAPSED] for depth in depths]
        axes.plot(depths, values, color=color, marker=marker)
        ends_of_lines.append((values[-1], name, {"color": color, "marker": marker}))
    sheet.name_ends(axes, ends_of_lines)
    axes.axhline(1, **style.OPTIMUM)
    axes.set(xlabel="depth $L$", ylabel="loss of frames over that of collapse", ylim=(0.5, 1.7))
    marks.numbered(axes, depths)


STUDY = Study(
    name="deep_ce",
    group=GROUP,
    title="cross-entropy in deep linear heads: collapse and the frames below it",
    versions={FULL: POINTS, CPU: (*MODELS, *smaller(TRAINED, CPU_SIZES)), QUICK: QUICK_POINTS},
    draw=draw,
    claims=claims,
    tables=lambda results: tables_of("deep_ce", results),
)
