"""Depth: residual networks collapse further the deeper they are, if moving a representation gets cheaper with depth.

Paper: Sukenik, Lampert, Mondelli, arXiv 2505.15239 (abstract and summaries read).
Shows: NC1, NC2, NC3 against the number of blocks L (F1); objective over the optimum of features of fixed norm (GUFM),
    and its parts (F2); objective over steps.
Expects: NC1-3 fall with L for blocks of one linear layer, and for two with a decay ~ 1/L; with a constant decay two
    layers keep more than half of NC1. The gap to the GUFM falls. Accuracy stays.
Evidence: docs/reproduction/beyond.md and depth*.csv there.
    Command: scripts/reproduce depth --cpu
    Machine: one of 2 shared cores of an x86-64 processor, no GPU, float32, torch 2.14.1. The full version: not run.
    Date: 2026-11-27. Commit of the code: the one that brought this file.
Provenance: sets, depths, width, rate, decays, epochs and seeds of the full version are the paper's; its optimizer and
    number of images are not in what was read. Place of the norm, start, digits and thresholds ours; GUFM derived
    (`pipeline.theory.gufm_optimum`). A transformer with one linear layer in a block (L-T1x) is left out: timm's blocks
    have two, with gains and biases.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from math import nan
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch

from pipeline.metrics import nc2_simplex
from pipeline.studies._measured import CLASSIFIER, COMMON, by_data, curve, end, figures, numbers
from pipeline.studies.engine.claims import ABSTRACT, OURS, THEOREM, Claim, Measurement, owned
from pipeline.studies.engine.results import Point, Result
from pipeline.studies.engine.study import CPU, FULL, QUICK, Study, shrunk
from pipeline.studies.kernels import GROUP
from pipeline.views import marks, style
from pipeline.views.sheet import Sheet

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TWO, OVER_DEPTH = "backbone.block_layers=2", "protocol.penalty_weights=depth"
KINDS = {
    "one": ("one layer", ("backbone.block_layers=1",)),
    "two": ("two layers", (TWO,)),
    "two_over_depth": (r"two layers, $\lambda/L$", (TWO, OVER_DEPTH)),
    "two_twice": (r"two layers, $2\lambda/L$", (TWO, OVER_DEPTH, "optimizer.weight_decay=1e-2")),
}
"""What a block is and how it is decayed, by the name that begins its points: as figures call it, and its settings.

lambda = 5e-3; lambda/L is the paper's, 2 lambda/L what the specification has seen: that of L = 2 is lambda.
"""
DEPTHS, PAPER_DEPTHS = (2, 5, 13, 21), (2, 3, 5, 8, 13, 21, 34)
LONG = ("data.samples_per_class=null", "backbone.epochs=5000", "backbone.batch_size=128", "optimizer=sgd")
MEASURES = {"nc1": "NC1, within over between", "nc2": "NC2, $W$ from a simplex", "nc3": "NC3, 1 - cosine with $W$"}
SLOPES, HALF, SAME = (-1.0, -0.2), 0.5, 0.02
"""Of log NC1 in log L; of NC1 that is left; of accuracies that count as unchanged."""
SEEN = {
    "one": {2: (0.655, 0.314, 2.75), 5: (0.450, 0.223, 1.95), 13: (0.229, 0.120, 1.05), 21: (0.162, 0.092, 0.82)},
    "two": {2: (0.623, nan, 3.18), 5: (0.533, nan, 3.23), 13: (0.481, nan, 3.10), 21: (0.490, nan, 3.04)},
    "two_twice": {2: (0.623, nan, nan), 5: (0.445, nan, nan), 13: (0.316, nan, nan), 21: (0.268, nan, nan)},
}
"""NC1, NC3 and gap by kind and L, as the specification has seen them on the first 40 images of each digit, each pixel
less its mean, with a classifier that starts as N(0, 1/d). Here images are drawn, and pixels have one mean."""
COLUMNS = ["data", "kind", "depth", "seed", *MEASURES, "objective", "gap", "fit", "blocks", "classifier"]
COLUMNS += ["gradient_norm", "train_accuracy", "test_accuracy"]


def _points(depths: Sequence[int], seeds: int, *more: str, name: str = "") -> tuple[Point, ...]:
    return tuple(
        Point(
            f"{name}{kind}-depth_{depth}-seed_{seed}",
            (f"backbone.depth={depth}", f"seed={seed}", *settings, *more),
        )
        for kind, (_, settings) in KINDS.items()
        for depth in depths
        for seed in range(seeds)
    )


POINTS = tuple(
    point
    for data in ("mnist", "cifar10")
    for point in _points(
        PAPER_DEPTHS, 5, f"data={data}", "data.classes=null", *LONG, "optimizer.lr=5e-3", name=f"{data}-"
    )
)
DIGITS = _points(DEPTHS, 2)
QUICK_POINTS = shrunk(
    DIGITS,
    [point.name for point in DIGITS if point.name.endswith("seed_0") and "_21-" not in point.name],
    ("backbone.epochs=200", *COMMON),
)


def kind_of(result: Result) -> str:
    """The key of `KINDS`, by the settings of a run."""
    config = result.config
    if config.backbone.block_layers == 1:
        return "one"
    if config.protocol.penalty_weights == "equal":
        return "two"
    return "two_over_depth" if config.optimizer.weight_decay < 1e-2 else "two_twice"


def decay_of(result: Result) -> float:
    """lambda as it stands before every matrix."""
    config = result.config
    shared = config.protocol.penalty_weights == "depth"
    return config.optimizer.weight_decay / (config.backbone.depth if shared else 1)


def optimum_of(result: Result) -> float:
    """The GUFM's optimum for a run, as the run says; NaN where it has none (no decay, fewer features than classes)."""
    value = result.summary["loss"]["optimum"]
    return nan if value is None else value


def table(results: Sequence[Result]) -> pd.DataFrame:
    """One row per network that ended: NC1-3 at the end, the objective, its parts over the GUFM's optimum, accuracies.

    ``gap``: objective/GUFM - 1 = fit + blocks + classifier - 1, the penalty of an embedding counted with the blocks'.
    """
    return pd.DataFrame([_row(result) for result in results if result.completed], columns=COLUMNS)


def _row(result: Result) -> list:
    config, weight, optimum = result.config, result.tensors["weights/1"].double(), optimum_of(result)
    classes = len(weight)
    objective, penalty = (end(result, None, name) for name in ("objective", "penalty"))
    of_classifier = decay_of(result) / 2 * float(weight.square().sum())
    collapse = [
        end(result, CLASSIFIER, "dnc1"),
        float(nc2_simplex(weight, torch.arange(classes), classes)),
        1 - end(result, CLASSIFIER, "nc3_cosine"),
    ]
    parts = (objective - penalty, penalty - of_classifier, of_classifier)
    rest = [end(result, None, name) for name in ("gradient_norm", "train_accuracy", "test_accuracy")]
    where = [config.data.name, kind_of(result), config.backbone.depth, config.seed]
    return [*where, *collapse, objective, objective / optimum - 1, *(part / optimum for part in parts), *rest]


def means(found: pd.DataFrame) -> pd.DataFrame:
    """Mean over seeds: a row per data set, kind and depth."""
    return found.groupby(["data", "kind", "depth"]).mean(numeric_only=True).drop(columns="seed")


def _rising(found: pd.DataFrame, data: str, kind: str) -> pd.DataFrame:
    """Means of a kind by depth; empty where it was not run."""
    averaged = means(found)
    return averaged.loc[data, kind] if (data, kind) in {pair[:2] for pair in averaged.index} else averaged[:0]


def slope(rows: pd.DataFrame, name: str) -> float:
    """Of the logarithm of a mean in log L, by least squares; NaN of one depth."""
    return float(np.polyfit(np.log(rows.index), np.log(rows[name]), 1)[0]) if len(rows) > 1 else nan


def claims(results: Sequence[Result]) -> list[Claim]:
    """The trends with L that the paper names, and that no objective lies below the GUFM's optimum."""
    found = table(results)
    return [claim for data in found.data.unique() for claim in _claims(data, found)]


def _claims(data: str, found: pd.DataFrame) -> Iterator[Claim]:
    for kind in ("one", "two_over_depth", "two_twice"):
        rows = _rising(found, data, kind)
        for name in MEASURES if len(rows) > 1 else ():
            yield _falls(f"{data}: {name.upper()} falls with L, {_said(kind)}", rows[name], ABSTRACT)
    one, constant = _rising(found, data, "one"), _rising(found, data, "two")
    if len(constant) > 1:
        left = constant.nc1.iloc[-1] / constant.nc1.iloc[0]
        text = f"{data}: NC1 falls by less than half over the range, two layers, constant lambda"
        measured = f"{left:.2f} left: {numbers(constant.nc1)}"
        yield Claim(text, f"> {HALF:g} left", measured, bool(left > HALF), ABSTRACT)
    if len(one) > 1:
        if one.gap.notna().all():
            yield _falls(f"{data}: gap to the GUFM falls with L, one layer", one.gap, ABSTRACT)
        found_slope, (low, high) = slope(one, "nc1"), SLOPES
        text = f"{data}: slope of log NC1 in log L, one layer"
        yield Claim(text, f"{low:g} to {high:g}", f"{found_slope:.2f}", low <= found_slope <= high, OURS)
        change = one.test_accuracy.iloc[-1] - one.test_accuracy.iloc[0]
        text = f"{data}: test accuracy is that of the shallowest within {SAME:g}, one layer"
        yield Claim(text, "unchanged", numbers(one.test_accuracy), bool(abs(change) <= SAME), OURS)
    own = found[(found.data == data) & found.gap.notna()]
    text = f"{data}: no objective lies below the GUFM's optimum"
    if own.empty:
        return
    yield from owned(THEOREM, Claim(text, "gap > 0", f"{own.gap.min():.3f} at least", bool((own.gap > 0).all())))


def _falls(text: str, values: pd.Series, owner: str) -> Claim:
    falls = all(after < before for before, after in pairwise(values))
    return Claim(text, f"at every step of L = {', '.join(map(str, values.index))}", numbers(values), falls, owner)


def _said(kind: str) -> str:
    return KINDS[kind][0].replace(r"$\lambda/L$", "lambda/L").replace(r"$2\lambda/L$", "2 lambda/L")


def measurements(results: Sequence[Result]) -> list[Measurement]:
    """Slopes of all kinds, and what was seen before beside what is seen now."""
    found, made = table(results), []
    for data in found.data.unique():
        for kind in KINDS:
            rows = _rising(found, data, kind)
            if len(rows) > 1:
                note = "the paper's is about -0.335 over its range" if kind == "one" else ""
                made.append(
                    Measurement(f"{data}: slope of log NC1 in log L, {_said(kind)}", f"{slope(rows, 'nc1'):.2f}", note)
                )
    return made


def tables(results: Sequence[Result]) -> dict[str, pd.DataFrame]:
    """Every network; and mean and std over seeds, beside what was seen before."""
    found = table(results)
    keys = ["data", "kind", "depth"]
    grouped = found.groupby(keys, sort=False)
    shown = [column for column in COLUMNS if column not in (*keys, "seed")]
    summary = grouped[shown].mean().join(grouped[shown[:3]].std().add_suffix("_std")).reset_index()
    summary.insert(3, "seeds", grouped.size().to_numpy())
    short = {result.config.data.name for result in results if result.config.backbone.epochs != 600}
    for place, name in enumerate(("nc1", "nc3", "gap")):
        summary[f"{name}_seen_before"] = [
            SEEN.get(kind, {}).get(depth, (nan,) * 3)[place] if data == "digits" and data not in short else nan
            for data, kind, depth in zip(summary.data, summary.kind, summary.depth, strict=True)
        ]
    return {"depth": summary, "depth_networks": found}


def draw(results: Sequence[Result]) -> "dict[str, Figure]":
    """F1: NC1-3 against L; F2: the gap, its parts, and the objective over steps."""
    completed = [result for result in results if result.completed]
    return figures("depth", completed, _collapse) | figures("depth_gap", completed, _gap)


def _looks() -> Iterator[tuple[str, str, str, str]]:
    """Kind, colour, marker and dashes."""
    return zip(KINDS, style.PALETTE, style.MARKERS, style.LINES, strict=False)


def _collapse(results: Sequence[Result]) -> "Figure":
    found, (data, *_) = table(results), by_data(results)
    title = f"Residual MLPs on {data}: collapse at the end against depth (mean and std over seeds)"
    with Sheet(1, len(MEASURES), title=title, height=1.2, width=1.2) as sheet:
        for axes, (name, label) in zip(sheet.row(0), MEASURES.items(), strict=True):
            sheet.legend(_lines(axes, found, name))
            axes.set(xscale="log", yscale="log", xlabel="blocks $L$", ylabel=label)
            marks.numbered(axes, sorted(found.depth.unique()))
    return sheet.figure


def _lines(axes: "Axes", found: pd.DataFrame, name: str) -> list:
    """Mean and std against L, a line per kind; returns the entries of a legend."""
    handles = []
    for kind, color, marker, dashes in _looks():
        by_depth = found[found.kind == kind].groupby("depth")[name]
        middle, spread = by_depth.mean(), by_depth.std().fillna(0)
        if len(middle):
            axes.plot(middle.index, middle, color=color, marker=marker, linestyle=dashes)
            axes.fill_between(middle.index, middle - spread, middle + spread, color=color, **style.BAND)
            handles.append(marks.line(KINDS[kind][0], color, dashes, marker=marker))
    return handles


def _gap(results: Sequence[Result]) -> "Figure":
    found, (data, *_) = table(results), by_data(results)
    title = f"Residual MLPs on {data}: objective over that of features of fixed norm (GUFM), and its parts"
    with Sheet(1, 4, title=title, height=1.2) as sheet:
        all_kinds, one, two, steps = sheet.row(0)
        sheet.legend(_lines(all_kinds, found, "gap"))
        all_kinds.set(xscale="log", yscale="log", xlabel="blocks $L$", ylabel="objective / GUFM - 1")
        for axes, kind in ((one, "one"), (two, "two")):
            sheet.tag(axes, KINDS[kind][0])
            sheet.legend(_parts(axes, found[found.kind == kind]))
        for axes in (all_kinds, one, two):
            marks.numbered(axes, sorted(found.depth.unique()))
        deepest = found.depth.max()
        sheet.tag(steps, f"$L = {deepest}$, seed {found.seed.min()}")
        _descents(
            steps, [r for r in results if r.config.backbone.depth == deepest and r.config.seed == found.seed.min()]
        )
    return sheet.figure


def _parts(axes: "Axes", found: pd.DataFrame) -> list:
    """Returns the entries of a legend."""
    parts = {"blocks": "penalty of the blocks", "classifier": "penalty of the classifier", "fit": "cross-entropy"}
    averaged, bottom, handles = found.groupby("depth")[[*parts]].mean(), 0.0, []
    for (name, label), shade in zip(parts.items(), style.shades(len(parts)), strict=True):
        if len(averaged):
            axes.fill_between(averaged.index, bottom, bottom + averaged[name], color=shade, alpha=0.75, linewidth=0)
            bottom = bottom + averaged[name]
        handles.append(marks.box(label, shade))
    axes.axhline(1, **style.OPTIMUM)
    axes.set(xscale="log", xlabel="blocks $L$", ylabel="objective / GUFM, stacked")
    return [*handles, marks.line("GUFM", **style.OPTIMUM)]


def _descents(axes: "Axes", results: Sequence[Result]) -> None:
    looks = {kind: (color, dashes) for kind, color, _, dashes in _looks()}
    for result in results:
        values, (color, dashes) = curve(result, None, "objective"), looks[kind_of(result)]
        axes.plot(values.index[1:], values.iloc[1:] / optimum_of(result), color=color, linestyle=dashes)
    axes.set(xscale="log", yscale="log", xlabel="epoch", ylabel="objective / GUFM")


STUDY = Study(
    name="depth",
    group=GROUP,
    title="residual networks: collapse against depth, for blocks of one and two layers",
    versions={FULL: (*POINTS, *DIGITS), CPU: DIGITS, QUICK: QUICK_POINTS},
    draw=draw,
    claims=claims,
    measurements=measurements,
    tables=tables,
)
