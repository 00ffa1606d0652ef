"""E2, learning rate: how fast descent closes the gap, and where it stops working.

Paper: arXiv 2305.13165 (see e1); the learning rates and numbers of steps are ours (conf/experiment/e2_lr.yaml).
Shows: gap to the closed form against steps, and against lr x steps, for learning rates 0.05 to 8.
Expects: small learning rates follow the gradient flow, large ones diverge.
Evidence: docs/reproduction/README.md and e2_lr*.csv there. All 3 claims hold: lr x steps to a gap of 100 % is 2554 for
    0.05 to 0.5; at 0.5 the gap ends at most at 3.6e-4; at 8 no seed arrives.
    Command: scripts/reproduce e2_lr
    Machine: 2 cores of an AMD EPYC (model not named), crowded, no GPU, float64, torch 2.14.1; 17 min.
    Date: 2026-11-27. Commit of the code: 0064776.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipeline.studies._dufm import AT_OPTIMUM, FEW_RECORDS, GAP, GROUP, gaps, tables
from pipeline.studies.engine.claims import Claim, at_most, counted
from pipeline.studies.engine.results import Result
from pipeline.studies.engine.study import FULL, QUICK, Study, points_along, shrunk
from pipeline.views import marks, style
from pipeline.views.sheet import Sheet

if TYPE_CHECKING:
    from matplotlib.figure import Figure

POINTS = (
    *points_along("descent.lr", 0.05, also=("descent.steps=60000",)),
    *points_along("descent.lr", 0.1, 0.2, 0.5, 1.0, 2.0, 8.0),
)
QUICK_POINTS = shrunk(POINTS, ("lr_0.2", "lr_0.5", "lr_8.0"), ("descent.seeds=2", "descent.steps=16000", *FEW_RECORDS))
FLOW_LR, FLOW_GAP, FLOW_SPREAD = 0.5, 1.0, 0.1
"""Up to FLOW_LR descent follows the gradient flow: lr x steps to a gap of FLOW_GAP agree to FLOW_SPREAD."""


def claims(results: Sequence[Result]) -> list[Claim]:
    """Small learning rates follow the gradient flow, large ones diverge."""
    made, flow_times = [], {}
    for result in results:
        lr = result.config.descent.lr
        if lr <= FLOW_LR and (step := steps_to_gap(result, FLOW_GAP)) is not None:
            flow_times[lr] = lr * step
    if flow_times:
        spread = max(flow_times.values()) / min(flow_times.values()) - 1
        shown = ", ".join(f"{lr:g}: {time:.0f}" for lr, time in flow_times.items())
        text = f"lr <= {FLOW_LR:g}: lr x steps to a gap of {FLOW_GAP:.0%} is the same"
        made.append(Claim(text, f"within {FLOW_SPREAD:.0%}", f"within {spread:.1%} ({shown})", spread <= FLOW_SPREAD))
    usual = [result for result in results if result.config.descent.lr == FLOW_LR]
    made += [at_most(f"lr = {FLOW_LR:g}: gap of the loss to the closed form", gaps(result), GAP) for result in usual]
    last = max(results, key=lambda result: result.config.descent.lr)
    found = [diagnosis.name for diagnosis in last.diagnoses]
    text = f"lr = {last.config.descent.lr:g} is too large: no seed reaches the optimum"
    reached = sum(name in AT_OPTIMUM for name in found)
    made.append(Claim(text, f"0 of {len(found)}", counted(found), reached == 0))
    return made


def steps_to_gap(result: Result, gap: float) -> float | None:
    """Steps until the median seed's gap to the closed form is at most ``gap``; None if it never is.

    Interpolated between two measurements, linearly in the logarithms of steps and gap.
    """
    rows = result.record[(result.record.metric == "relative_gap") & (result.record.step > 0)]
    median = rows.groupby("step").value.median()
    reached = median.index[median <= gap]
    if reached.empty:
        return None
    after = median.index.get_loc(reached[0])
    if after == 0:
        return float(reached[0])
    (low, high), (gap_low, gap_high) = median.index[after - 1 : after + 1], median.iloc[after - 1 : after + 1]
    share = math.log(gap_low / gap) / math.log(gap_low / gap_high)
    return math.exp(math.log(low) + share * math.log(high / low))


def draw(results: Sequence[Result]) -> "dict[str, Figure]":
    """The gap to the optimum against steps and against lr x steps."""
    setting = f"L = {results[0].config.head.depth}, {len(results[0].seeds)} seeds"
    title = f"Learning rate ({setting}): geometric mean, shaded from the smallest to the largest"
    with Sheet(1, 2, title=title, alike=True, height=1.4, width=1.7) as sheet:
        steps, time = sheet.row(0)
        handles = []
        for result, color in zip(results, style.shades(len(results)), strict=True):
            rows = result.record[(result.record.metric == "relative_gap") & (result.record.step > 0)]
            lr, stuck = result.config.descent.lr, [d.name for d in result.diagnoses]
            lost = stuck.count("diverged")
            note = f" ({lost} of {len(stuck)} seeds diverged)" if lost else ""
            marks.spread(rows, steps, color=color)
            marks.spread(rows.assign(step=rows.step * lr), time, color=color)
            handles.append(marks.line(rf"$\eta = {lr:g}$" + note, color))
        steps.set(xlabel=style.STEPS, ylabel=style.GAP)
        time.set(xlabel=r"learning rate $\eta$ x gradient step")
        for axes in (steps, time):
            axes.set(xscale="log", yscale="log")
        sheet.legend(handles)
    return {"e2_lr": sheet.figure}


STUDY = Study(
    name="e2_lr",
    group=GROUP,
    title="the gap to the optimum over the steps for learning rates from 0.05 to 8",
    versions={FULL: POINTS, QUICK: QUICK_POINTS},
    draw=draw,
    claims=claims,
    tables=tables("e2_lr"),
)
