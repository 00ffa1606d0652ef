"""Class encoding: the penalty of a bias moves class means from the simplex to the orthogonal frame.

Paper: arXiv 2606.00344 (class encoding in unconstrained features models, mean squared error with a penalised bias).
Shows: cosines of class means against the bias's penalty mu, with the closed form; who carries the mean of the targets.
Expects: the closed form at every mu; a simplex up to a penalty that is known, an orthogonal frame in the limit and
    without a bias; with two layers a jump; under cross-entropy the simplex at every mu.
Evidence: docs/reproduction/beyond.md and class_encoding*.csv there.
    Command: scripts/reproduce class_encoding --cpu
    Machine: one of 2 shared cores of an x86-64 processor, no GPU, float64, torch 2.14.1.
    Date: 2026-11-27. Commit of the code: the one that brought this file.
Provenance: read in the abstract: model, loss, and that means of balanced one-hot classes move from the simplex to the
    orthogonal frame as the penalty grows. Derived here: the closed form and that it is optimal
    (`pipeline.theory.spectral_optimum`). K, n, decays, penalties, several layers, the cross-entropy control ours.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional as F

from pipeline.studies._family import every, gaps, known, tables
from pipeline.studies.engine.claims import ABSTRACT, CONTROL, THEOREM, Claim, at_most, owned
from pipeline.studies.engine.results import Point, Result
from pipeline.studies.engine.study import CPU, FULL, QUICK, Study, shrunk
from pipeline.theory import SpectralOptimum, spectral_optimum
from pipeline.views import marks, style
from pipeline.views.sheet import Sheet

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PENALTIES = (0, 0.05, 0.15, 0.2, 0.3, 0.4, 0.7, 1.1, 1.5, 3, 10, 100, 1000)
DEEP = (0, 0.05, 0.2, 0.4, 1, 10, 100)
TWO_LAYERS = ("head.depth=2", "head.weight_decay=1e-2")
MANY = ("protocol.num_classes=10",)


def _points(name: str, penalties: Sequence[float], *overrides: str) -> tuple[Point, ...]:
    """With a step that the curvature mu of the bias allows."""
    return tuple(
        Point(f"{name}-mu_{mu:g}", (*overrides, f"head.bias_decay={mu}", f"descent.lr={min(0.5, 1 / max(mu, 1)):g}"))
        for mu in penalties
    )


POINTS = (
    *_points("k_4", PENALTIES),
    *_points("k_10", PENALTIES, *MANY),
    *_points("layers_2", DEEP, *TWO_LAYERS),
    *_points("cross_entropy", (0, 1), "head.loss=cross_entropy"),
    *(Point(f"{name}-no_bias", (*how, "head.bias=none")) for name, how in (("k_4", ()), ("k_10", MANY))),
)
QUICK_NAMES = (
    *(f"k_4-mu_{mu}" for mu in ("0", "0.15", "0.4", "3", "1000")),
    "k_10-mu_0.7",
    "k_10-mu_3",
    "layers_2-mu_0.2",
    "layers_2-mu_10",
    "cross_entropy-mu_1",
    "k_4-no_bias",
)
QUICK_POINTS = shrunk(POINTS, QUICK_NAMES, ("descent.seeds=2", "descent.steps=1000"))
GAP, AWAY = 1e-9, 1e-3
"""Largest relative gap to the closed form, and largest distance of a cosine from the one expected."""
NOTHING = 0.01
"""Where a penalty of 0 stands on a logarithmic axis; the closed forms are the same up to there."""
GRID = np.geomspace(NOTHING, 1e3, 200)
LOOKS = {"k_4": (style.BLUE, "o"), "k_10": (style.RED, "^"), "layers_2": (style.GREEN, "s")}
TITLES = {"k_4": "K = 4", "k_10": "K = 10", "layers_2": "K = 4, two layers"}


def claims(results: Sequence[Result]) -> list[Claim]:
    """The closed form, the two ends, and the way between them."""
    made, done = [], [result for result in results if result.completed]
    for name in LOOKS:
        runs = _of(done, name)
        if runs:
            made += _of_a_kind(TITLES[name], runs, name == "layers_2")
    for result in _of(done, "cross_entropy", every_one=True):
        away = _away(result, -1 / (result.summary["problem"]["num_classes"] - 1))
        made += owned(CONTROL, at_most(f"cross-entropy, mu = {penalty(result):g}: distance to the simplex", away, AWAY))
    for result in done:
        if result.point.name.endswith("no_bias"):
            text = f"K = {result.summary['problem']['num_classes']}, no bias: distance of cosines to 0"
            made += owned(THEOREM, at_most(text, _away(result, 0.0), AWAY))
    return made


def _of_a_kind(title: str, runs: Sequence[Result], several_layers: bool) -> list[Claim]:
    pick = min if several_layers else max
    worst = [pick(map(abs, gaps(run, min(known(run).values())))) for run in runs]
    seeds = "best seed" if several_layers else "every seed"
    measured = f"at most {max(worst):.2g} at {len(runs)} penalties"
    made = owned(
        THEOREM, Claim(f"{title}: gap to the closed form, {seeds}", f"<= {GAP:g}", measured, max(worst) <= GAP)
    )
    away = [max(_away(run, expected(run), several_layers)) for run in runs]
    text = f"{title}: cosines of class means are those of the closed form"
    made += owned(THEOREM, every(text, [it <= AWAY for it in away], f"at most {max(away):.2g} off"))
    simplex = [run for run in runs if _of_the_mean(closed(run)) == 0]
    if simplex and not several_layers:
        last, first = max(map(penalty, simplex)), -1 / (simplex[0].summary["problem"]["num_classes"] - 1)
        off = [max(_away(run, first)) for run in simplex]
        text = f"{title}: a simplex up to mu = p/(1-p) = {threshold(simplex[0]):.3g}"
        made += owned(THEOREM, every(text, [it <= AWAY for it in off], f"up to mu = {last:g}, {max(off):.2g} off"))
    middles = [float(np.median(cosines(run))) for run in runs]
    if len(runs) > 2:
        measured = ", ".join(f"{middle:.3g}" for middle in middles)
        rises = all(after >= before - AWAY for before, after in pairwise(middles)) and middles[-1] > middles[0] + AWAY
        text = f"{title}: from the simplex to the orthogonal frame (median cosine by mu)"
        made += owned(ABSTRACT, Claim(text, "rising to about 0", measured, rises and abs(middles[-1]) < 0.02))
    return made


def draw(results: Sequence[Result]) -> "dict[str, Figure]":
    """Cosines against the penalty for one and two layers, and who carries the mean of the targets."""
    done = [result for result in results if result.completed]
    with Sheet(1, 3, title="Class means under a penalised bias: simplex to orthogonal frame", height=1.4) as sheet:
        for axes, names in zip(sheet.row(0), (("k_4", "k_10"), ("k_4", "layers_2")), strict=False):
            for name in names:
                _cosines(sheet, axes, name, _of(done, name))
            axes.set(ylabel="cosine of means", xlabel=r"penalty $\mu$ of the bias")
        carried = _of(done, "k_4")
        if carried:
            _carriers(sheet, sheet[0, 2], carried)
        else:
            sheet.drop(sheet[0, 2])
    return {"class_encoding": sheet.figure}


def penalty(result: Result) -> float:
    """mu."""
    return result.summary["problem"].get("bias_decay", 0.0)


def cosines(result: Result) -> list[float]:
    """Mean cosine between two class means of the features, per seed; classes are equal and stand in order."""
    rows, classes = result.tensors["features/1"], result.summary["problem"]["num_classes"]
    units = F.normalize(rows.view(len(rows), classes, -1, rows.shape[-1]).mean(dim=2), dim=-1)
    gram = units @ units.mT
    return ((gram.sum(dim=(1, 2)) - classes) / (classes * (classes - 1))).tolist()


def closed(result: Result, mu: float | None = None) -> SpectralOptimum:
    """The optimum of this run's problem, at its penalty or another."""
    said = result.summary["problem"]
    targets = torch.eye(said["num_classes"], dtype=torch.float64)[result.tensors["labels"]]
    decays = (said["depth"], said["weight_decay"], said["feature_decay"])
    return spectral_optimum(targets, *decays, True, penalty(result) if mu is None else mu)


def expected(result: Result, mu: float | None = None) -> float:
    """The cosine of class means at the optimum, from the features' scale of the mean over that of the deviations.

    Every factor has the (L+1)-th part of a component: squared, eta^(2/(L+1)), which is eta for one layer.
    """
    found, classes = closed(result, mu), result.summary["problem"]["num_classes"]
    others = [eta for index, eta in enumerate(found.outputs) if index != found.mean]
    ratio = (_of_the_mean(found) / others[0]) ** (2 / (result.summary["problem"]["depth"] + 1))
    return (ratio - 1) / (classes - 1 + ratio)


def _of_the_mean(optimum: SpectralOptimum) -> float:
    """eta_0, the features' part of the mean."""
    return 0.0 if optimum.mean is None else optimum.outputs[optimum.mean]


def threshold(result: Result) -> float:
    """mu = p/(1-p), p = K sqrt(n lambda_W lambda_H), from which on features of one layer carry part of the mean."""
    said = result.summary["problem"]
    samples = len(result.tensors["labels"]) / said["num_classes"]
    p = said["num_classes"] * (samples * said["weight_decay"][0] * said["feature_decay"]) ** 0.5
    return p / (1 - p)


def _of(results: Sequence[Result], name: str, every_one: bool = False) -> list[Result]:
    """Runs of a kind with a bias, by the penalty."""
    found = [result for result in results if result.point.name.startswith(f"{name}-mu_")]
    return sorted(found, key=penalty)


def _away(result: Result, cosine: float, best: bool = False) -> list[float]:
    """Distances of the seeds' cosines from one; `best`: of the seed with the least loss."""
    away = [abs(value - cosine) for value in cosines(result)]
    return [away[int(np.argmin(result.losses))]] if best else away


def _cosines(sheet: Sheet, axes: "Axes", name: str, runs: Sequence[Result]) -> None:
    if not runs:
        return
    color, marker = LOOKS[name]
    for run in runs:
        marks.dots(axes, [max(penalty(run), NOTHING)] * len(run.seeds), cosines(run), color, marker)
    axes.plot(GRID, [expected(runs[0], mu) for mu in GRID], color=color)
    axes.axhline(0, **style.OPTIMUM)
    _ticked(axes)
    sheet.legend([marks.dot(TITLES[name], color, marker)])
    sheet.legend([marks.line("closed form", style.GREY), marks.line("orthogonal frame", **style.OPTIMUM)])


def _ticked(axes: "Axes") -> None:
    axes.set_xscale("log")
    axes.set_xticks([NOTHING, 0.1, 1, 10, 100, 1000], ["0", "0.1", "1", "10", "100", "1000"])
    axes.minorticks_off()


def _carriers(sheet: Sheet, axes: "Axes", runs: Sequence[Result]) -> None:
    """Parts of the targets' mean in the features' outputs and in the bias; what is left is misfit."""
    classes = runs[0].summary["problem"]["num_classes"]
    looks = {"in the bias": (style.BROWN, "D"), "in the features": (style.PURPLE, "v")}
    for run in runs:
        bias = run.tensors["bias"].mean(dim=1) * classes
        outputs = (run.tensors["features/1"] @ run.tensors["weights/1"].mT).mean(dim=(1, 2)) * classes
        for values, (color, marker) in zip((bias, outputs), looks.values(), strict=True):
            marks.dots(axes, [max(penalty(run), NOTHING)] * len(values), values.tolist(), color, marker)
    optima = [closed(runs[0], mu) for mu in GRID]
    parts = [
        [sum(optimum.bias) for optimum in optima],
        [_of_the_mean(it) / it.singular_values[-1] for it in optima],  # all are alike
    ]
    for values, (text, (color, marker)) in zip(parts, looks.items(), strict=True):
        axes.plot(GRID, values, color=color)
        sheet.legend([marks.dot(f"mean of the targets {text}", color, marker)])
    _ticked(axes)
    axes.set(xlabel=r"penalty $\mu$ of the bias", ylabel="share of the mean, K = 4")


STUDY = Study(
    name="class_encoding",
    group="beyond",
    title="a penalised bias moves class means from the simplex to the orthogonal frame",
    versions={FULL: POINTS, CPU: POINTS, QUICK: QUICK_POINTS},
    draw=draw,
    claims=claims,
    tables=tables("class_encoding"),
)
