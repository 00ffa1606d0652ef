"""Deep cross-entropy: collapse persists from some starts, although pairs of classes cost less.

Paper: arXiv 2410.23169 (persistence of neural collapse despite low-rank bias).
Shows: the loss of runs that start near collapse and near pairs, with their mean logits; the rank of the logits and the
    share of collapse of random starts by the width; the values of the frames of ten classes by depth.
Expects: collapse stays (a critical point with positive semidefinite Hessian) at .0907, pairs at .0800; the best frame
    loses rank with depth; random starts end at ranks 5..9, more often at collapse in wider heads.
Evidence: none recorded of the full version; the quick one: docs/reproduction/README.md.
    Command: scripts/reproduce deep_ce --quick
    Machine: one of 2 shared cores of an x86-64 processor, no GPU, float64, torch 2.14.1.
    Date: 2026-11-26. Commit of the code: the one that brought this file.
Provenance: settings and theorems read; values of frames and the sharper bound at K = 5 derived (`pipeline.theory`); the
    scale of the start ours (features N(0, 1), weights N(0, 1/d)), and it decides what random starts find. ReLU layers,
    the standard decay and networks: not here.
"""

import math
from collections.abc import Sequence
from functools import cache

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline.dufm.head_measures import head_shape
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
    tables,
    weights,
    width,
)
from pipeline.studies.engine.claims import FIGURE, OURS, THEOREM, Claim, at_most, counted, owned
from pipeline.studies.engine.drawing import plot_seeds, plot_spread
from pipeline.studies.engine.results import Point, Result
from pipeline.studies.engine.study import FULL, QUICK, Study, shrunk
from pipeline.theory import Problem, references
from pipeline.views.figures import OPTIMUM, STYLE

NEAR = ("protocol.start_noise=0.1",)
STARTS = {"collapsed": "collapsed solution", "pairs": "pairs"}
"""protocol.start -> the state that a run from there is to end at."""
WIDTHS = (10, 30, 70, 140)
POINTS = (
    *(Point(f"from_{start}", (f"protocol.start={start}", *NEAR)) for start in STARTS),
    *(
        Point(f"width_{width}", (f"head.width={width}", f"protocol.feature_scale={math.sqrt(width):.6g}"))
        for width in WIDTHS
    ),
)
FASTER = ("descent.momentum=0.9", "descent.steps=3000", *FEW_RECORDS)
QUICK_POINTS = (
    *shrunk(POINTS, ("from_collapsed", "from_pairs"), ("descent.seeds=2", *FASTER)),
    *shrunk(POINTS, ("width_10", "width_70"), ("descent.seeds=4", *FASTER)),
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
    return made + _of_random_starts(_random(results))


def draw(results: Sequence[Result]) -> dict[str, Figure]:
    """Runs and logits above; ranks and shares by the width, and frames by depth, below."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(12, 6.4), layout="constrained")
        grid = figure.subplots(2, 3)
        started = [result for result in results if result.point.name.startswith("from_") and result.completed]
        for axes, result in zip(grid[0, 1:], started, strict=False):
            _logits(axes, result)
        _losses(grid[0, 0], started)
        _ranks(grid[1, 0], _random(results))
        plot_shares(grid[1, 1], _random(results), COLLAPSED)
        grid[1, 1].set(title="share of random starts at collapse")
        _frames(grid[1, 2])
        figure.suptitle("Cross-entropy, linear layers, ten classes: collapse and the frames below it")
    return {"deep_ce": figure}


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


def _losses(axes: Axes, results: Sequence[Result]) -> None:
    for result, color in zip(results, ("tab:blue", "tab:red"), strict=False):
        state = STARTS[result.point.name.removeprefix("from_")]
        plot_spread(result.record[(result.record.metric == "loss") & (result.record.step > 0)], axes, color=color)
        axes.axhline(reference(result, state), **OPTIMUM)
        side = {"xytext": (0, -10), "textcoords": "offset points", "color": color}
        axes.annotate(f"{state} {reference(result, state):.4f}", (1, reference(result, state)), **side)
    axes.set_ylim(bottom=0.078)
    axes.set(xscale="log", yscale="log", xlabel="gradient step", title="loss from a start near the state")


def _logits(axes: Axes, result: Result) -> None:
    features, labels = result.tensors["features/1"][0], result.tensors["labels"]
    outputs = features
    for weight in weights(result):
        outputs = outputs @ weight[0].T
    means = np.stack([outputs[labels == label].mean(dim=0).numpy() for label in labels.unique()])
    largest = abs(means).max()
    image = axes.imshow(means, cmap="RdBu_r", vmin=-largest, vmax=largest)
    axes.grid(visible=False)
    axes.set(xticks=[], yticks=[], title=f"mean logits, {ends(result)[0]}", xlabel="output", ylabel="class")
    axes.figure.colorbar(image, ax=axes, shrink=0.8)


def _ranks(axes: Axes, results: Sequence[Result]) -> None:
    shown = [result for result in results if result.completed]
    if shown:
        plot_seeds(axes, [width(result) for result in shown], [rank(result) for result in shown])
        axes.set_xticks([width(result) for result in shown], [str(width(result)) for result in shown])
    axes.axhline(9, **OPTIMUM)
    axes.set(xlabel="width", title="rank of the logits, random starts (dotted: collapse)", ylim=(3.5, 9.5))


def _frames(axes: Axes) -> None:
    """Value over that of collapse, by depth."""
    depths = range(2, 7)
    for name in BEST.values():
        values = [_values(10, depth).get(name, np.nan) / _values(10, depth)[COLLAPSED] for depth in depths]
        (line,) = axes.plot(depths, values, "o-", markersize=3)
        side = {"xytext": (4, 0), "textcoords": "offset points", "va": "center", "fontsize": 7}
        axes.annotate(name, (depths[-1], values[-1]), color=line.get_color(), **side)
    axes.axhline(1, **OPTIMUM)
    axes.set(xlabel="layers", title="frames over collapse (closed forms)", xlim=(1.8, 7.4), ylim=(0.5, 1.7))


STUDY = Study(
    name="deep_ce",
    group=GROUP,
    title="cross-entropy in deep linear heads: collapse and the frames below it",
    versions={FULL: POINTS, QUICK: QUICK_POINTS},
    draw=draw,
    claims=claims,
    tables=tables("deep_ce"),
)
