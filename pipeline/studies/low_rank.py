"""Low rank: with many classes descent ends below the collapsed solution, at hidden ranks far below their number.

Paper: arXiv 2405.14468 (neural collapse versus low-rank bias).
Shows: loss over the steps with the values of collapse and of SRG; DNC1 of every layer; singular values at the end; mean
    rank against the decay; share of collapsed seeds against the width; SRG over collapse by the number of classes.
Expects: seeds below collapse, DNC1 -> 0, hidden ranks below K, which fall with the decay; SRG above collapse at L = 3,
    below it at L = 4 and 5 from r = 4 on.
Evidence: none recorded of the full version; the quick one: docs/reproduction/README.md.
    Command: scripts/reproduce low_rank --quick
    Machine: one of 2 shared cores of an x86-64 processor, no GPU, float64, torch 2.14.1.
    Date: 2026-11-26. Commit of the code: the one that brought this file.
Provenance: K, L, decays, lr and width of the main run read in a caption; SRG as a construction read, its algebra and
    that it is no stationary point derived (`pipeline.theory`); n and steps ours; the sweeps recalled, their values
    ours. Networks on images (ResNet-20 and a head of four layers): not here.
"""

from collections.abc import Sequence
from statistics import median
from typing import TYPE_CHECKING

import numpy as np

from pipeline.dufm.head_measures import head_shape
from pipeline.studies._family import FEW_RECORDS, GROUP, every, plot_shares, reference, tables, weights, width
from pipeline.studies.engine.claims import OURS, RECALLED, THEOREM, Claim, at_most, owned
from pipeline.studies.engine.results import Point, Result
from pipeline.studies.engine.study import FULL, QUICK, Study, points_along, shrunk
from pipeline.theory import srg_limit_ratio
from pipeline.views import marks, style
from pipeline.views.figures import layer_colors, plot_over_steps
from pipeline.views.legends import tap_handles
from pipeline.views.sheet import Sheet

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAIN = Point("main", ())
DECAYS = points_along("head.weight_decay", *(f"{2.0**power:.6g}" for power in (-11, -10, -9, -8, -7, -6)))
WIDTHS = points_along("head.width", 10, 15, 20, 60)
POINTS = (MAIN, *DECAYS, *WIDTHS)
SMALL = ("main", DECAYS[2].name, DECAYS[4].name, "width_10")
QUICK_POINTS = shrunk(POINTS, SMALL, ("descent.seeds=3", "descent.momentum=0.9", "descent.steps=4000", *FEW_RECORDS))
RTOL = 1e-2
"""A singular value counts from this share of the largest on (ours; the paper's threshold is not known to us)."""
COLLAPSED = "collapsed solution"
DNC1 = 1e-6
PLACES = 5
"""Of a head of four layers, before the last: H_2, H_3 and H_4, the latter two before and after ReLU, and relu(H_2)."""


def claims(results: Sequence[Result]) -> list[Claim]:
    """Below collapse, within-class collapse, low ranks; how they move with the decay; SRG by depth."""
    made = []
    for result in (result for result in results if result.point.name == MAIN.name):
        collapse, srg = reference(result, COLLAPSED), reference(result, "SRG")
        spread = f"{min(result.losses):.4g} to {max(result.losses):.4g}"
        below = [loss < collapse for loss in result.losses]
        made += owned(OURS, every(f"seeds below collapse, {collapse:.4g}", below, spread))
        beyond = [loss < srg for loss in result.losses]
        made += owned(OURS, every(f"seeds below SRG, {srg:.4g}, which is an upper bound only", beyond, spread))
        scatter = [max(values) for values in zip(*result.final("dnc1").values(), strict=True)]
        made += owned(RECALLED, at_most("within-class collapse: largest DNC1 of any layer", scatter or [np.nan], DNC1))
        ranks = hidden_ranks(result)
        text = "ranks of H_3 and H_4 lie below the number of classes"
        measured = f"ranks {ranks.min():.0f} to {ranks.max():.0f} at {RTOL:g} of the largest value"
        low = (ranks < result.summary["problem"]["num_classes"]).all(axis=1).tolist()
        made += owned(OURS, every(text, low, measured))
    made += _along_the_decay(results)
    limits = {depth: [srg_limit_ratio(r, depth) for r in range(4, 11)] for depth in (3, 4, 5)}
    above, under = [each > 1 for each in limits[3]], [each < 1 for depth in (4, 5) for each in limits[depth]]
    made += owned(THEOREM, every("L = 3: SRG costs more than collapse, r = 4..10", above, "small decay"))
    made += owned(THEOREM, every("L = 4, 5: SRG costs less than collapse, r = 4..10", under, "small decay"))
    return made


def draw(results: Sequence[Result]) -> "dict[str, Figure]":
    """Loss, DNC1 and singular values of the main run; below them SRG, ranks by the decay, collapse by the width."""
    title = "Ten classes, four layers with ReLU: low rank instead of collapse"
    with Sheet(2, 3, title=title, most=3 if style.medium().most > 3 else None, width=1.4) as sheet:
        main = [result for result in results if result.point.name == MAIN.name and result.completed]
        for result in main:
            _loss(sheet, sheet[0, 0], result)
            depth = result.summary["problem"]["depth"]
            colors = layer_colors([str(layer) for layer in range(1, depth + 1)])
            plot_over_steps(result.record, "dnc1", sheet[0, 1], colors=colors)
            _spectra(sheet[0, 2], result, colors)
            sheet.legend([marks.line(f"layer {layer}", color) for layer, color in colors.items()])
            sheet.legend([*tap_handles({"pre", "post"}), marks.line("outputs", style.GREY, marker="s")])
        for axes in sheet.row(0) if not main else ():
            sheet.drop(axes)
        _ratio(sheet, sheet[1, 0])
        _ranks(sheet[1, 1], _with_decay(results))
        decays = {point.name for point in DECAYS}
        by_width = sorted((result for result in results if result.point.name not in decays), key=width)
        plot_shares(sheet[1, 2], by_width, COLLAPSED)
        sheet.legend([marks.line("theory, and the threshold of ranks", **style.OPTIMUM)])
    return {"low_rank": sheet.figure}


def hidden_ranks(result: Result) -> np.ndarray:
    """Ranks of the class means of H_3 and H_4 before ReLU, (S, 2)."""
    if not result.completed:
        return np.full((len(result.seeds), 2), np.nan)
    places = _places(result)
    found = [place.spectrum.rank.numpy() for place in places if place.tap == "pre" and place.layer in (3, 4)]
    return np.stack(found, axis=1)


def _places(result: Result) -> list:
    problem, tensors = result.summary["problem"], result.tensors
    return head_shape(tensors["features/1"], weights(result), tensors["labels"], problem["activation"], RTOL)


def _decay(result: Result) -> float:
    return result.summary["problem"]["feature_decay"]


def _with_decay(results: Sequence[Result]) -> list[Result]:
    names = {MAIN.name, *(point.name for point in DECAYS)}
    return sorted((result for result in results if result.point.name in names), key=_decay)


def _fitted(result: Result) -> list[int]:
    """Seeds that fit all classes: at or below collapse; of others the rank says nothing."""
    collapse = reference(result, COLLAPSED)
    return [seed for seed, loss in enumerate(result.losses) if loss < 1.01 * collapse]


def _mean_ranks(result: Result) -> list[float]:
    return [float(hidden_ranks(result)[seed].mean()) for seed in _fitted(result)]


def _along_the_decay(results: Sequence[Result]) -> list[Claim]:
    ordered = [(_decay(result), _mean_ranks(result)) for result in _with_decay(results)]
    middle = [(decay, median(ranks)) for decay, ranks in ordered if ranks]
    measured = ", ".join(f"{decay:.2g}: {rank:.3g}" for decay, rank in middle)
    falls = len(middle) > 1 and middle[-1][1] < middle[0][1]
    text = "the mean rank of H_3 and H_4 falls with the decay (median of seeds that fit all classes)"
    return owned(RECALLED, Claim(text, "lower at the largest decay than at the least", measured, falls))


def _loss(sheet: Sheet, axes: "Axes", result: Result) -> None:
    marks.spread(result.record[(result.record.metric == "loss") & (result.record.step > 0)], axes, color=style.BLUE)
    known = [(reference(result, name), text) for name, text in ((COLLAPSED, "collapse"), ("SRG", "SRG"))]
    for value, _ in known:
        axes.axhline(value, **style.OPTIMUM)
    sheet.name_ends(axes, [(value, text, style.OPTIMUM) for value, text in known])
    axes.set(xscale="log", yscale="log", xlabel=style.STEPS, ylabel="loss")


def _spectra(axes: "Axes", result: Result, colors: dict) -> None:
    """Singular values of the class means before ReLU, first seed."""
    for place in _places(result):
        if place.tap == "pre":
            values = place.spectrum.values[0].numpy()
            hidden = str(place.layer) in colors
            color, marker = (colors[str(place.layer)], "o") if hidden else (style.GREY, "s")
            axes.plot(range(1, len(values) + 1), values / values[0], color=color, marker=marker)
    axes.axhline(RTOL, **style.OPTIMUM)
    axes.set(yscale="log", ylim=(1e-6, 2), xlabel="index", ylabel="singular value over the largest")


def _ratio(sheet: Sheet, axes: "Axes") -> None:
    vertices, ends_of_lines = np.arange(3, 11), []
    for depth, color, marker in zip((3, 4, 5), style.PALETTE, style.MARKERS, strict=False):
        limits = [srg_limit_ratio(int(r), depth) for r in vertices]
        axes.plot(vertices, limits, marker=marker, color=color)
        ends_of_lines.append((limits[-1], f"$L = {depth}$", {"color": color, "marker": marker}))
    sheet.name_ends(axes, ends_of_lines)
    axes.axhline(1, **style.OPTIMUM)
    axes.set(xlabel="$r$, for $K = r(r-1)/2$ classes", ylabel="loss of SRG over that of collapse")


def _ranks(axes: "Axes", results: Sequence[Result]) -> None:
    shown = [(_decay(result), ranks) for result in results if (ranks := _mean_ranks(result))]
    marks.seeds(axes, [decay for decay, _ in shown], [ranks for _, ranks in shown])
    axes.set(xscale="log", xlabel="decay", ylabel="mean rank of $H_3$, $H_4$")


STUDY = Study(
    name="low_rank",
    group=GROUP,
    title="ten classes: low-rank solutions below collapse",
    versions={FULL: POINTS, QUICK: QUICK_POINTS},
    draw=draw,
    claims=claims,
    tables=tables("low_rank"),
)
