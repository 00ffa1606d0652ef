"""E2, width: narrow heads get stuck, wide ones do not.

Paper: arXiv 2305.13165 (see e1); the widths and numbers of steps are ours (conf/experiment/e2_width.yaml).
Shows: final losses, and the share of seeds at each value that pipeline.theory.diagnose names, against the width.
Expects: narrow heads get stuck, at values that have names, and wide ones do not.
Evidence: docs/reproduction/README.md and e2_width*.csv there. 7 of 9 claims hold: at width 16 two of ten seeds miss the
    optimum, and 19 of 84 final losses are at no value that theory names (dead samples, a split class).
    Command: scripts/reproduce e2_width
    Machine: 2 cores of an AMD EPYC (model not named), 23 GiB, no GPU, float64, torch 2.14.1; 33 min.
    Date: committed 2026-11-23. Commit of the code: not recorded.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from pipeline.studies._dufm import AT_OPTIMUM, GAP, GROUP, MOMENTUM, tables
from pipeline.studies.engine.claims import Claim, counted
from pipeline.studies.engine.results import Point, Result
from pipeline.studies.engine.study import FULL, QUICK, Study, points_along, shrunk
from pipeline.theory import partial_loss
from pipeline.views import marks, style
from pipeline.views.sheet import Sheet

if TYPE_CHECKING:
    from matplotlib.figure import Figure

POINTS = (
    *points_along("head.width", 2, 3, 4, 8, 16, 32),
    *points_along("head.width", 64, also=("descent.steps=30000",)),
    *points_along("head.width", 128, also=("descent.steps=20000",)),
    # A step of width 256 costs sixteen of width 64.
    Point("width_256", ("head.width=256", "descent.steps=20000", "descent.seeds=4")),
)
QUICK_POINTS = shrunk(
    POINTS, ("width_2", "width_4", "width_16", "width_64"), ("descent.seeds=5", "descent.steps=5000", *MOMENTUM)
)
WIDE, NARROW = 16, 4
"""From WIDE on no seed gets stuck; up to NARROW some do."""
REASONS = {
    "width 16: every seed": "one seed has a dead sample, one has a class split in two directions",
    "every final loss is at a value": "dead samples, 1/(2N) each, and classes split in two directions have no names "
    "in pipeline/theory",
}
UNNAMED = ("none of them", "diverged")
"""Diagnoses of a seed that is at no value that theory names."""
# Good to bad, for the values at which two classes can end.
DIAGNOSES = {
    "global optimum": style.BLUE,
    "metastable collapsed solution": style.GREEN,
    "1 of 2 classes fitted": style.PURPLE,
    "zero solution": style.RED,
    "none of them": style.GREY,
    "diverged": style.BLACK,
}
OTHER = style.BROWN


def claims(results: Sequence[Result]) -> list[Claim]:
    """Narrow heads get stuck, at values that have names, and wide ones do not."""
    made = []
    for result in results:
        width, found = result.config.head.width, [diagnosis.name for diagnosis in result.diagnoses]
        reached = sum(name in AT_OPTIMUM for name in found)
        if width >= WIDE:
            text = f"width {width}: every seed within {GAP:.0%} of the optimum"
            made.append(Claim(text, f"{len(found)} of {len(found)}", counted(found), reached == len(found)))
        elif width <= NARROW:
            text = f"width {width}: some seeds do not reach the optimum"
            made.append(Claim(text, f"fewer than {len(found)}", counted(found), reached < len(found)))
    everyone = [diagnosis.name for result in results for diagnosis in result.diagnoses]
    named = sum(name not in UNNAMED for name in everyone)
    text = "every final loss is at a value that theory names"
    made.append(Claim(text, f"{len(everyone)} of {len(everyone)}", f"{named}", named == len(everyone)))
    return made


def draw(results: Sequence[Result]) -> "dict[str, Figure]":
    """Where the seeds end, named, against the width: shares as stacked bars, and the losses themselves."""
    usual = len(results[0].seeds)
    widths = [
        str(result.config.head.width) + ("" if len(result.seeds) == usual else f"\n({len(result.seeds)} seeds)")
        for result in results
    ]
    found = [[diagnosis.name for diagnosis in result.diagnoses] for result in results]
    colors = {name: DIAGNOSES.get(name, OTHER) for name in _present(found)}
    title = f"Width: narrow heads get stuck (L = {results[0].config.head.depth}, {usual} seeds)"
    with Sheet(1, 2, title=title, height=1.4, width=1.7) as sheet:
        shares, losses = sheet.row(0)
        marks.stacked(shares, widths, found, colors)
        shares.set(ylabel="share of seeds", xlabel="width")
        for place, (result, names) in enumerate(zip(results, found, strict=True)):
            shifts = np.linspace(-0.3, 0.3, len(names))
            for shift, name, loss in zip(shifts, names, result.losses, strict=True):
                marks.dots(losses, [place + shift], [loss], colors[name])
        for fitted in range(3):
            losses.axhline(partial_loss(results[0].problem, fitted), **style.OPTIMUM)
        losses.set(ylabel="final loss of every seed", xlabel="width", yscale="log")
        marks.named(losses, widths)
        losses.grid(axis="x", visible=False)
        ends = [marks.box(name, color) for name, color in colors.items()]
        sheet.legend([*ends, marks.line("theory: 0, 1, 2 classes fitted", **style.OPTIMUM)])
    return {"e2_width": sheet.figure}


def _present(found: Sequence[Sequence[str]]) -> list[str]:
    """The diagnoses that occur, in the order of `DIAGNOSES`, others last."""
    names = {name for names in found for name in names}
    return [name for name in DIAGNOSES if name in names] + sorted(names - set(DIAGNOSES))


STUDY = Study(
    name="e2_width",
    group=GROUP,
    title="where seeds get stuck, against the width, 2 to 256",
    versions={FULL: POINTS, QUICK: QUICK_POINTS},
    draw=draw,
    claims=claims,
    reasons=REASONS,
    tables=tables("e2_width"),
)
