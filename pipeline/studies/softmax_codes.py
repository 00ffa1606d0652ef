"""Softmax codes: under cross-entropy without decay, depth alone makes linear layers low-rank.

Paper: arXiv 2605.23087 (implicit bias of depth, from neural collapse to softmax codes).
Shows: singular values of the outputs over the steps from a spectral start, by depth; from random starts the rank of
    the outputs and the share of collapsed seeds, against depth and width.
Expects: singular values drift apart once they differ, the more the deeper; equal ones stay. Rank and share of collapse
    fall with depth; the share rises with width.
Evidence: the full version, docs/reproduction: 6 of 8 claims.
    Command: scripts/reproduce softmax_codes
    Machine: one of 2 shared cores of an x86-64 processor, no GPU, float64, torch 2.14.1.
    Date: 2026-11-27. Commit of the code: 824b049.
Provenance: the trends read in the abstract, nothing else of the paper; that a spectral start keeps its singular vectors
    is derived (`pipeline.dufm.spectral_start`); sizes, scales, thresholds and steps ours.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from pipeline.dufm.head_measures import PlaceShape, head_shape
from pipeline.studies._family import FEW_RECORDS, GROUP, tables, weights, width
from pipeline.studies.engine.claims import ABSTRACT, LATER, OURS, THEOREM, Claim, at_most, owned
from pipeline.studies.engine.results import Point, Result
from pipeline.studies.engine.study import FULL, QUICK, Study, points_along, shrunk
from pipeline.views import marks, style
from pipeline.views.sheet import Sheet

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

START = ("protocol.start=spectral", "head.init_scale=0.5")
SPREAD, EQUAL = "protocol.start_noise=0.1", "protocol.start_noise=0"
MOMENTS = (1, 10, 30, 100, 300, 1000, 3000, 10_000, 30_000)
"""Steps after which the singular values are looked at: each is a run, since a record has ranks and no spectra."""
DEPTHS, WIDTHS = (1, 2, 3, 5), (10, 160)


def _spectral(depth: int, steps: int) -> Point:
    overrides = (*START, SPREAD, f"head.depth={depth}", f"descent.steps={steps}", "descent.seeds=3", *FEW_RECORDS)
    return Point(f"spectral-depth_{depth}-steps_{steps}", overrides)


SPECTRAL = tuple(_spectral(depth, steps) for depth in DEPTHS for steps in MOMENTS)
SIMPLEX = Point("equal", (*START, EQUAL, "descent.seeds=2", "descent.steps=3000", *FEW_RECORDS))
RANDOM_DEPTHS = points_along("head.depth", *DEPTHS)
RANDOM_WIDTHS = tuple(
    Point(f"width_{width}", (f"head.width={width}", f"protocol.num_features={width}")) for width in WIDTHS
)
BY_WIDTH = (*RANDOM_WIDTHS, Point("depth_3", ()))
"""One of the depths has its place among the widths, too."""
POINTS = (*SPECTRAL, SIMPLEX, *RANDOM_DEPTHS, *RANDOM_WIDTHS)
SHORT = tuple(point.name for point in SPECTRAL if int(point.name.rpartition("_")[2]) <= 3000)
QUICK_POINTS = (
    *shrunk(POINTS, (*SHORT, SIMPLEX.name), FEW_RECORDS),
    *shrunk(POINTS, [point.name for point in (*RANDOM_DEPTHS, *RANDOM_WIDTHS)], ("descent.steps=2000", *FEW_RECORDS)),
)
REASONS = {
    "share of collapsed seeds": "open: no random start came so near the simplex, at any depth or width; the mean "
    "distance goes the way the abstract says",
}
COLLAPSED, KEPT = 0.1, 1e-6
"""Gram distances to the simplex at which a seed counts as collapsed, and at which equal singular values are kept."""
RTOL = 0.1
"""A singular value of the outputs counts from this share of the largest: they grow for ever, none goes to zero."""


def claims(results: Sequence[Result]) -> list[Claim]:
    """What a spectral start does, and the trends over depth and width."""
    made = []
    for result in results:
        if result.point.name == SIMPLEX.name:
            distance = at_most("equal singular values stay: Gram distance to the simplex", _simplex(result), KEPT)
            made += owned(THEOREM, distance)
    ratios = {depth: _last(results, depth) for depth in DEPTHS}
    ratios = {depth: float(np.median(_ratios(result))) for depth, result in ratios.items() if result is not None}
    text = "spectral start: largest over smallest singular value of the outputs with depth"
    made += owned(ABSTRACT, _monotone(text, ratios, 1))
    by_depth, by_width = (
        _chosen(results, RANDOM_DEPTHS, _depth),
        _chosen(results, BY_WIDTH, width),
    )
    rank = {depth: float(np.mean(_ranks(result))) for depth, result in by_depth.items()}
    made += owned(ABSTRACT, _monotone(f"random starts: mean rank of the outputs (at {RTOL:g}) with depth", rank, -1))
    for name, runs, sign in (("depth", by_depth, -1), ("width", by_width, 1)):
        share = {key: _share(result) for key, result in runs.items()}
        distance = {key: float(np.mean(_simplex(result))) for key, result in runs.items()}
        made += owned(ABSTRACT, _monotone(f"random starts: share of collapsed seeds with {name}", share, sign))
        made += owned(LATER, _monotone(f"random starts: distance to the simplex with {name}", distance, -sign))
    fitted = [float(loss) for result in (*by_depth.values(), *by_width.values()) for loss in result.losses]
    if fitted:
        made += owned(OURS, at_most("random starts: every seed fits its labels, cross-entropy", fitted, 1e-2))
    return made


def _monotone(claim: str, values: dict[int, float], sign: int) -> Claim:
    """Never the wrong way from one value to the next, and different at the ends."""
    found = [value for _, value in sorted(values.items())]
    steps = sign * np.diff(found)
    holds = len(found) > 1 and bool((steps >= 0).all()) and sign * (found[-1] - found[0]) > 0
    said = ", ".join(f"{value:.3g} at {key}" for key, value in sorted(values.items()))
    return Claim(claim, "grows" if sign > 0 else "falls", said or "nothing", holds)


def _depth(result: Result) -> int:
    return result.summary["problem"]["depth"]


def _chosen(results: Sequence[Result], points: Sequence[Point], key: Callable[[Result], int]) -> dict[int, Result]:
    names = {point.name for point in points}
    found = {key(result): result for result in results if result.completed and result.point.name in names}
    return dict(sorted(found.items()))


def _over_steps(results: Sequence[Result], depth: int) -> dict[int, Result]:
    """Number of steps -> the run from the spectral start."""
    begins = f"spectral-depth_{depth}-steps_"
    found = [result for result in results if result.completed and result.point.name.startswith(begins)]
    return dict(sorted((int(result.point.name.removeprefix(begins)), result) for result in found))


def _last(results: Sequence[Result], depth: int) -> Result | None:
    runs = _over_steps(results, depth)
    return runs[max(runs)] if runs else None


def _outputs(result: Result) -> PlaceShape:
    labels = result.tensors["labels"]
    return head_shape(result.tensors["features/1"], weights(result), labels, "linear", RTOL)[-1]


def _values(result: Result) -> np.ndarray:
    """Singular values of the outputs' class means, without the one that belongs to the constant, ``(S, K-1)``."""
    return _outputs(result).spectrum.values.numpy()[:, :-1]


def _ratios(result: Result) -> list[float]:
    values = _values(result)
    return (values[:, 0] / values[:, -1]).tolist()


def _ranks(result: Result) -> list[float]:
    return _outputs(result).spectrum.rank.tolist()


def _simplex(result: Result) -> list[float]:
    return _outputs(result).gram.simplex.tolist() if result.completed else [np.nan] * len(result.seeds)


def _share(result: Result) -> float:
    return float(np.mean([distance < COLLAPSED for distance in _simplex(result)]))


def draw(results: Sequence[Result]) -> "dict[str, Figure]":
    """Singular values over the steps, a panel per depth; below rank and share of collapse by depth and width."""
    depths = [depth for depth in DEPTHS if _over_steps(results, depth)]
    title = "Cross-entropy, linear layers, no decay: spectral starts above (first seed), random starts below"
    with Sheet(2, max(len(depths), 3), title=title) as sheet:
        for axes, depth in zip(sheet.row(0), depths, strict=False):
            if axes is not sheet[0, 0]:
                axes.sharey(sheet[0, 0])
            runs = _over_steps(results, depth)
            values = np.stack([_values(result)[0] for result in runs.values()])
            axes.plot(list(runs), values / values.mean(axis=1, keepdims=True), marker="o", color=style.BLUE)
            axes.set(xscale="log", yscale="log", xlabel=style.STEPS, ylabel="singular values of the outputs over mean")
            sheet.tag(axes, f"$L = {depth}$")
        ranks, distances, wide, *rest = sheet.row(1)
        for axes in (*sheet.row(0)[len(depths) :], *rest):
            sheet.drop(axes)
        wide.sharey(distances)
        by_depth = _chosen(results, RANDOM_DEPTHS, _depth)
        _dots(ranks, by_depth, _ranks, "rank of the outputs", "depth $L$")
        _dots(distances, by_depth, _simplex, "distance to the simplex", "depth $L$")
        _dots(wide, _chosen(results, BY_WIDTH, width), _simplex, "distance to the simplex", "width, $L = 3$")
        for axes in (distances, wide):
            axes.axhline(COLLAPSED, **style.THRESHOLD)
            axes.set_ylim(bottom=0)
        sheet.legend([marks.dot("seed", style.BLUE), marks.line("collapse: below this", **style.THRESHOLD)])
    return {"softmax_codes": sheet.figure}


def _dots(
    axes: "Axes", runs: dict[int, Result], measure: Callable[[Result], list[float]], label: str, below: str
) -> None:
    for place, result in enumerate(runs.values()):
        found = measure(result)
        marks.dots(axes, place + np.linspace(-0.2, 0.2, len(found)), found, style.BLUE)
    axes.set(ylabel=label, xlabel=below)
    marks.named(axes, [str(key) for key in runs])


STUDY = Study(
    name="softmax_codes",
    group=GROUP,
    title="cross-entropy without decay: depth alone makes the outputs low-rank",
    versions={FULL: POINTS, QUICK: QUICK_POINTS},
    draw=draw,
    claims=claims,
    reasons=REASONS,
    tables=tables("softmax_codes"),
)
