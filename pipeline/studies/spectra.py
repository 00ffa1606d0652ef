"""Spectra: at linear collapse a layer's Hessian has K^2 equal outliers along pairs of class means; not so with ReLU.

Paper: arXiv 2404.06106 (low-dimensional structures of Hessians, gradients and weights in the DUFM).
Shows: the largest eigenvalues of the data term's Hessian in one layer and how far pairs of class means are its
    eigenvectors, over the steps; the same with ReLU, by the state that a seed ends in.
Expects: linear: nine equal outliers at lambda q/p, aligned, the gradient on c = c', W^T W with three equal values.
    ReLU: outliers that stay unequal; a state below collapse is known.
Evidence: the full version but for merged samples with ReLU (10^6 steps), docs/reproduction: 8 of 9 claims.
    Command: scripts/reproduce spectra, with protocol.samples_per_class=1 head.feature_decay=0.4 for ReLU (98 s of CPU)
    Machine: one of 2 shared cores of an x86-64 processor, no GPU, float64, torch 2.14.1.
    Date: 2026-11-27. Commit of the code: 824b049.
Provenance: theorems 4.1 to 4.4 read; their values derived (`pipeline.theory.hessian_outliers`); sizes, decays and steps
    of ReLU from reproductions; that ReLU's small code lies below collapse here derived. A curve over steps is made of
    runs of so many steps from the same start.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch

from pipeline.dufm.head_measures import head_curvature
from pipeline.metrics import CurvatureSummary, LayerCurvature
from pipeline.studies._family import FEW_RECORDS, GROUP, ends, known, sizes, tables, undecidable, weights
from pipeline.studies.engine.claims import FIGURE, OURS, THEOREM, Claim, at_most, counted, owned
from pipeline.studies.engine.results import Point, Result
from pipeline.studies.engine.study import FULL, QUICK, Study, points_along, shrunk
from pipeline.theory import HessianOutliers, Problem, hessian_outliers
from pipeline.views import marks, style
from pipeline.views.sheet import Sheet

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

RELU = Point("relu", ("head.activation=relu", "head.width=65", "descent.steps=1000000"))
POINTS = (*points_along("descent.steps", 1, 100, 300, 1000, 3000), RELU)
MERGED = ("protocol.samples_per_class=1", "head.feature_decay=0.4", *FEW_RECORDS)
QUICK_POINTS = (
    *shrunk(POINTS[:-1], [point.name for point in POINTS[:-1]], MERGED),
    *shrunk(POINTS[-1:], (RELU.name,), ("descent.steps=30000", "descent.seeds=5", *MERGED)),
)
REASONS = {
    "ReLU: the nine": "two of three seeds at collapse have nine equal ones, to .4 %: their units for other classes "
    "stand just above the kink, where they count as active"
}
LAYER = {"linear": 3, "relu": 4}
NEAR, SHOWN = 1e-2, 12
COLLAPSED = ("collapsed solution", "global optimum")


def claims(results: Sequence[Result]) -> list[Claim]:
    """The closed forms at the end of the linear runs; states and unequal outliers with ReLU."""
    made = []
    linear = _linear(results)
    if linear:
        made += _at_collapse(linear[-1])
        made += owned(OURS, _aligning(linear))
    for result in results:
        if result.point.name == RELU.name and result.completed:
            made += _with_relu(result)
    return made


def draw(results: Sequence[Result]) -> "dict[str, Figure]":
    """Eigenvalues and alignment over the steps (linear), eigenvalues by state (ReLU)."""
    linear = _linear(results)
    with_relu = [result for result in results if result.point.name == RELU.name and result.completed]
    title = "Largest eigenvalues of a layer's Hessian, three classes, five layers"
    with Sheet(1, 3, title=title, height=1.2, width=1.4) as sheet:
        over_steps, alignment, relu = sheet.row(0)
        if linear:
            sheet.legend([*_over_steps(over_steps, linear), *_alignment(alignment, linear)])
        for result in with_relu:
            sheet.legend(_by_state(relu, result))
        sheet.legend([marks.line("theory, at collapse", **style.OPTIMUM)])
        for axes in (*(() if linear else (over_steps, alignment)), *(() if with_relu else (relu,))):
            sheet.drop(axes)
    return {"spectra": sheet.figure}


def theory(result: Result) -> HessianOutliers:
    """The closed forms of a run's problem."""
    said = result.summary["problem"]
    loss, activation, depth = said["loss"], said["activation"], said["depth"]
    return hessian_outliers(
        Problem(loss, activation, sizes(result), depth, said["weight_decay"], said["feature_decay"])
    )


def eigenvalues(result: Result, layer: int) -> np.ndarray:
    """The largest of the data term's Hessian in W_l, (S, 12)."""
    found = []
    for seed in range(len(result.seeds)):
        own = [weight[seed] for weight in weights(result)]
        rows, activation = result.tensors["features/1"][seed], result.summary["problem"]["activation"]
        curvature = LayerCurvature(rows, own, layer, result.tensors["labels"], activation, "mse")
        values = curvature.eigenvalues(SHOWN)
        found.append(torch.nn.functional.pad(values, (0, SHOWN - len(values))).numpy())
    return np.stack(found)


def _linear(results: Sequence[Result]) -> list[Result]:
    """Completed runs of linear layers, in the order of their steps."""
    found = [result for result in results if result.point.name != RELU.name and result.completed]
    return sorted(found, key=_steps)


def _steps(result: Result) -> int:
    return int(result.point.name.rpartition("_")[2])


def _layer(result: Result) -> int:
    return LAYER[result.summary["problem"]["activation"]]


def _summary(result: Result) -> CurvatureSummary:
    """(S,) each, of the layer that is looked at."""
    problem, tensors = result.summary["problem"], result.tensors
    found = head_curvature(tensors["features/1"], weights(result), tensors["labels"], problem["activation"])
    return CurvatureSummary(*(values[:, _layer(result) - 1] for values in found))


def _at_collapse(result: Result) -> list[Claim]:
    expected, found, layer = theory(result), _summary(result), _layer(result)
    value, gram = expected.layers[layer - 1], expected.gram[layer - 1]
    squares = torch.linalg.svdvals(weights(result)[layer - 1])[:, : len(sizes(result))].square()
    checks = {
        f"largest outlier, deviation from lambda q/p = {value:.6f}": (found.largest / value - 1).abs(),
        "largest over K^2-th outlier, less 1": found.ratio - 1,
        "1 - f, pairs of class means as eigenvectors": 1 - found.hessian,
        "1 - share of the gradient on pairs c = c'": 1 - found.gradient,
        f"eigenvalues of W^T W, deviation from {gram:.6f}": (squares / gram - 1).abs().amax(dim=1),
    }
    name = f"linear, {_steps(result)} steps"
    made = [at_most(f"{name}: {text}", values.tolist(), NEAR) for text, values in checks.items()]
    next_one = at_most(f"{name}: next eigenvalue over the largest", found.gap.tolist(), NEAR)
    # With one sample in a class there are no more than K^2 eigenvalues.
    return owned(THEOREM, *made, undecidable(next_one, decidable=max(sizes(result)) > 1))


def _aligning(results: Sequence[Result]) -> Claim:
    means = [float(_summary(result).hessian.mean()) for result in results]
    measured = ", ".join(f"{_steps(result)}: {mean:.4f}" for result, mean in zip(results, means, strict=True))
    text = "linear: pairs of class means become eigenvectors while training (mean f by steps)"
    return Claim(text, "rising", measured, all(a <= b + 1e-9 for a, b in pairwise(means)))


def _with_relu(result: Result) -> list[Claim]:
    values, found = known(result), ends(result)
    collapse = next((values[name] for name in COLLAPSED if name in values), np.nan)
    below = [name for name, value in values.items() if value < collapse]
    text = "ReLU: theory knows a state below collapse at these settings"
    made = owned(OURS, Claim(text, "one", f"{', '.join(below) or 'none'}; collapse {collapse:.6f}", bool(below)))
    ratios = _summary(result).ratio.tolist()
    measured = f"{min(ratios):.3g} to {max(ratios):.3g}; seeds at: {counted(found)}"
    text = "ReLU: the nine outliers stay unequal (largest over ninth, every seed)"
    made += owned(FIGURE, Claim(text, f"> {1 + NEAR}", measured, min(ratios) > 1 + NEAR))
    return made


def _over_steps(axes: "Axes", results: Sequence[Result]) -> list:
    """Returns the entries of a legend."""
    handles = []
    for result, color in zip(results, style.shades(len(results)), strict=True):
        values = eigenvalues(result, _layer(result)).mean(axis=0)
        axes.plot(range(1, SHOWN + 1), values, marker="o", color=color)
        handles.append(marks.line(f"linear, {_steps(result)} steps", color, marker="o"))
    axes.axhline(theory(results[-1]).layers[_layer(results[-1]) - 1], **style.OPTIMUM)
    axes.set(xlabel="index", ylabel=f"eigenvalue, layer {_layer(results[0])}, linear")
    return handles


def _alignment(axes: "Axes", results: Sequence[Result]) -> list:
    """Returns the entries of a legend."""
    steps, found = [_steps(result) for result in results], [_summary(result) for result in results]
    curves = {
        "1 - f": ([1 - each.hessian.mean() for each in found], style.BLUE, "s"),
        "largest / ninth - 1": ([each.ratio.mean() - 1 for each in found], style.RED, "^"),
        "tenth / largest": ([each.gap.mean() for each in found], style.GREEN, "D"),
    }
    if max(sizes(results[0])) == 1:
        del curves["tenth / largest"]
    for values, color, marker in curves.values():
        axes.plot(steps, [max(float(value), 1e-12) for value in values], marker=marker, color=color)
    axes.set(xscale="log", yscale="log", xlabel=style.STEPS, ylabel="distance to the theorem")
    return [marks.line(name, color, marker=marker) for name, (_, color, marker) in curves.items()]


def _by_state(axes: "Axes", result: Result) -> list:
    """Returns the entries of a legend."""
    states = ends(result)
    looks = zip(style.PALETTE, style.LINES * 2, strict=False)
    colors = dict(zip(dict.fromkeys(states), looks, strict=False))
    for state, values in zip(states, eigenvalues(result, _layer(result)), strict=True):
        color, dashes = colors[state]
        axes.plot(range(1, SHOWN + 1), values, marker="v", color=color, linestyle=dashes)
    axes.axhline(theory(result).layers[_layer(result) - 1], **style.OPTIMUM)
    axes.set(xlabel="index", ylabel=f"eigenvalue, layer {_layer(result)}, ReLU")
    looks = colors.items()
    return [marks.line(f"ReLU: {name} ({states.count(name)})", *look, marker="v") for name, look in looks]


STUDY = Study(
    name="spectra",
    group=GROUP,
    title="eigenvalues of a layer's Hessian at collapse, linear and ReLU",
    versions={FULL: POINTS, QUICK: QUICK_POINTS},
    draw=draw,
    claims=claims,
    reasons=REASONS,
    tables=tables("spectra"),
)
