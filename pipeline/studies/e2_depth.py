"""E2, depth: how far gradient descent gets towards the collapsed optimum for 2 to 10 layers.

Paper: arXiv 2305.13165 (see e1); the depths and 3e4 steps are ours (conf/experiment/e2_depth.yaml).
Shows: final loss and gap to the closed form, and the worst promised DNC1-3, against L.
Expects: the optimum is found at every depth, and the last layer collapses.
Evidence: docs/reproduction/README.md and e2_depth*.csv there. All 18 claims hold: gap at most 3.4e-3 for all 90 seeds,
    DNC1 of the last layer at most 7.2e-12.
    Command: scripts/reproduce e2_depth
    Machine: 2 cores of an AMD EPYC (model not named), 23 GiB, no GPU, float64, torch 2.14.1; 27 min.
    Date: committed 2026-11-23. Commit of the code: not recorded.
"""

import math
from collections.abc import Sequence

import matplotlib
from matplotlib.figure import Figure

from pipeline.studies._dufm import GAP, GROUP, MOMENTUM, gaps, tables, worst
from pipeline.studies.engine.claims import THEOREM, Claim, at_most, owned
from pipeline.studies.engine.drawing import plot_seeds
from pipeline.studies.engine.results import Result
from pipeline.studies.engine.study import FULL, QUICK, Study, points_along, shrunk
from pipeline.theory import collapsed_optimum
from pipeline.views.figures import OPTIMUM, STYLE

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


def draw(results: Sequence[Result]) -> dict[str, Figure]:
    """Loss, gap and the worst promised DNC1-3 against the depth."""
    depths = [result.config.head.depth for result in results]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(13, 2.9), layout="constrained")
        loss, gap, *metrics = figure.subplots(1, 5)
        loss.plot(
            depths, [collapsed_optimum(result.problem).loss for result in results], **OPTIMUM, label="closed form"
        )
        plot_seeds(loss, depths, [result.losses for result in results], label="median over seeds")
        loss.set(title="loss")
        loss.legend()
        plot_seeds(gap, depths, [gaps(result) for result in results])
        gap.set(title="relative gap of the loss to the optimum", yscale="log")
        for axes, metric in zip(metrics, ("dnc1", "dnc2", "dnc3"), strict=True):
            plot_seeds(axes, depths, [worst(result, metric) for result in results], color="tab:red")
            axes.axhline(getattr(results[0].config.verdict, metric), color="grey", linewidth=0.8, linestyle="-.")
            axes.set(title=f"{metric.upper()}: worst promised layer")
        metrics[0].set(yscale="log")
        for axes in figure.axes:
            axes.set(xlabel="depth L", xticks=depths)
        steps = results[0].config.descent.steps
        figure.suptitle(f"Depth: the end of {steps:,} steps, {len(results[0].seeds)} seeds (dash-dotted: thresholds)")
    return {"e2_depth": figure}


STUDY = Study(
    name="e2_depth",
    group=GROUP,
    title="loss and metrics against the depth, L = 2 to 10",
    versions={FULL: POINTS, QUICK: QUICK_POINTS},
    draw=draw,
    claims=claims,
    tables=tables("e2_depth"),
)
