"""Leaky residual networks: does the path go through a bottleneck, and does the Hamiltonian count its rank?

Paper: arXiv 2405.17573.
Shows: -2H/Lt (over the layers), its stable version and the least cost of identity against the effective depth Lt;
    singular values of A_l and W_l along the path; kinetic and potential energy and H along the path.
Expects: -2H/Lt rises towards the teacher's bottleneck k* from below, the least cost falls towards it from above.
Evidence: docs/reproduction/beyond.md and leaky*.csv there.
    Command: scripts/reproduce leaky --cpu
    Machine: one of 2 shared cores of an x86-64 processor, no GPU, float64.
    Date: 2026-11-27. Commit of the code: the one that brought this file.
Provenance: claims and the full settings read in a digest of the paper (its lambda is not readable there: 1e-3 here);
    the small ones ours. Both pairings of H with the layers' ends are drawn. Claims about H are of the networks whose
    stationarity residual is at most 1.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from statistics import median
from typing import TYPE_CHECKING

import pandas as pd

from pipeline.studies._family import every, undecidable
from pipeline.studies._measured import end, numbers, places
from pipeline.studies.engine.claims import OURS, READ, Claim, Measurement, owned, reasoned
from pipeline.studies.engine.results import Point, Result
from pipeline.studies.engine.study import CPU, FULL, QUICK, Study, shrunk
from pipeline.views import marks, style
from pipeline.views.sheet import Sheet

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FEWER = ("backbone.epochs=300", "optimizer.iterations=800", "record.figures=false")
"""Steps of the version for two cores."""
DEPTHS = (1, 2, 4, 7, 10)


def _leak(depth: float) -> tuple[str, str]:
    """Lt, and a start at which rows neither vanish nor grow: W_l of N(0, 2 Lt^2 / w)."""
    return f"backbone.leak={depth}", f"backbone.init_scale={2**0.5 * depth:.4g}"


SMALL = tuple(Point(f"leak_{depth}", _leak(depth)) for depth in DEPTHS)
WIDE = ("data.dim=30", "data.num_classes=30", "data.rank=3", "data.samples=1000", "data.test=1000")
WIDE += ("backbone.width=100", "backbone.epochs=5000", "optimizer.lr=1e-3", "optimizer.weight_decay=1e-3")
LARGE = tuple(Point(f"wide-leak_{depth}", (*_leak(depth), *WIDE)) for depth in (1, 2, 3, 4, 5, 7))
TEACHER = ("data.dim=30", "data.num_classes=30", "data.rank=6", *WIDE[3:])
STEPS = tuple(
    Point(f"steps_{kind}-L{layers}", (*_leak(3), f"backbone.depth={layers}", f"backbone.steps={kind}", *TEACHER))
    for kind in ("equal", "irregular", "adaptive")
    for layers in (4, 6, 8, 12, 20)
)
CPU_POINTS = shrunk(SMALL, [point.name for point in SMALL], FEWER)
QUICK_POINTS = shrunk(
    SMALL, ["leak_2", "leak_7"], ("backbone.epochs=200", "optimizer.iterations=300", "record.figures=false")
)
SLACK, SHARE, LARGE_VALUE, NEGATIVE, JUDGED = 0.15, 0.2, 0.1, 0.1, 1.0
"""Of k*, how far above it -2H/Lt may be; spread of H over that of the kinetic energy; share of s_1 that counts as
large; operator norm of the negative part over the whole that counts as none; largest residual that is judged."""
SEEN = {1: "-27, 14.8", 2: "-3.9, 12.4", 4: "0.83, 4.4", 7: "1.36, 2.39", 10: "1.2, 2.04"}
"""-2H/Lt and the least cost of identity as the specification saw them."""

REASONS: dict[str, str] = {}
"""Why claims do not hold, by a part of their text."""


def along(result: Result, metric: str) -> list[float]:
    """A metric layer by layer, at the end."""
    return [end(result, place, metric) for place in places(result)]


def residual(result: Result) -> float:
    """How far the weights are from those of a stationary point, relatively, in the worst layer."""
    return end(result, places(result)[-1], "stationarity_residual")


def depth_of(result: Result) -> float:
    """Lt."""
    return float(result.config.backbone.leak)


def stable_rank(result: Result) -> list[float]:
    """-2 H_g / Lt, layer by layer."""
    return [-2 / depth_of(result) * value for value in along(result, "stable_hamiltonian")]


def middle(values: Sequence[float]) -> list[float]:
    """Those of the middle third of the layers."""
    return list(values[len(values) // 3 : -(len(values) // 3)])


def large_values(result: Result) -> list[int]:
    """How many singular values of A_l are above a tenth of the largest, in the middle third."""
    found = []
    for place in middle(places(result)):
        values = spectrum(result, place, "path_value")
        found.append(sum(value > LARGE_VALUE * values[0] for value in values))
    return found


def spectrum(result: Result, place: tuple[str, str], metric: str) -> list[float]:
    """The largest singular values of a layer."""
    values = [end(result, place, metric)]
    while (value := end(result, place, f"{metric}/k={len(values) + 1}")) == value:
        values.append(value)
    return values


def in_order(results: Sequence[Result], begins: str) -> list[Result]:
    """Runs whose names begin so, by Lt."""
    return sorted((r for r in results if r.point.name.startswith(begins)), key=depth_of)


def claims(results: Sequence[Result]) -> list[Claim]:
    """Trends with Lt, where the cost peaks, how constant H is, what is left in the middle."""
    own = _claims(in_order(results, "leak_"))
    own += [replace(claim, claim=f"wide: {claim.claim}") for claim in _claims(in_order(results, "wide-"))]
    return reasoned([*own, *_steps(results)], REASONS)


def _claims(results: Sequence[Result]) -> list[Claim]:
    if not results:
        return []
    rank, deepest = results[0].config.data.rank, results[-1]
    judged = [result for result in results if residual(result) <= JUDGED]
    ranks = [median(along(result, "estimated_rank")) for result in judged]
    costs = [min(along(result, "cost_of_identity")) for result in results]
    made = []
    if len(results) > 1:
        text = f"-2H/Lt rises with Lt, median over layers, {_named(judged)}"
        claim = Claim(text, "rising", numbers(ranks), all(after > before for before, after in pairwise(ranks)))
        made += owned(READ, undecidable(claim, len(judged) > 1))
        text = f"the least cost of identity falls with Lt, {_named(results)}"
        falling = all(after < before for before, after in pairwise(costs))
        made += owned(READ, Claim(text, "falling", numbers(costs), falling))
    below = [value <= (1 + SLACK) * rank for value in ranks]
    claim = every(f"-2H/Lt is at most k* = {rank} (and {SLACK:.0%}), {_named(judged)}", below, numbers(ranks))
    made += owned(READ, undecidable(claim, bool(judged)))
    made += owned(READ, _peaks(results), undecidable(_constant(judged), bool(judged)))
    counts = large_values(deepest)
    text = f"Lt = {depth_of(deepest):g}: {rank} singular values of A_l above s_1/10 in the middle third, or one more"
    made += owned(READ, every(text, [value in (rank, rank + 1) for value in counts], _counts(counts)))
    negative = middle(along(deepest, "negativity"))
    text = f"Lt = {depth_of(deepest):g}: rows are non-negative in the middle third, negativity <= {NEGATIVE}"
    made += owned(READ, every(text, [value <= NEGATIVE for value in negative], numbers(negative)))
    balance = [end(result, places(result)[-1], "balance_residual") for result in judged]
    text = f"||W||^2 grows by 2 Lt sum rho ||b||^2 along the path, up to .2 of its largest, {_named(judged)}"
    made += owned(OURS, undecidable(every(text, [it <= 0.2 for it in balance], numbers(balance)), bool(judged)))
    return made


def _named(results: Sequence[Result]) -> str:
    return f"Lt = {', '.join(f'{depth_of(result):g}' for result in results)}"


def _peaks(results: Sequence[Result]) -> Claim:
    """Where the cost of identity is largest."""
    found = []
    for result in results:
        values = along(result, "cost_of_identity")
        found.append((values.index(max(values)) + 1) / len(values))
    passed = [at <= 0.1 or at > 0.9 for at in found]
    return every("the cost of identity is largest in the first or last tenth of the path, p", passed, numbers(found))


def _constant(results: Sequence[Result]) -> Claim:
    """How much less H varies than the kinetic energy."""
    shares = [_range(along(result, "hamiltonian")) / _range(along(result, "kinetic_energy")) for result in results]
    text = f"H varies by at most {SHARE:g} of what the kinetic energy does, {_named(results)}"
    return every(text, [share <= SHARE for share in shares], numbers(shares))


def _steps(results: Sequence[Result]) -> list[Claim]:
    """Test error of the three kinds of steps, at the same L."""
    found: dict[int, dict[str, float]] = {}
    for result in (result for result in results if result.point.name.startswith("steps_")):
        own = result.config.backbone
        found.setdefault(own.depth, {})[own.steps] = end(result, None, "test_fit")
    full = {layers: errors for layers, errors in found.items() if len(errors) == 3}
    if not full:
        return []
    better = [min(errors["irregular"], errors["adaptive"]) <= errors["equal"] for errors in full.values()]
    return owned(READ, every("irregular or adaptive steps generalise at least as well as equal ones", better, ""))


def _range(values: Sequence[float]) -> float:
    return max(values) - min(values)


def _counts(values: Sequence[int]) -> str:
    return ", ".join(map(str, values))


def measurements(results: Sequence[Result]) -> list[Measurement]:
    """Residuals and shares of the fit, and -2H/Lt and costs beside what was seen before."""
    made = []
    for result in in_order(results, "leak_"):
        depth = depth_of(result)
        pair = [median(along(result, "estimated_rank")), min(along(result, "cost_of_identity"))]
        other = median(along(result, "estimated_rank_midpoint"))
        note = f"seen before: {SEEN[int(depth)]}"
        made.append(Measurement(f"Lt = {depth:g}: median -2H/Lt, least cost of identity", numbers(pair), note))
        fit, total = end(result, None, "fit"), end(result, None, "objective")
        said = f"{residual(result):.2g}, {other:.3g}, {fit / total:.0%}"
        note = "H is judged up to a residual of 1; the fit is to have 5 to 30 %"
        made.append(Measurement(f"Lt = {depth:g}: residual, mid-point -2H/Lt, fit of objective", said, note))
    return made


def draw(results: Sequence[Result]) -> "dict[str, Figure]":
    """Ranks against Lt; spectra and energies along the path of the deepest network."""
    found = {}
    for name, begins in (("leaky", "leak_"), ("leaky_wide", "wide-")):
        if own := in_order(results, begins):
            found[name] = _figure(own)
    return found


def _figure(results: Sequence[Result]) -> "Figure":
    deepest = results[-1]
    title = f"Leaky residual networks, bottleneck $k^* = {deepest.config.data.rank}$"
    with Sheet(2, 2, title=title, width=1.4) as sheet:
        sheet.legend(_ranks(sheet[0, 0], results))
        sheet.legend(_energies(sheet[0, 1], deepest))
        for axes, metric, what in ((sheet[1, 0], "path_value", "$A_l$"), (sheet[1, 1], "weight_value", "$W_l$")):
            _spectra(axes, deepest, metric)
            axes.set_ylabel(f"singular values of {what}, $L_t = {depth_of(deepest):g}$")
    return sheet.figure


def _ranks(axes: "Axes", results: Sequence[Result]) -> list:
    at = [depth_of(result) for result in results]
    rank = results[0].config.data.rank
    lines = (
        ("$-2H/L_t$, median over layers", [along(r, "estimated_rank") for r in results], style.BLUE, "o"),
        ("the same, mid-point pairing", [along(r, "estimated_rank_midpoint") for r in results], style.PURPLE, "^"),
        ("stable, $-2H_\\gamma/L_t$", [stable_rank(r) for r in results], style.GREEN, "s"),
    )
    handles = []
    for label, values, color, marker in lines:
        middles = [median(own) for own in values]
        axes.plot(at, middles, color=color, marker=marker)
        axes.vlines(at, [min(own) for own in values], [max(own) for own in values], color=color, linewidth=0.8)
        handles.append(marks.line(label, color, marker=marker))
    axes.plot(at, [min(along(r, "cost_of_identity")) for r in results], color=style.RED, marker="D")
    handles.append(marks.line("least cost of identity", style.RED, marker="D"))
    axes.axhline(rank, **style.OPTIMUM)
    axes.set(xlabel="effective depth $L_t$", ylabel="rank", ylim=(-4, 16))
    marks.numbered(axes, at)
    return [*handles, marks.line("$k^*$", **style.OPTIMUM)]


def _positions(result: Result) -> list[float]:
    count = len(places(result))
    return [(layer + 1) / count for layer in range(count)]


def _energies(axes: "Axes", result: Result) -> list:
    at, handles = _positions(result), []
    for label, metric, color, dashes in (
        ("kinetic energy", "kinetic_energy", style.RED, style.LINES[0]),
        ("potential energy", "potential_energy", style.GREEN, style.LINES[1]),
        ("$|H|$", "hamiltonian", style.BLUE, style.LINES[2]),
    ):
        axes.plot(at, [abs(value) for value in along(result, metric)], color=color, linestyle=dashes)
        handles.append(marks.line(label, color, dashes))
    axes.set(xlabel="p", ylabel=f"energies, $L_t = {depth_of(result):g}$", yscale="log")
    return handles


def _spectra(axes: "Axes", result: Result, metric: str) -> None:
    found = [spectrum(result, place, metric) for place in places(result)]
    for number, color in enumerate(style.shades(len(found[0]))):
        axes.plot(_positions(result), [values[number] for values in found], color=color)
    axes.set(xlabel="p", ylim=(0, None))


def tables(results: Sequence[Result]) -> dict[str, pd.DataFrame]:
    """A row for each network and layer."""
    shown = ("cost_of_identity", "nuclear_stable_rank", "kinetic_energy", "potential_energy", "hamiltonian")
    shown += ("estimated_rank", "estimated_rank_midpoint", "identity_residual")
    rows = []
    for result in results:
        common = {"point": result.point.name, "residual": residual(result), "test_fit": end(result, None, "test_fit")}
        for layer, place in enumerate(places(result), start=1):
            rows.append(common | {"layer": layer} | {metric: end(result, place, metric) for metric in shown})
    return {"leaky": pd.DataFrame(rows)}


STUDY = Study(
    name="leaky",
    group="beyond",
    title="leaky residual networks: bottleneck rank, cost of identity, Hamiltonian",
    versions={FULL: (*SMALL, *LARGE, *STEPS), CPU: CPU_POINTS, QUICK: QUICK_POINTS},
    draw=draw,
    claims=claims,
    measurements=measurements,
    tables=tables,
)
