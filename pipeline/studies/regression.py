"""Regression: under any decay features and weights collapse onto the targets' covariance, without decay they do not.

Paper: arXiv 2409.04180 (neural multivariate regression, neural regression collapse).
Shows: NRC1-3 by the product of the decays; singular values of the outputs with the closed form; NRC3 against gamma; the
    residuals, which are white at the optimum. Of networks fitted to numbers of images the same over epochs
    (`regression_networks`).
Expects: the closed form at every decay; NRC1-3 -> 0 below the least target variance; no collapse without decay; above
    it the weakest component of the outputs at zero.
Evidence: --cpu, the model in full and small networks, docs/reproduction: 35 of 42 claims, 3 open.
    Command: scripts/reproduce regression --cpu (23 s of CPU, networks 431 s)
    Machine: one of 2 shared cores of an x86-64 processor, no GPU, float64, torch 2.14.1.
    Date: 2026-11-27. Commit of the code: 824b049.
Provenance: objective, optimum and metrics read; the case of dropped components for correlated targets and the gamma
    that minimises NRC3 derived (`pipeline.theory`, `pipeline.metrics`); targets (a synthetic teacher) and decays ours.
    Networks: MLP 4 x 256, decays 0 to 1e-2, penalties of the model at .01 and .1 read; what they are fitted to
    (brightness and differences of pixels, or a random network's outputs), rates and epochs ours: the paper's data
    (robots, driving, faces) are not here.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from pipeline.metrics import nrc3, regression_collapse
from pipeline.runs.matrices import teacher
from pipeline.studies._family import FEW_RECORDS, GROUP, gaps, reference, seeds_table, weights
from pipeline.studies._family_networks import models, networks, smaller
from pipeline.studies._regression_networks import CPU_SIZES, TRAINED, network_claims, networks_figure, networks_table
from pipeline.studies.engine.claims import THEOREM, Claim, above, at_most, owned
from pipeline.studies.engine.results import Point, Result
from pipeline.studies.engine.study import CPU, FULL, QUICK, Study, shrunk
from pipeline.theory import spectral_optimum
from pipeline.views import marks, style
from pipeline.views.sheet import Sheet

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DECAYS = {
    "none": (0.0, 0.0),
    "weak": (2e-3, 1e-3),
    "middle": (2e-2, 1e-3),
    "strong": (1e-1, 2e-3),
    "beyond": (1e-1, 2e-2),
}
"""Decays of the weights and of the features; "beyond": their product exceeds the least variance of the targets."""
MODELS = tuple(
    Point(name, (f"head.weight_decay={weight}", f"head.feature_decay={feature}"))
    for name, (weight, feature) in DECAYS.items()
)
POINTS = (*MODELS, *TRAINED)
QUICK_POINTS = shrunk(
    MODELS, ("none", "middle", "strong", "beyond"), ("descent.seeds=3", "descent.steps=8000", *FEW_RECORDS)
)
GAP, COLLAPSED, FREE = 1e-6, 1e-6, 1e-2
REASONS = {"middle: ": "too few steps for so small a decay; at ten times its product all hold"}
WHITE = 1e-2
"""Largest deviation of the residuals' covariance from c I, relative to c."""


def claims(results: Sequence[Result]) -> list[Claim]:
    """The closed form and collapse with decay, neither without; white residuals; a component that is dropped."""
    made = []
    for result in models(results):
        name = result.point.name
        if product(result) == 0:
            made += owned(THEOREM, above(f"{name}: NRC1 without decay", collapse(result)["nrc1"], FREE))
            continue
        known = reference(result, "global optimum")
        made += owned(THEOREM, at_most(f"{name}: gap to the closed form", gaps(result, known), GAP))
        made += owned(THEOREM, at_most(f"{name}: decays balance both norms, deviation", _unbalanced(result), WHITE))
        if dropped(result):
            weakest = [float(values[-1]) for values in _spectra(result)]
            text = f"{name}: weakest singular value of the outputs, {dropped(result)} dropped by the closed form"
            made += owned(THEOREM, at_most(text, weakest, 1e-3))
            continue
        for metric, values in collapse(result).items():
            made += owned(THEOREM, at_most(f"{name}: {metric.upper()}", values, COLLAPSED))
        text = f"{name}: covariance of the residuals is c I, deviation"
        made += owned(THEOREM, at_most(text, _not_white(result), WHITE))
    return made + network_claims(networks(results))


def draw(results: Sequence[Result]) -> "dict[str, Figure]":
    """The model, and networks where some were trained."""
    figures = {"regression": _models(models(results))}
    if trained := networks(results):
        figures["regression_networks"] = networks_figure(trained)
    return figures


def tables(results: Sequence[Result]) -> "dict[str, pd.DataFrame]":
    """The seeds of the model and, where there are some, the networks."""
    found = {"regression": seeds_table(models(results)), "regression_networks": networks_table(networks(results))}
    return {name: table for name, table in found.items() if len(table)}


def _models(results: Sequence[Result]) -> "Figure":
    """NRC by decay, spectra of the outputs, NRC3 over gamma, residuals of the first seed."""
    shown = [result for result in results if result.completed]
    with Sheet(2, 2, title="Regression on three outputs: collapse by the decays", height=1.2, width=1.8) as sheet:
        sheet.legend(_metrics(sheet[0, 0], shown))
        _outputs(sheet, sheet[0, 1], shown)
        sheet.legend(_gammas(sheet[1, 0], shown))
        sheet.legend(_residuals(sheet[1, 1], shown))
    return sheet.figure


def product(result: Result) -> float:
    """The paper's c, lambda_W lambda_H; its lambda_H is the features' decay times the number of rows."""
    problem = result.summary["problem"]
    return problem["weight_decay"][0] * problem["feature_decay"] * len(result.tensors["labels"])


def targets_of(result: Result) -> Tensor:
    """(N, n)."""
    return teacher(len(result.tensors["labels"]), weights(result)[0].shape[1], result.config.seed)


def dropped(result: Result) -> int:
    """Components of the targets that the closed form leaves at zero."""
    return int((_variances(result) <= product(result)).sum())


def collapse(result: Result) -> dict[str, list[float]]:
    """NRC1-3 of every seed, NRC3 at gamma = c, or where it is least if the closed form drops components."""
    features, weight = result.tensors["features/1"], weights(result)[0]
    gamma = None if dropped(result) else product(result)
    found = regression_collapse(features, weight, targets_of(result), gamma=gamma)
    return {name: getattr(found, name).tolist() for name in ("nrc1", "nrc2", "nrc3")}


def _variances(result: Result) -> Tensor:
    """Of the principal components of the targets, largest first."""
    targets = targets_of(result)
    return torch.linalg.svdvals(targets - targets.mean(dim=0)).square() / len(targets)


def _outputs_of(result: Result) -> Tensor:
    """(S, N, n), without the bias."""
    return result.tensors["features/1"] @ weights(result)[0].mT


def _spectra(result: Result) -> Tensor:
    """Singular values of the outputs over sqrt N, (S, n)."""
    return torch.linalg.svdvals(_outputs_of(result)) / len(result.tensors["labels"]) ** 0.5


def _residuals_of(result: Result) -> Tensor:
    """(S, N, n)."""
    return _outputs_of(result) + result.tensors["bias"][:, None, :] - targets_of(result)


def _not_white(result: Result) -> list[float]:
    rest, c = _residuals_of(result), product(result)
    covariance = rest.mT @ rest / rest.shape[1]
    away = covariance - c * torch.eye(rest.shape[2], dtype=rest.dtype)
    return (away.abs().amax(dim=(1, 2)) / c).tolist()


def _unbalanced(result: Result) -> list[float]:
    problem = result.summary["problem"]
    features = problem["feature_decay"] * result.tensors["features/1"].square().sum(dim=(1, 2))
    weight = problem["weight_decay"][0] * weights(result)[0].square().sum(dim=(1, 2))
    return (features / weight - 1).abs().tolist()


def _metrics(axes: "Axes", results: Sequence[Result]) -> list:
    """NRC1-3 of each run; values below the rounding of float64 are drawn there. Returns the entries of a legend."""
    found, handles = [collapse(result) for result in results], []
    looks = zip(style.PALETTE, style.MARKERS, (-0.2, 0, 0.2), strict=False)
    for metric, (color, marker, shift) in zip(("nrc1", "nrc2", "nrc3"), looks, strict=True):
        values = [np.maximum(each[metric], 1e-17) for each in found]
        if metric == "nrc3":  # says nothing where components are dropped
            values = [seeds * (np.nan if dropped(result) else 1) for seeds, result in zip(values, results, strict=True)]
        for place, seeds in enumerate(values):
            marks.dots(axes, [place + shift] * len(seeds), seeds, color, marker)
        handles.append(marks.dot(metric.upper() + (r" at $\gamma = c$" if metric == "nrc3" else ""), color, marker))
    marks.named(axes, [f"{product(result):.2g}" for result in results])
    axes.set(yscale="log", ylabel="NRC1-3", xlabel=r"$c = \lambda_W \lambda_H$")
    return handles


def _outputs(sheet: Sheet, axes: "Axes", results: Sequence[Result]) -> None:
    decayed = [result for result in results if product(result) > 0]
    if not decayed:
        sheet.drop(axes)
        return
    least = _variances(decayed[0])[-1]
    strengths = np.geomspace(1e-4, 2, 60)
    targets = targets_of(decayed[0])
    optima = [spectral_optimum(targets, 1, c / len(targets) / 1e-3, 1e-3, bias=True) for c in strengths]
    for component, (color, marker) in zip(
        range(targets.shape[1]), zip(style.PALETTE, style.MARKERS, strict=True), strict=False
    ):
        axes.plot(strengths, [optimum.outputs[component] / len(targets) ** 0.5 for optimum in optima], color=color)
        for result in decayed:
            seeds = _spectra(result)[:, component].tolist()
            marks.dots(axes, [product(result)] * len(seeds), seeds, color, marker)
    axes.axvline(least, **style.OPTIMUM)
    axes.set(xscale="log", xlabel=r"$c = \lambda_W \lambda_H$", ylabel="singular values of the outputs")
    closed = marks.line("singular values, closed form", style.GREY)
    sheet.legend([closed, marks.line("$c$ = least target variance", **style.OPTIMUM)])


def _kept(results: Sequence[Result]) -> list[tuple[Result, str]]:
    """Runs that collapse, each with a colour."""
    return list(zip((r for r in results if product(r) > 0 and not dropped(r)), style.PALETTE, strict=False))


def _gammas(axes: "Axes", results: Sequence[Result]) -> list:
    """NRC3 of the first seed over the whole interval, for runs that collapse. Returns the entries of a legend."""
    handles = []
    for (result, color), dashes in zip(_kept(results), style.LINES, strict=False):
        c, least = product(result), float(_variances(result)[-1])
        shares = np.linspace(0, 0.99, 60)
        weight, targets = weights(result)[0][0], targets_of(result)
        axes.plot(
            shares, [float(nrc3(weight, targets, share * least).value) for share in shares], color=color, ls=dashes
        )
        axes.axvline(c / least, color=color, linestyle=style.LINES[2], linewidth=0.8)
        handles.append(marks.line(rf"NRC3, $c = {c:.2g}$ (dotted: $\gamma = c$)", color, dashes))
    axes.set(yscale="log", xlabel=r"$\gamma$ / least target variance", ylabel="NRC3")
    return handles


def _residuals(axes: "Axes", results: Sequence[Result]) -> list:
    """They are the same for every c, so markers differ. Returns the entries of a legend."""
    handles = []
    for (result, color), marker, filled in zip(_kept(results), ("o", "D", "s"), (True, False, False), strict=False):
        c = product(result)
        rest = _residuals_of(result)[0].numpy() / c**0.5
        marks.dots(axes, rest[:, 0], rest[:, 1], color, marker, filled=filled)
        handles.append(marks.dot(f"residuals, $c = {c:.2g}$", color, marker, filled=filled))
    axes.set(xlabel=r"residual of output 1 / $\sqrt{c}$", ylabel=r"residual of output 2 / $\sqrt{c}$", aspect="equal")
    return handles


STUDY = Study(
    name="regression",
    group=GROUP,
    title="neural regression collapse by the decays",
    versions={FULL: POINTS, CPU: (*MODELS, *smaller(TRAINED, CPU_SIZES)), QUICK: QUICK_POINTS},
    draw=draw,
    claims=claims,
    reasons=REASONS,
    tables=tables,
)
