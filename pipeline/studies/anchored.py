"""Anchored: features tied to given ones lose scatter within classes, close to a minimiser by a known factor.

Paper: arXiv 2210.16658 (perturbation analysis of neural collapse), 2405.00985 (progressive feedforward collapse); the
    model without an anchor is that of 2202.08087.
Shows: NC1 (trace quotient) of the minimiser over that of its anchor, against the strength beta, for anchors close to a
    collapsed minimiser and for random ones; NC1 along a path of four steps.
Expects: close to a minimiser in K dimensions the quotient (beta/(beta+g))^2, g = sqrt(lambda_H/lambda_W); from random
    anchors NC1 falls, the more the weaker the tie; along the path it falls with every step.
Evidence: docs/reproduction/README.md and anchored*.csv there; 10 of 10 claims hold.
    Command: scripts/reproduce anchored
    Machine: one of 2 shared cores of an x86-64 processor, no GPU, float64, torch 2.14.1.
    Date: 2026-11-26. Commit of the code: the one that brought this file.
Provenance: that NC1 falls is read (for large beta); the exact response at every beta, and that the path is straight,
    derived (`pipeline.theory.anchored_response`, `mufm_strength`); objective of the path and its monotony recalled;
    strengths besides 100, noise and anchors ours. Anchors from networks: not here.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from pipeline.studies._family import FEW_RECORDS, GROUP, every, tables
from pipeline.studies.engine.claims import OURS, RECALLED, THEOREM, Claim, at_most, owned
from pipeline.studies.engine.results import Point, Result
from pipeline.studies.engine.study import FULL, QUICK, Study, shrunk
from pipeline.theory import anchored_response
from pipeline.views import marks, style
from pipeline.views.sheet import Sheet

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CLASSES, SAMPLES = 4, 10
BETAS = (100, 10, 1, 0.1)
"""The paper's; `features.anchor_strength` is beta over the number of samples."""
NEAR = ("protocol.start=collapsed", "protocol.start_noise=0.01", f"protocol.num_features={CLASSES}")
NEAR_POINTS, FAR_POINTS = (
    tuple(Point(f"{name}_{beta}", (*how, f"features.anchor_strength={beta / CLASSES / SAMPLES:g}")) for beta in BETAS)
    for name, how in (("near", NEAR), ("random", ()))
)
PATH = Point("path", ("head.feature_decay=0", "features.anchor_steps=4", "features.anchor_strength=0.08"))
POINTS = (*NEAR_POINTS, *FAR_POINTS, PATH)
QUICK_POINTS = shrunk(
    POINTS,
    [point.name for point in POINTS if point.name != "random_10"],
    ("descent.seeds=3", "descent.steps=4000", *FEW_RECORDS),
)
AWAY = 0.02
"""Largest relative deviation from the first order in the noise."""


def claims(results: Sequence[Result]) -> list[Claim]:
    """The predicted factor near a minimiser, less scatter elsewhere, monotony in the strength and along the path."""
    made = []
    for result in results:
        kind, name, quotients = _kind(result), result.point.name, shrinkage(result)
        if kind == "near":
            away = [abs(quotient / expected(result) - 1) for quotient in quotients]
            text = f"{name}: NC1 over the anchor's, deviation from {expected(result):.4g}"
            made += owned(THEOREM, at_most(text, away, AWAY))
        elif kind == "random":
            # The paper's claim is one for large beta.
            owner = THEOREM if beta_of(result) == max(BETAS) else OURS
            measured = f"quotients {min(quotients):.4g} to {max(quotients):.4g}"
            made += owned(owner, every(f"{name}: NC1 is below the anchor's", [q < 1 for q in quotients], measured))
        else:
            made += owned(RECALLED, _monotone(result))
    far = sorted((result for result in results if _kind(result) == "random"), key=beta_of)
    if len(far) > 1:
        middles = [float(np.median(shrinkage(result))) for result in far]
        measured = ", ".join(f"{beta_of(result):g}: {middle:.3g}" for result, middle in zip(far, middles, strict=True))
        falls = all(weak < strong for weak, strong in pairwise(middles))
        text = "random anchors: the weaker the tie, the less scatter is left (median quotient by beta)"
        made += owned(OURS, Claim(text, "rising with beta", measured, falls))
    return made


def draw(results: Sequence[Result]) -> "dict[str, Figure]":
    """The quotient of NC1 against the strength, and NC1 along the path."""
    with Sheet(1, 2, title="Features tied to an anchor: scatter within classes", height=1.4, width=1.7) as sheet:
        strengths, path = sheet.row(0)
        sheet.legend(_against_the_strength(strengths, results))
        along = [result for result in results if _kind(result) == PATH.name and result.completed]
        for result in along:
            _along_the_path(path, result)
            sheet.legend([marks.line(f"{len(result.seeds)} seeds along the path", style.GREEN, marker="D")])
        if not along:
            sheet.drop(path)
    return {"anchored": sheet.figure}


def beta_of(result: Result) -> float:
    """The paper's strength."""
    return result.summary["problem"]["anchor_strength"] * CLASSES * SAMPLES


def expected(result: Result) -> float:
    """First order of the quotient for an anchor close to a collapsed minimiser in as many dimensions as classes."""
    said = result.summary["problem"]
    decays = said["weight_decay"][0], said["feature_decay"]
    return anchored_response(CLASSES, SAMPLES, CLASSES, *decays, said["anchor_strength"]).within[0][0] ** 2


def shrinkage(result: Result) -> list[float]:
    """NC1 at the end over that of the anchor, which is where the features start, per seed."""
    rows = result.record[(result.record.metric == "dnc1") & (result.record.layer == "1")]
    first, last = (rows[rows.step == step].sort_values("seed").value.to_numpy() for step in (0, rows.step.max()))
    return (last / first).tolist()


def path_of(result: Result) -> np.ndarray:
    """NC1 of H_0..H_T, (S, T + 1)."""
    return np.array([step["dnc1"] for step in result.summary["anchored_path"]]).T


def _kind(result: Result) -> str:
    return result.point.name.partition("_")[0]


def _monotone(result: Result) -> Claim:
    found = path_of(result)
    measured = ", ".join(f"{value:.3g}" for value in np.median(found, axis=0))
    return every("path: NC1 falls with every step", (np.diff(found, axis=1) < 0).all(axis=1).tolist(), measured)


def _against_the_strength(axes: "Axes", results: Sequence[Result]) -> list:
    """Returns the entries of a legend."""
    handles = []
    kinds = (("near", style.BLUE, "o", "close to a minimiser"), ("random", style.RED, "^", "random anchors"))
    for kind, color, marker, text in kinds:
        shown = sorted((result for result in results if _kind(result) == kind), key=beta_of)
        if not shown:
            continue
        if kind == "near":
            betas = np.geomspace(0.05, 200, 80)
            said = shown[0].summary["problem"]
            ratio = (CLASSES * SAMPLES * said["feature_decay"] / CLASSES / said["weight_decay"][0]) ** 0.5
            axes.plot(betas, (betas / (betas + ratio)) ** 2, **style.OPTIMUM)
            handles.append(marks.line(r"$(\beta/(\beta+g))^2$", **style.OPTIMUM))
        for result in shown:
            values = shrinkage(result)
            marks.dots(axes, [beta_of(result)] * len(values), values, color, marker)
        handles.append(marks.dot(text, color, marker))
    axes.set(xscale="log", yscale="log", xlabel=r"strength $\beta$", ylabel="NC1 over that of the anchor")
    return handles


def _along_the_path(axes: "Axes", result: Result) -> None:
    for values in path_of(result):
        axes.plot(range(len(values)), values, color=style.GREEN, marker="D", linewidth=0.8)
    axes.set(yscale="log", xlabel="step of the path (0: the anchor)", ylabel="NC1")
    marks.numbered(axes, range(len(values)))


STUDY = Study(
    name="anchored",
    group=GROUP,
    title="features tied to given ones: how much scatter within classes is left",
    versions={FULL: POINTS, QUICK: QUICK_POINTS},
    draw=draw,
    claims=claims,
    tables=tables("anchored"),
)
