"""Imbalanced cross-entropy: features >= 0 stay orthogonal, and margins and norms follow the sizes of the classes.

Paper: arXiv 2401.02058 (neural collapse for cross-entropy with class imbalance).
Shows: margins and norms against n_k with the closed form; where seeds end against the width; which of four classes the
    closed form leaves at zero. Of networks on images loss, DNC1 and angles over epochs, margins and norms against n_k
    (`imbalanced_ce_networks`).
Expects: larger classes with larger margins, smaller features and larger weights; wide features at the optimum, narrow
    ones with dead classes; a class at zero (minority collapse) exactly below the threshold.
Evidence: --cpu, the model in full and small networks, docs/reproduction: 9 of 25 claims; small classes die, and
    networks trained too shortly.
    Command: scripts/reproduce imbalanced_ce --cpu (41 s of CPU, networks 286 s)
    Machine: one of 2 shared cores of an x86-64 processor, no GPU, float64, torch 2.14.1.
    Date: 2026-11-27. Commit of the code: 824b049.
Provenance: objective read; closed form, threshold and dead classes derived and tested (`pipeline.theory`); metrics of
    the paper recalled; sizes, decays and widths ours. Networks: MLP 6 x 1024, ResNet-18, Adam 1e-4, 4000 epochs, decays
    1e-4 and 1e-5, no bias read; the long tail, ResNet-20, strong decays and batches ours. Of --cpu rate, sizes and
    decays are ours: those of the paper take longer.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from pipeline.studies._family import FEW_RECORDS, GROUP, ends, every, gaps, reference, sizes, width
from pipeline.studies._family_networks import models, networks, smaller, tables_of
from pipeline.studies._imbalanced_networks import CPU_SIZES, TRAINED, geometry, network_claims, networks_figure
from pipeline.studies.engine.claims import OURS, THEOREM, Claim, at_most, counted, owned
from pipeline.studies.engine.results import Point, Result
from pipeline.studies.engine.study import CPU, FULL, QUICK, Study, points_along, shrunk
from pipeline.theory import ImbalancedCrossEntropy, collapse_threshold, imbalanced_cross_entropy
from pipeline.views import marks, style
from pipeline.views.sheet import Sheet

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STRONG = ("head.weight_decay=3e-2", "head.feature_decay=1.4e-2")
"""Decays at which two samples are too few."""
WIDTHS = points_along("protocol.num_features", 4, 8, 16, 32, 64)
SMALLEST = tuple(
    Point(f"smallest_{size}", (f"protocol.class_sizes=[40,20,10,{size}]", *STRONG)) for size in (2, 3, 4, 6)
)
MODELS = (*WIDTHS, *SMALLEST)
POINTS = (*MODELS, *TRAINED)
SMALL = ("num_features_4", "num_features_16", "num_features_32", "smallest_2", "smallest_4")
QUICK_POINTS = shrunk(MODELS, SMALL, ("descent.seeds=6", *FEW_RECORDS))
OPTIMUM, WIDE = "global optimum", 16
DIES = "descent lets small classes die although the optimum fits them"
REASONS = dict.fromkeys(
    ("num_features_16: ", "num_features_32: ", "smallest_3: ", "smallest_4: ", "smallest_6: "), DIES
)
GAP, NEAR = 1e-3, 1e-2
"""Of the loss, and of margins and norms relative to the largest."""


def claims(results: Sequence[Result]) -> list[Claim]:
    """The optimum and its margins and norms where features are wide; dead classes where not; the threshold."""
    made = []
    for result in models(results):
        name, found = result.point.name, ends(result)
        if result.point.name.startswith("smallest"):
            made += owned(THEOREM, _minority(result))
        elif width(result) < WIDE:
            dead = sum(end.startswith("dead classes") for end in found)
            made += owned(OURS, Claim(f"{name}: some seeds end with dead classes", ">= 1", counted(found), dead > 0))
        else:
            at_optimum = at_most(f"{name}: gap to the optimum", gaps(result, reference(result, OPTIMUM)), GAP)
            made += owned(OURS, at_optimum)
            made += owned(THEOREM, _deviation(result), _order(result))
    return made + network_claims(networks(results), geometry, _expected, theory)


STATES = {"fitted": (style.BLUE, "o"), "at zero": (style.BLACK, "s"), "dead": (style.BROWN, "v")}
"""What the smallest class of a run is, and its mark."""


def draw(results: Sequence[Result]) -> "dict[str, Figure]":
    """The model, and networks under its penalties where some were trained."""
    figures = {"imbalanced_ce": _models(models(results))}
    if trained := networks(results):
        figures["imbalanced_ce_networks"] = networks_figure(trained, geometry, _expected)
    return figures


def _models(results: Sequence[Result]) -> "Figure":
    """Margins and norms against n_k, ends against the width, and the classes at zero over (n_4, decay)."""
    wide = [result for result in results if not _strong(result) and width(result) >= WIDE and result.completed]
    title = "Cross-entropy, one layer, features >= 0, classes of different sizes (lines: closed form, dots: seeds)"
    with Sheet(2, 2, title=title, height=1.2, width=1.8) as sheet:
        if wide:
            _margins_and_norms(sheet[0, 0], sheet[0, 1], wide[-1])
            sheet.legend(
                [
                    marks.dot("margins", style.PURPLE, "D"),
                    marks.dot("features", style.GREEN),
                    marks.dot("weights", style.RED, "^"),
                ]
            )
        else:
            sheet.drop(sheet[0, 0])
            sheet.drop(sheet[0, 1])
        sheet.legend(_shares(sheet[1, 0], [result for result in results if not _strong(result)]))
        _phases(sheet[1, 1], [result for result in results if _strong(result)])
        sheet.legend([marks.dot(f"smallest class {said}", *look) for said, look in STATES.items()])
    return sheet.figure


def theory(result: Result) -> ImbalancedCrossEntropy:
    """The closed form of a run's problem."""
    problem = result.summary["problem"]
    return imbalanced_cross_entropy(sizes(result), problem["weight_decay"][0], problem["feature_decay"])


def _expected(result: Result) -> dict[str, np.ndarray]:
    known = theory(result)
    values = known.margins, known.feature_norms_squared, known.weight_norms_squared
    return {name: np.array(each) for name, each in zip(("margin", "feature", "row"), values, strict=True)}


def _strong(result: Result) -> bool:
    return result.point.name.startswith("smallest")


def _deviation(result: Result) -> Claim:
    expected = _expected(result)
    away = [
        abs(values - expected[name]).max(axis=1) / expected[name].max() for name, values in geometry(result).items()
    ]
    text = f"{result.point.name}: margins and norms, deviation from the closed form"
    return at_most(text, np.max(away, axis=0).tolist(), NEAR)


def _order(result: Result) -> Claim:
    """Sizes fall along the classes, so margins and weights must fall too, and features rise."""
    found = geometry(result)
    signs = {"margin": -1, "feature": 1, "row": -1}
    steps = [sign * np.diff(found[name], axis=1) > 0 for name, sign in signs.items()]
    right = np.concatenate(steps, axis=1).all(axis=1).tolist()
    text = f"{result.point.name}: margins and weights fall with n_k, features rise"
    return every(text, right, "seeds")


def _minority(result: Result) -> Claim:
    """The smallest class is at zero if and only if the closed form says so."""
    known, margins = theory(result), geometry(result)["margin"][:, -1]
    gone = known.collapsed[-1]
    right = [bool((abs(margin) < NEAR) == gone) for margin in margins]
    text = f"{result.point.name}: at most {known.threshold:.2f} samples are too few, so the class is "
    return every(text + ("at zero" if gone else "fitted"), right, f"margins {margins.min():.3g} to {margins.max():.3g}")


def _margins_and_norms(margins: "Axes", norms: "Axes", result: Result) -> None:
    found, expected, counts = geometry(result), _expected(result), np.array(sizes(result))
    for name, axes, color, marker in (
        ("margin", margins, style.PURPLE, "D"),
        ("feature", norms, style.GREEN, "o"),
        ("row", norms, style.RED, "^"),
    ):
        axes.plot(counts, expected[name], color=color)
        marks.dots(axes, np.tile(counts, (len(found[name]), 1)).ravel(), found[name].ravel(), color, marker)
    where = f"samples of the class ({width(result)} dimensions)"
    margins.set(xscale="log", xlabel=where, ylabel="margin")
    norms.set(xscale="log", yscale="log", xlabel=where, ylabel="squared norm")
    for axes in (margins, norms):
        marks.numbered(axes, counts)


def _shares(axes: "Axes", results: Sequence[Result]) -> list:
    """Returns the entries of a legend."""
    found = [ends(result) for result in results]
    kinds = sorted({end for each in found for end in each}, key=lambda end: (end != OPTIMUM, end))
    colors = dict(zip(kinds, style.shades(len(kinds)), strict=True))
    marks.stacked(axes, [str(width(result)) for result in results], found, colors)
    axes.set(ylabel="share of seeds", xlabel="dimensions of the features")
    return [marks.box(kind, color) for kind, color in colors.items()]


def _zeros(few: int, decay: float) -> int:
    """How many of four classes, the smallest of `few` samples, are too small at these decays."""
    counts = (40, 20, 10, few)
    return sum(count <= collapse_threshold(counts, decay, decay) for count in counts)


def _phases(axes: "Axes", results: Sequence[Result]) -> None:
    """Number of classes that the closed form leaves at zero, and the runs."""
    smallest, decays = np.arange(1, 11), np.geomspace(2e-3, 1e-1, 120)
    at_zero = [[_zeros(int(few), decay) for few in smallest] for decay in decays]
    image = axes.pcolormesh(smallest, decays, at_zero, cmap="Greys", vmin=0, vmax=8, shading="nearest")
    for result in results:
        problem = result.summary["problem"]
        decay = (problem["weight_decay"][0] * problem["feature_decay"]) ** 0.5
        zero = abs(np.median(geometry(result)["margin"][:, -1])) < NEAR if result.completed else np.nan
        said = "fitted" if not zero else "at zero" if theory(result).collapsed[-1] else "dead"
        marks.dots(axes, [sizes(result)[-1]], [decay], *STATES[said])
    axes.figure.colorbar(
        image, ax=axes, ticks=range(5), boundaries=np.arange(-0.5, 5), label="classes at zero (theory)"
    )
    axes.set(yscale="log", xlabel="samples of the smallest class, beside 40, 20, 10")
    axes.set_ylabel(r"$\sqrt{\lambda_W \lambda_H}$")
    axes.grid(visible=False)


STUDY = Study(
    name="imbalanced_ce",
    group=GROUP,
    title="cross-entropy with features >= 0: margins and norms by the sizes of the classes",
    versions={FULL: POINTS, CPU: (*MODELS, *smaller(TRAINED, CPU_SIZES)), QUICK: QUICK_POINTS},
    draw=draw,
    claims=claims,
    reasons=REASONS,
    tables=lambda results: tables_of("imbalanced_ce", results),
)
