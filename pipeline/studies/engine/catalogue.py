"""The studies: which runs each figure needs, and what draws and judges it."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from pipeline.studies.engine import claims, drawing, drawing_e1, real
from pipeline.studies.engine.runs import Point, Result
from pipeline.studies.engine.study import FULL, QUICK, Study
from pipeline.studies.engine.tables import layers_table, seeds_table
from pipeline.theory import DufmProblem, critical_decay


def sweep(key: str, *values: Any, steps: int | None = None) -> tuple[Point, ...]:
    """One point per value of a setting, named after it: ``depth_3``."""
    extra = () if steps is None else (f"descent.steps={steps}",)
    return tuple(Point(f"{key.rpartition('.')[2]}_{value}", (f"{key}={value}", *extra)) for value in values)


FEW_RECORDS = ("descent.records_per_decade=5",)
# Ten times faster, to the same minima; not where the descent itself is what the figure is about.
MOMENTUM = ("descent.momentum=0.9", *FEW_RECORDS)
DECAY_DEPTH = 3
# Multiples of the critical decay and the steps they need: descent converges at the rate lr x decay.
DECAY_STEPS = {0.02: 40_000, 0.05: 20_000}
DECAY_STEPS |= dict.fromkeys((0.1, 0.2, 0.4, 0.6, 0.8, 0.95, 1.05, 1.2, 1.35, 1.5, 2.0), 10_000)


def decay_points() -> tuple[Point, ...]:
    """Every decay from two starts: which of the solutions that theory knows is found depends on where one starts."""
    critical = critical_decay(DufmProblem(2, 50, DECAY_DEPTH, 1.0, 1.0))
    return tuple(
        Point(
            f"scale_{scale}_decay_{multiple:g}",
            (
                f"head.init_scale={scale}",
                f"head.weight_decay={multiple * critical!r}",
                f"descent.steps={steps}",
            ),
        )
        for multiple, steps in DECAY_STEPS.items()
        for scale in (1, 2)
    )


def _dufm(
    name: str,
    title: str,
    points: tuple[Point, ...],
    quick: tuple[str, ...],
    quick_overrides: tuple[str, ...],
    **what_for: Any,
) -> Study:
    """A study of the DUFM; ``quick`` names the points that the quick version keeps."""
    kept = tuple(replace(point, shrunk=quick_overrides) for point in points if point.name in quick)
    versions = {FULL: points, QUICK: kept}
    return Study(name, "dufm", title, versions, tables=lambda results: _tables(name, results), **what_for)


def _tables(name: str, results: Sequence[Result]) -> dict[str, pd.DataFrame]:
    return {name: seeds_table(results), f"{name}_layers": layers_table(results)}


STUDIES = {
    study.name: study
    for study in (
        _dufm(
            name="e1",
            title="collapse over the steps of gradient descent, L = 3, 4, 6",
            points=sweep("head.depth", 3, 4, 6),
            quick=("depth_3", "depth_4", "depth_6"),
            quick_overrides=("descent.seeds=3", "descent.steps=8000", *MOMENTUM),
            draw=drawing_e1.draw_e1,
            claims=claims.collapse_claims,
        ),
        _dufm(
            name="e2_depth",
            title="loss and metrics against the depth, L = 2 to 10",
            points=sweep("head.depth", *range(2, 11)),
            quick=("depth_2", "depth_5", "depth_8"),
            quick_overrides=("descent.seeds=2", "descent.steps=4000", *MOMENTUM),
            draw=drawing.draw_depth,
            claims=claims.depth_claims,
        ),
        _dufm(
            name="e2_decay",
            title="the phase transition over the weight decay",
            points=decay_points(),
            quick=tuple(f"scale_{scale}_decay_{multiple}" for multiple in (0.2, 0.6, 0.95, 1.5) for scale in (1, 2)),
            quick_overrides=("descent.seeds=3", "descent.steps=3000", *FEW_RECORDS),
            draw=drawing.draw_decay,
            claims=claims.decay_claims,
        ),
        _dufm(
            name="e2_lr",
            title="the gap to the optimum over the steps for learning rates from 0.05 to 8",
            points=(*sweep("descent.lr", 0.05, steps=60_000), *sweep("descent.lr", 0.1, 0.2, 0.5, 1.0, 2.0, 8.0)),
            quick=("lr_0.2", "lr_0.5", "lr_8.0"),
            quick_overrides=("descent.seeds=2", "descent.steps=16000", *FEW_RECORDS),
            draw=drawing.draw_lr,
            claims=claims.lr_claims,
        ),
        _dufm(
            name="e2_width",
            title="where seeds get stuck, against the width, 2 to 256",
            points=(
                *sweep("head.width", 2, 3, 4, 8, 16, 32),
                *sweep("head.width", 64, steps=30_000),
                *sweep("head.width", 128, steps=20_000),
                # A step of width 256 costs sixteen of width 64.
                Point("width_256", ("head.width=256", "descent.steps=20000", "descent.seeds=4")),
            ),
            quick=("width_2", "width_4", "width_16", "width_64"),
            quick_overrides=("descent.seeds=5", "descent.steps=5000", *MOMENTUM),
            draw=drawing.draw_width,
            claims=claims.width_claims,
        ),
        *real.STUDIES,
    )
}
"""By name, in the order in which they are run."""
