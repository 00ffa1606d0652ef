"""Shallow networks: on which data collapse is attainable, by linear programmes, and what it says about test accuracy.

Paper: Hong & Ling, arXiv 2409.01832 (abstract read). The condition, the exact probability without signal and the
    expected numbers are derived from the model; data, grid and draws are ours. Nothing is trained.
Shows: share of draws on which collapse is attainable over d/N and the signal, and of one class against the exact curve
    (F1); test accuracy of the collapsed minimum-norm network W_1 = Y X^+ against the signal (F4).
Expects: never for d < n, always for d >= N, one half at d/N = (1 + 1/K)/2 without signal and sooner with it; collapse
    on training rows in all draws of F4, whatever the accuracy.
Evidence: docs/reproduction/beyond.md and shallow*.csv there.
    Command: scripts/reproduce shallow
    Machine: 2 shared cores, no GPU, float64, torch 2.14.1; a few minutes.
    Date: 2026-11-26. Commit of the code: the one that brought this file.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from pipeline.studies.engine.claims import ABSTRACT, THEOREM, Claim, owned
from pipeline.studies.engine.results import Point, Result
from pipeline.studies.engine.study import FULL, QUICK, Grid, Study
from pipeline.studies.kernels import GROUP
from pipeline.theory import attainability_probability
from pipeline.views import marks, style
from pipeline.views.sheet import Sheet

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SAMPLES = 20
SIGNALS = (0, 1, 2, 4, 8, 16)
WIDE = 60
"""d of the accuracy points: above N = 40, so that every draw is attainable."""
GRIDS = (
    Grid("two", {"data.dim": (19, 20, 22, 24, 26, 28, 30, 32, 34, 36, 40), "data.snr": SIGNALS}),
    Grid("three", {"data.dim": (19, 20, 24, 28, 32, 36, 40, 44, 48, 60), "data.snr": SIGNALS}, ("data.num_classes=3",)),
)
ACCURACY = Grid(
    "accuracy",
    {"data.snr": (0, 1, 2, 3, 4, 6, 8)},
    (f"data.dim={WIDE}", "data.test=500", "protocol.repeats=20"),
)
QUICK_POINTS = (
    *Grid("two", {"data.dim": (19, 24, 28, 32, 36, 40), "data.snr": (0, 2, 8)}).points(
        lambda chosen: ("protocol.repeats=20",)
    ),
    *Grid("accuracy", {"data.snr": (0, 2, 4, 8)}, ACCURACY.fixed).points(lambda chosen: ("protocol.repeats=5",)),
)
THRESHOLDS: Mapping[int, float] = {0: 31.4, 1: 28.8, 2: 26.5, 4: 23.5, 8: 21.6, 16: 21.0}
"""d at which both of two classes are attainable in half of the draws, by signal: seen in 40 draws (specification)."""
SEEN: Mapping[int, float] = {0: 0.50, 1: 0.57, 2: 0.73, 3: 0.86, 4: 0.94, 6: 0.99, 8: 1.00}
"""Test accuracy by signal at d = 60, as the specification has seen it in 20 draws."""
NEAR_DIM, NEAR_ACCURACY, ERRORS = 1.0, 0.03, 3.0
STEP = 2
"""Largest distance of dimensions between which a threshold can be read off to `NEAR_DIM`."""


def _points() -> tuple[Point, ...]:
    return tuple(point for grid in (*GRIDS, ACCURACY) for point in grid.points())


def table(results: Sequence[Result]) -> pd.DataFrame:
    """One row per point: classes, dim, signal, draws, shares of draws, and mean accuracy.

    ``attainable``: in all classes; ``class_0``: in the first one; ``exact``: its probability, without signal alone.
    """
    rows = []
    for result in results:
        data, record = result.config.data, result.record
        whole = record[record.layer.fillna("") == ""]
        shares = whole[whole.metric == "attainable"].value
        first = record[(record.layer == "class_0") & (record.metric == "attainable")].value
        sizes = (data.num_classes, data.samples_per_class, data.dim)
        exact = math.nan if data.snr else attainability_probability(*sizes)
        judged = (data.num_classes, data.dim) == (2, WIDE)
        accuracy = whole[whole.metric == "accuracy"].value.mean() if judged else math.nan
        rows.append([*sizes, data.snr, len(shares), shares.mean(), first.mean(), exact, accuracy])
    columns = ["classes", "samples", "dim", "snr", "draws", "attainable", "class_0", "exact", "accuracy"]
    return pd.DataFrame(rows, columns=columns)


def claims(results: Sequence[Result]) -> list[Claim]:
    """Derived ones, then whether what was seen before is seen again."""
    found = table(results)
    narrow, full = found[found.dim < found.samples], found[found.dim >= found.classes * found.samples]
    made = [_everywhere("d < n: never attainable", narrow, 0), _everywhere("d >= N: always attainable", full, 1)]
    silent = found[(found.snr == 0) & found.exact.notna()]
    error = np.sqrt(silent.exact * (1 - silent.exact) / silent.draws)
    off = (silent.class_0 - silent.exact).abs()
    passed = int((off <= ERRORS * error).sum())
    text = f"no signal: share of draws of one class is the exact one within {ERRORS:g} standard errors"
    measured = f"{passed} of {len(silent)} points, at most {off.max():.3f} off"
    made.append(Claim(text, f"{len(silent)} of {len(silent)} points", measured, passed == len(silent)))
    made = owned(THEOREM, *made)
    two = found[(found.classes == 2) & (found.dim < WIDE)]
    return [*made, *_threshold_claims(two), *_accuracy_claims(found[found.accuracy.notna()])]


def _everywhere(text: str, points: pd.DataFrame, share: int) -> Claim:
    """At these points collapse is attainable in this share of draws."""
    if points.empty:
        return Claim(text, f"{share}", "no such points", None)
    low, high = points.attainable.min(), points.attainable.max()
    return Claim(text, f"{share}", f"{low:g} to {high:g} at {len(points)} points", bool(low == high == share))


def threshold(points: pd.DataFrame) -> tuple[float, float]:
    """d at which the share of draws crosses one half, by straight lines between points, and how far apart those are."""
    ordered = points.sort_values("dim")
    dims, shares = ordered.dim.to_numpy(float), ordered.attainable.to_numpy()
    for place in range(1, len(dims)):
        low, high = shares[place - 1], shares[place]
        if low < 0.5 <= high:
            gap = dims[place] - dims[place - 1]
            return dims[place - 1] + gap * (0.5 - low) / (high - low), gap
    return math.nan, math.inf


def _threshold_claims(two: pd.DataFrame) -> list[Claim]:
    """The threshold falls with the signal, and is where it was seen."""
    if two.empty:
        return []
    crossings = {snr: threshold(points) for snr, points in two.groupby("snr")}
    levels = [level for level, _ in crossings.values()]
    text = "K = 2: the threshold falls with the signal, towards n"
    measured = ", ".join(f"{level:.1f}" for level in levels)
    falls = all(after < before for before, after in pairwise(levels)) and levels[-1] >= SAMPLES - 1
    made = [Claim(text, "falling", measured, None if any(map(math.isnan, levels)) else falls)]
    for snr, expected in THRESHOLDS.items():
        if snr not in crossings:
            continue
        level, gap = crossings[snr]
        holds = bool(abs(level - expected) <= NEAR_DIM) if gap <= STEP else None
        text = f"K = 2, signal {snr}: d at which half of the draws are attainable (seen before)"
        made.append(Claim(text, f"{expected:g}, within {NEAR_DIM:g}", f"{level:.1f}", holds))
    return made


def _accuracy_claims(wide: pd.DataFrame) -> list[Claim]:
    """Collapsed in all draws, and the accuracy is the signal's."""
    if wide.empty:
        return []
    text = "d = 60: collapsed on the training rows in every draw, at accuracies from chance to 1"
    spread = f"{wide.accuracy.min():.2f} to {wide.accuracy.max():.2f}"
    holds = bool((wide.attainable == 1).all() and wide.accuracy.min() < 0.55 and wide.accuracy.max() > 0.97)
    made = [Claim(text, "no link", spread, holds, ABSTRACT)]
    ordered = wide[wide.snr.isin([*SEEN])].sort_values("snr")
    seen = [SEEN[snr] for snr in ordered.snr]
    off = (ordered.accuracy - np.array(seen)).abs().max()
    expected = ", ".join(f"{value:.2f}" for value in seen) + f", within {NEAR_ACCURACY:g}"
    measured = ", ".join(f"{value:.2f}" for value in ordered.accuracy)
    signals = ", ".join(f"{snr:g}" for snr in ordered.snr)
    made.append(
        Claim(f"d = 60: accuracy at signals {signals} (seen before)", expected, measured, bool(off <= NEAR_ACCURACY))
    )
    return made


def draw(results: Sequence[Result]) -> "dict[str, Figure]":
    """F1: heat maps and the exact curve; F4: accuracy against the signal."""
    found = table(results)
    grids = {classes: points for classes, points in found[found.accuracy.isna()].groupby("classes")}
    figures = {}
    if grids:
        title = "Share of draws on which collapse of all classes is attainable; below, without signal"
        with Sheet(2, len(grids), title=title, alike=True, height=1.2, width=1.7) as sheet:
            images = [_heat(sheet, place, points, classes) for place, (classes, points) in enumerate(grids.items())]
            for place, (classes, points) in enumerate(grids.items()):
                _curve(sheet[1, place], points[points.snr == 0], classes)
            sheet.figure.colorbar(images[-1], ax=sheet.row(0), label="share of draws")
            sheet.legend(_handles())
        figures["shallow"] = sheet.figure
    wide = found[found.accuracy.notna()].sort_values("snr")
    if len(wide):
        with Sheet(1, 1, title="Collapsed everywhere (K = 2, n = 20, d = 60)", height=1.3) as sheet:
            axes = sheet[0, 0]
            axes.plot(wide.snr, wide.accuracy, marker="o", color=style.BLUE)
            axes.axhline(0.5, **style.OPTIMUM)
            axes.set(xlabel="signal $s$", ylabel="test accuracy")
            sheet.legend([marks.line("measured", style.BLUE, marker="o"), marks.line("chance", **style.OPTIMUM)])
        figures["shallow_accuracy"] = sheet.figure
    return figures


def _heat(sheet: Sheet, place: int, points: pd.DataFrame, classes: int) -> Any:
    """Share of draws with all classes attainable, a cell per point."""
    axes, cells = sheet[0, place], points.pivot(index="snr", columns="dim", values="attainable")
    image = axes.imshow(cells.to_numpy(), origin="lower", aspect="auto", vmin=0, vmax=1, cmap=style.SEQUENTIAL)
    size = classes * SAMPLES
    axes.set_xticks(range(len(cells.columns)), [f"{dim / size:.2f}" for dim in cells.columns])
    axes.set_yticks(range(len(cells.index)), [f"{snr:g}" for snr in cells.index])
    axes.set(xlabel="$d/N$", ylabel="signal $s$")
    axes.grid(visible=False)
    sheet.tag(axes, f"$K = {classes}$")
    return image


def _curve(axes: "Axes", silent: pd.DataFrame, classes: int) -> None:
    """Without signal: one class against its exact probability, and all classes."""
    size, ordered = classes * SAMPLES, silent.sort_values("dim")
    dims = np.arange(SAMPLES - 1, size + 1)
    exact = [attainability_probability(classes, SAMPLES, int(dim)) for dim in dims]
    axes.plot(dims / size, exact, color=style.BLACK)
    error = np.sqrt(ordered.exact * (1 - ordered.exact) / ordered.draws)
    at, seen = ordered.dim / size, error > 0
    axes.vlines(at[seen], (ordered.class_0 - error)[seen], (ordered.class_0 + error)[seen], color=style.BLUE, lw=0.8)
    marks.dots(axes, at, ordered.class_0, style.BLUE)
    axes.plot(at, ordered.attainable, marker="s", linestyle=style.LINES[1], color=style.RED)
    axes.axvline((1 + 1 / classes) / 2, **style.OPTIMUM)
    axes.set(xlabel="$d/N$", ylabel="share attainable, $s = 0$")


def _handles() -> list[Any]:
    return [
        marks.line("one class, exact", style.BLACK),
        marks.dot("one class, draws (bar: standard error)", style.BLUE),
        marks.line("all classes, draws", style.RED, style.LINES[1], marker="s"),
        marks.line("$(1 + 1/K)/2$", **style.OPTIMUM),
    ]


STUDY = Study(
    name="shallow",
    group=GROUP,
    title="on which data two layers can collapse, and what that says about test accuracy",
    versions={FULL: _points(), QUICK: QUICK_POINTS},
    draw=draw,
    claims=claims,
    tables=lambda results: {"shallow": table(results)},
)
