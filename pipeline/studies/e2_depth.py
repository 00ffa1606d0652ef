"""E2, depth: how far gradient descent gets towards the collapsed optimum for 2 to 10 layers.

Paper: arXiv 2305.13165 (see e1); the depths and 3e4 steps are ours (conf/experiment/e2_depth.yaml).
Shows: final loss and gap to the closed form, and the worst promised DNC1-3, against L.
Expects: the optimum is found at every depth, and the last layer collapses.
Evidence: docs/reproduction/README.md and e2_depth*.csv there. All 18 claims hold: gap at most 3.4e-3 for all 90 seeds,
    DNC1 of the last layer at most 7.2e-12.
    Command: scripts/reproduce e2_depth
    Machine: 2 cores of an AMD EPYC (model not named), crowded, no GPU, float64, torch 2.14.1; 24 min.
    Date: 2026-11-27. Commit of the code: 0064776.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipeline.studies._dufm import GAP, GROUP, MOMENTUM, gaps, tables, worst
from pipeline.studies.engine.claims import THEOREM, Claim, at_most, owned
from pipeline.studies.engine.results import Result
from pipeline.studies.engine.study import FULL, QUICK, Study, points_along, shrunk
from pipeline.theory import collapsed_optimum
from pipeline.views import marks, style
from pipeline.views.sheet import Sheet

if TYPE_CHECKING:
    from matplotlib.figure import Figure

POINTS = points_along("head.depth", *range(2, 11))
QUICK_POINTS = shrunk(POINTS, ("depth_2", "depth_5", "depth_8"), ("descent.seeds=2", "descent.steps=4000", *MOMENTUM))


def claims(results: Sequence[Result]) -> list[Claim]:
    """The optimum is found at every depth, and the last layer collapses."""
    made = []
    for result in results:
        depth, limit = result.config.head.depth, result.config.verdict.dnc1
        made.append(at_most(f"L = {depth}: gap of the loss to the closed form", gaps(result), GAP))
        last = result.final("dnc1").get((depth, "post"), [math.nan] * len(result.seeds))
        made += owned(THEOREM, at_most(f"L = {depth}: DNC1 of the last layer", last, limit))
    return made


def draw(results: Sequence[Result]) -> "dict[str, Figure]":
    """Loss, gap and the worst promised DNC1-3 against the depth."""
    depths = [result.config.head.depth for result in results]
    steps, seeds = results[0].config.descent.steps, len(results[0].seeds)
    with Sheet(1, 5, title=f"Depth: the end of {steps:,} steps, {seeds} seeds (line: median)") as sheet:
        loss, gap, *metrics = sheet.row(0)
        loss.plot(depths, [collapsed_optimum(result.problem).loss for result in results], **style.OPTIMUM)
        marks.seeds(loss, depths, [result.losses for result in results])
        loss.set(ylabel="loss")
        marks.seeds(gap, depths, [gaps(result) for result in results])
        gap.set(ylabel=style.GAP, yscale="log")
        for axes, metric in zip(metrics, ("dnc1", "dnc2", "dnc3"), strict=True):
            marks.seeds(axes, depths, [worst(result, metric) for result in results], color=style.RED)
            axes.axhline(getattr(results[0].config.verdict, metric), **style.THRESHOLD)
            axes.set(ylabel=f"{metric.upper()}, worst promised layer")
        metrics[0].set(yscale="log")
        for axes in sheet.panels():
            axes.set(xlabel="depth $L$")
            marks.numbered(axes, depths)
        closed, threshold = marks.line("closed form", **style.OPTIMUM), marks.line("threshold", **style.THRESHOLD)
        sheet.legend([closed, threshold, marks.dot("seed", style.BLUE), marks.line("median", style.BLUE)])
    return {"e2_depth": sheet.figure}


STUDY = Study(
    name="e2_depth",
    group=GROUP,
    title="loss and metrics against the depth, L = 2 to 10",
    versions={FULL: POINTS, QUICK: QUICK_POINTS},
    draw=draw,
    claims=claims,
    tables=tables("e2_depth"),
)
