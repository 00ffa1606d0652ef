"""The networks of the study of coupling, and what is read of their records."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from pipeline.studies._measured import end, places
from pipeline.studies.engine.results import Point, Result
from pipeline.views import style

DECAYS, DEPTHS, REACH = (0.0, 5e-4, 5e-3), (2, 5, 13, 21), 3
BRIEF = ("backbone.epochs=200", "protocol.every=200")
"""Of the grid of trainings, which are measured before and after only."""
STRONG = DECAYS[-1]
COLORS = dict(zip(DECAYS, style.shades(len(DECAYS)), strict=True))


def _residual(depth: int, decay: float, *more: str, name: str = "") -> Point:
    settings = (f"backbone.depth={depth}", f"optimizer.weight_decay={decay:g}", *more)
    return Point(f"L{depth}-decay_{decay:g}{name}", settings)


DEEP = tuple(_residual(depth, decay) for depth in DEPTHS for decay in DECAYS)
OTHERS = (
    _residual(5, STRONG, "backbone.block_layers=2", name="-two_layers"),
    _residual(5, STRONG, "backbone.skip=false", name="-no_skip"),
)
GRID = tuple(
    Point(
        f"n{size}-decay_{decay:g}-noise_{noise:g}-seed_{seed}",
        (
            *(f"data.samples_per_class={size}", f"optimizer.weight_decay={decay:g}", f"data.flip.rate={noise:g}"),
            *(f"seed={seed}", *BRIEF),
        ),
    )
    for size in (10, 40)
    for decay in (0.0, STRONG)
    for noise in (0.0, 0.2, 0.5)
    for seed in (0, 1, 2)
)
SMALL_VIT = ("backbone=vit_small", "backbone.kwargs.patch_size=2", "backbone.kwargs.embed_dim=32")
SMALL_VIT += ("backbone.kwargs.num_heads=2",)
AS_USUAL = ("optimizer=adamw", "optimizer.lr=1e-3", "optimizer.weight_decay=5e-2", "protocol.regularization=standard")
ENDS_ALONE = "protocol.every=600"
VIT = tuple(
    Point(f"vit-n{size}", (*SMALL_VIT, *AS_USUAL, ENDS_ALONE, f"data.samples_per_class={size}")) for size in (10, 40)
)
VIT_DECAY = tuple(
    Point(
        f"vit-n10-decay_{decay:g}",
        (*SMALL_VIT, "optimizer.lr=1e-3", f"optimizer.weight_decay={decay:g}", ENDS_ALONE, "data.samples_per_class=10"),
    )
    for decay in (0.0, STRONG)
)
"""Transformers with the decay in the objective, as the residual MLPs have it, by Adam."""
CIFAR = ("data=cifar10", "data.samples_per_class=null", "backbone.batch_size=128", "protocol.every=30")
CIFAR += ("backbone.epochs=300", "optimizer.lr=1e-3")
LARGE = tuple(
    Point(f"cifar10-{network}-decay_{decay:g}", (f"backbone={network}", f"optimizer.weight_decay={decay:g}", *CIFAR))
    for network in ("vit_small", "resnet20")
    for decay in (5e-4, 5e-3)
)


def matrix(result: Result, step: int = -1) -> np.ndarray:
    """m_K(J_l, J_l') of all pairs of blocks at the first (0) or last (-1) measurement, ``(L, L)``; NaN on the
    diagonal. Of a network with several rows of blocks pairs of different rows are NaN, too."""
    rows = result.record[result.record.metric.astype(str).str.startswith("coupling/with=")]
    steps = sorted(rows.step.unique())
    if not steps:
        return np.full((0, 0), np.nan)
    return _matrix(rows, steps[step])


def _matrix(rows: pd.DataFrame, step: int) -> np.ndarray:
    rows = rows[rows.step == step]
    order = {layer: at for at, layer in enumerate(dict.fromkeys(rows.layer))}
    found = np.full((len(order), len(order)), np.nan)
    for layer, metric, value in zip(rows.layer, rows.metric, rows.value, strict=True):
        found[order[layer], order[metric.partition("with=")[2].rpartition("/")[0]]] = value
    return found


def near(found: np.ndarray) -> float:
    """Mean over ordered pairs of blocks at most `REACH` apart; NaN where there are none."""
    at = np.arange(len(found))
    chosen = found[(abs(at[:, None] - at) <= REACH) & ~np.isnan(found)]
    return float(chosen.mean()) if len(chosen) else float("nan")


def m_curve(result: Result) -> pd.Series:
    """m against the epoch."""
    rows = result.record[result.record.metric.astype(str).str.startswith("coupling/with=")]
    steps = sorted(rows.step.unique())
    return pd.Series([near(_matrix(rows, step)) for step in steps], index=steps, dtype=float)


def of_depths(results: Sequence[Result]) -> list[Result]:
    """The residual MLPs of the study of depth and decay."""
    names = {point.name for point in DEEP}
    return [result for result in results if result.point.name in names]


def named(results: Sequence[Result], text: str) -> list[Result]:
    """Those whose names hold the text."""
    return [result for result in results if text in result.point.name]


def rank_correlation(first: Sequence[float], second: Sequence[float], draws: int = 2000) -> tuple[float, float, float]:
    """Spearman's correlation and a 95 % bootstrap interval over pairs (percentiles, seed 0)."""
    from scipy.stats import rankdata

    def spearman(one: np.ndarray, other: np.ndarray) -> float:
        ranks = rankdata(one), rankdata(other)
        return float(np.corrcoef(*ranks)[0, 1]) if np.ptp(ranks[0]) and np.ptp(ranks[1]) else np.nan

    one, other = np.asarray(first), np.asarray(second)
    chosen = np.random.default_rng(0).integers(len(one), size=(draws, len(one)))
    found = [spearman(one[at], other[at]) for at in chosen]
    low, high = np.nanpercentile(found, (2.5, 97.5))
    return spearman(one, other), float(low), float(high)


def by_depth(results: Sequence[Result]) -> dict[int, dict[float, Result]]:
    """Depth -> decay -> residual MLP."""
    found: dict[int, dict[float, Result]] = {}
    for result in of_depths(results):
        found.setdefault(result.config.backbone.depth, {})[float(result.config.optimizer.weight_decay)] = result
    return dict(sorted(found.items()))


def scattered(results: Sequence[Result]) -> list[tuple[float, float, float]]:
    """m, test accuracy and share of wrong labels of the grid of trainings."""
    names = {point.name for point in GRID}
    own = [result for result in results if result.point.name in names]
    return [
        (near(matrix(result)), end(result, None, "test_accuracy"), float((result.config.data.flip or {})["rate"]))
        for result in own
    ]


def last_of(result: Result) -> tuple[str, str]:
    return places(result)[-1]


def mean_of(found: np.ndarray) -> float:
    return float(np.nanmean(found))
