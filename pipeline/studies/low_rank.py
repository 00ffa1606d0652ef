"""Low rank: with many classes descent ends below the collapsed solution, at hidden ranks far below their number.

Paper: arXiv 2405.14468 (neural collapse versus low-rank bias).
Shows: loss over the steps with the values of collapse and of SRG; DNC1 of every layer; singular values at the end; mean
    rank against the decay; share of collapsed seeds against the width; SRG over collapse by the number of classes. Of
    networks on images loss, DNC1 and singular values (`low_rank_networks`).
Expects: seeds below collapse, DNC1 -> 0, hidden ranks below K, which fall with the decay; SRG above collapse at L = 3,
    below it at L = 4 and 5 from r = 4 on.
Evidence: --cpu, the model in full and small networks, docs/reproduction: 7 of 10 claims, 3 open.
    Command: scripts/reproduce low_rank --cpu (199 s of CPU, networks 499 s)
    Machine: one of 2 shared cores of an x86-64 processor, no GPU, float64, torch 2.14.1.
    Date: 2026-11-27. Commit of the code: 824b049.
Provenance: K, L, decays, lr and width of the main run read in a caption; SRG as a construction read, its algebra and
    that it is no stationary point derived (`pipeline.theory`); n and steps ours; the sweeps recalled, their values
    ours. Network: ResNet-20, its head, decays and lr read in the caption, the rest ours (conf/experiment/
    family_networks.yaml). The MLP is ours; --cpu takes fewer images and as much more decay of the features, which
    leaves the values of theory as they are.
"""

from collections.abc import Sequence
from statistics import median
from typing import TYPE_CHECKING

import numpy as np

from pipeline.dufm.head_measures import head_shape
from pipeline.studies._family import FEW_RECORDS, GROUP, every, plot_shares, reference, weights, width
from pipeline.studies._family_networks import (
    MLP,
    MNIST,
    last_dnc1,
    models,
    network_points,
    networks,
    networks_figure,
    of_networks,
    ranks,
    smaller,
    tables_of,
)
from pipeline.studies.engine.claims import LATER, OURS, RECALLED, THEOREM, Claim, at_most, owned
from pipeline.studies.engine.results import Point, Result
from pipeline.studies.engine.study import CPU, FULL, QUICK, Study, points_along, shrunk
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
MODELS = (MAIN, *DECAYS, *WIDTHS)
# With momentum 0.9, whose steps are ten times as long, an MLP of 500 images a class lost three of ten classes for good.
NETWORKS = {
    "mlp_mnist": (MNIST, MLP, "optimizer.momentum=0", "optimizer.schedule=drop"),
    "resnet20_cifar10": ("backbone=resnet20",),
}
TRAINED = network_points(NETWORKS)
NAMES = {"mlp_mnist": "MLP, MNIST", "resnet20_cifar10": "ResNet-20, CIFAR-10"}
CPU_SIZES = {
    "mlp_mnist": (
        "data.samples_per_class=500",
        "head.feature_decay=5e-5",
        "backbone.batch_size=50",
        "backbone.epochs=250",
    ),
    "resnet20_cifar10": (
        "data.samples_per_class=32",
        "head.feature_decay=7.8125e-4",
        "backbone.batch_size=16",
        "backbone.epochs=120",
    ),
}
POINTS = (*MODELS, *TRAINED)
SMALL = ("main", DECAYS[2].name, DECAYS[4].name, "width_10")
QUICK_POINTS = shrunk(MODELS, SMALL, ("descent.seeds=3", "descent.momentum=0.9", "descent.steps=4000", *FEW_RECORDS))
RTOL = 1e-2
"""A singular value counts from this share of the largest on (ours; the paper's threshold is not known to us)."""
COLLAPSED = "collapsed solution"
REASONS = {
    "seeds below SRG": "all ten losses still fall after 20,000 plain steps; with momentum three of three get there"
}
DNC1, NETWORK_DNC1 = 1e-6, 1e-2
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
    made += _of_networks(results)
    limits = {depth: [srg_limit_ratio(r, depth) for r in range(4, 11)] for depth in (3, 4, 5)}
    above, under = [each > 1 for each in limits[3]], [each < 1 for depth in (4, 5) for each in limits[depth]]
    made += owned(THEOREM, every("L = 3: SRG costs more than collapse, r = 4..10", above, "small decay"))
    made += owned(THEOREM, every("L = 4, 5: SRG costs less than collapse, r = 4..10", under, "small decay"))
    return made


def draw(results: Sequence[Result]) -> "dict[str, Figure]":
    """The model, and networks under its penalties where some were trained."""
    figures = {"low_rank": _models(models(results))}
    if trained := networks(results):
        figures["low_rank_networks"] = networks_figure(trained, NAMES, {COLLAPSED: "collapse", "SRG": "SRG"})
    return figures


def _models(results: Sequence[Result]) -> "Figure":
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
    return sheet.figure


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


def _of_networks(results: Sequence[Result]) -> list[Claim]:
    """As of the model, written down after single networks had been tried; what does not fit its images is left open."""
    made = []
    for kind, own in networks(results).items():
        collapse, classes = reference(own[0], COLLAPSED), own[0].summary["problem"]["num_classes"]
        losses = [result.losses[0] for result in own]
        measured = f"{min(losses):.4g} to {max(losses):.4g}"
        below = of_networks(
            f"{kind}: loss below that of collapse, {collapse:.4g}", own, [loss < collapse for loss in losses], measured
        )
        scatter = [last_dnc1(result) for result in own]
        measured = f"at most {max(scatter):.3g}"
        within = [value <= NETWORK_DNC1 for value in scatter]
        collapsed = of_networks(f"{kind}: DNC1 of the last layer <= {NETWORK_DNC1:g}", own, within, measured)
        found = [ranks(result, ((3, "pre"), (4, "pre"))) for result in own]
        measured = f"ranks {', '.join(str(each)[1:-1] for each in found)} at {RTOL:g} of the largest value"
        low = [max(each) < classes for each in found]
        text = f"{kind}: ranks of H_3 and H_4 below the number of classes"
        made += owned(LATER, below, collapsed, of_networks(text, own, low, measured))
    return made


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
    versions={FULL: POINTS, CPU: (*MODELS, *smaller(TRAINED, CPU_SIZES)), QUICK: QUICK_POINTS},
    draw=draw,
    claims=claims,
    reasons=REASONS,
    tables=lambda results: tables_of("low_rank", results),
)
