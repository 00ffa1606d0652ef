"""Depth: residual networks collapse further the deeper they are, if moving a representation gets cheaper with depth.

Paper: Sukenik, Lampert, Mondelli, arXiv 2505.15239 (abstract and summaries read).
Shows: NC1, NC2, NC3 against the number of blocks L (F1); objective over the optimum of features of fixed norm (GUFM),
    and its parts (F2); objective over steps; NC1-3 and the gap of a transformer on patches (F3).
Expects: NC1-3 fall with L for blocks of one linear layer, of a transformer too, and for two with a decay ~ 1/L; with a
    constant decay two layers keep more than half of NC1. The gap to the GUFM falls. Accuracy stays.
Evidence: docs/reproduction/beyond.md and depth*.csv there.
    Command: scripts/reproduce depth --cpu
    Machine: one of 2 shared cores of an x86-64 processor, no GPU, float32, torch 2.14.1. The full version: not run.
    Date: 2026-11-27. Commit of the code: the one that brought this file.
Provenance: sets, depths, width, rate, decays, epochs and seeds of the full version are the paper's; its optimizer and
    number of images are not in what was read. Place of the norm, start, digits and thresholds ours; GUFM derived
    (`pipeline.theory.gufm_optimum`). The transformer (L-T1x) has one linear layer in attention and one in the MLP,
    without biases and gains (`backbone=patch_transformer`); patches of 4 x 4 pixels and the mean over tokens ours.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from math import nan

import pandas as pd

from pipeline.studies._depth import (
    COLUMNS,
    CPU_POINTS,
    DIGITS,
    KINDS,
    MEASURES,
    POINTS,
    QUICK_POINTS,
    TRANSFORMER,
    rising,
    slope,
    table,
)
from pipeline.studies._depth_drawing import draw
from pipeline.studies._measured import numbers
from pipeline.studies.engine.claims import ABSTRACT, OURS, THEOREM, Claim, Measurement, owned
from pipeline.studies.engine.results import Result
from pipeline.studies.engine.study import CPU, FULL, QUICK, Study
from pipeline.studies.kernels import GROUP

SLOPES, HALF, SAME = (-1.0, -0.2), 0.5, 0.02
"""Of log NC1 in log L; of NC1 that is left; of accuracies that count as unchanged."""
SEEN = {
    "one": {2: (0.655, 0.314, 2.75), 5: (0.450, 0.223, 1.95), 13: (0.229, 0.120, 1.05), 21: (0.162, 0.092, 0.82)},
    "two": {2: (0.623, nan, 3.18), 5: (0.533, nan, 3.23), 13: (0.481, nan, 3.10), 21: (0.490, nan, 3.04)},
    "two_twice": {2: (0.623, nan, nan), 5: (0.445, nan, nan), 13: (0.316, nan, nan), 21: (0.268, nan, nan)},
}
"""NC1, NC3 and gap by kind and L, as the specification has seen them on the first 40 images of each digit, each pixel
less its mean, with a classifier that starts as N(0, 1/d). Here images are drawn, and pixels have one mean."""


def claims(results: Sequence[Result]) -> list[Claim]:
    """The trends with L that the paper names, and that no objective lies below the GUFM's optimum."""
    found = table(results)
    return [claim for data in found.data.unique() for claim in _claims(data, found)]


def _claims(data: str, found: pd.DataFrame) -> Iterator[Claim]:
    for kind in ("one", "two_over_depth", "two_twice", TRANSFORMER):
        rows = rising(found, data, kind)
        for name in MEASURES if len(rows) > 1 else ():
            yield _falls(f"{data}: {name.upper()} falls with L, {_said(kind)}", rows[name], ABSTRACT)
    one, constant = rising(found, data, "one"), rising(found, data, "two")
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
    own = rising(found, data, TRANSFORMER)
    if len(own) > 1 and own.gap.notna().all():
        yield _falls(f"{data}: gap to the GUFM falls with L, {_said(TRANSFORMER)}", own.gap, ABSTRACT)
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
            rows = rising(found, data, kind)
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


STUDY = Study(
    name="depth",
    group=GROUP,
    title="residual networks and transformers: collapse against depth, for blocks of one and two layers",
    versions={FULL: (*POINTS, *DIGITS), CPU: CPU_POINTS, QUICK: QUICK_POINTS},
    draw=draw,
    claims=claims,
    measurements=measurements,
    tables=tables,
)
