"""Shallow networks, trained: whether they reach what collapse costs at least where it is attainable, and nowhere else.

Paper: Hong & Ling, arXiv 2409.01832 (abstract read): with two layers a condition on data, dimension and signal, not
    on the width; with three collapse as soon as the first layer is wide enough; collapse implies no generalisation.
Shows: gap to the bound and DNC1 of the best of ten starts against the dimension, two losses and three widths (F2); of
    three layers against the width of the first at d = 3 (F3); pairs of MNIST and CIFAR-10 classes (F5).
Expects: a gap of at most 1e-3 if and only if collapse is attainable, at every width and under both losses; with three
    layers from a first layer of about N units on; on images wherever the rows are linearly independent.
Evidence: docs/reproduction/beyond.md and shallow_networks*.csv there.
    Command: scripts/reproduce shallow_networks --cpu
    Machine: 2 shared cores of an x86-64 processor, no GPU, float64, torch 2.14.1.
    Date: 2026-11-27. Commit of the code: the one that brought this file.
Provenance: condition and bound derived (`pipeline.theory.attainability`, `ufm_nonnegative`); decays, widths, sizes,
    starts and L-BFGS ours. Where nothing is attainable, "the best found" is no minimum that is proven.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from pipeline.studies.engine.claims import ABSTRACT, OURS, THEOREM, Claim, owned
from pipeline.studies.engine.results import Point, Result
from pipeline.studies.engine.study import CPU, FULL, QUICK, Grid, Study, shrunk
from pipeline.studies.kernels import GROUP
from pipeline.views import marks, style
from pipeline.views.sheet import Sheet

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LOSSES = {"mse": "mean squared error", "cross_entropy": "cross-entropy"}
WIDTHS = (2, 16, 256)
DIMS, FEW_DIMS = (16, 18, 20, 22, 24, 26, 28, 30, 34, 38, 40, 44), (18, 24, 28, 34, 40)
FIRST = (4, 16, 64, 256)
LAST = 16
REACHED = 1e-3
MIXTURE = ("data.num_classes=2", "data.snr=2", "data.test=500")


def _two(dims: Sequence[int], *more: str) -> tuple[Point, ...]:
    hidden = tuple(f"[{width}]" for width in WIDTHS)
    return tuple(
        Grid("two", {"head.loss": LOSSES, "protocol.hidden": hidden, "data.dim": dims}, (*MIXTURE, *more)).points()
    )


THREE = tuple(Point(f"three-{width}", (*MIXTURE, f"protocol.hidden=[{width},{LAST}]", "data.dim=3")) for width in FIRST)


def _pixels(name: str, classes: str, *sizes: int) -> tuple[Point, ...]:
    how = (f"data={name}", f"data.classes={classes}", "head.loss=mse")
    return tuple(Point(f"{name}-n_{size}", (*how, f"data.samples_per_class={size}")) for size in sizes)


PIXELS = (*_pixels("mnist", "[4,9]", 50, 150), *_pixels("cifar10", "[0,1]", 50))
POINTS = (*_two(DIMS, "protocol.repeats=5"), *THREE, *PIXELS)
CPU_POINTS = (*_two(FEW_DIMS), *THREE, *PIXELS)
QUICK_NAMES = ("two-loss_mse-hidden_16-dim_18", "two-loss_mse-hidden_16-dim_34", "three-64", "mnist-n_50")
QUICK_POINTS = shrunk(CPU_POINTS, QUICK_NAMES, ("protocol.starts=5", "protocol.iterations=150"))
MISSED = (
    "stationary points far from the bound: networks as narrow as there are classes miss data in all ten starts, and "
    "under cross-entropy so do those of 16 units"
)
REASONS = {
    "error, attainable: best": MISSED + "; at width 256 and d = 40 the 400 iterations end at a gap of .0012",
    "entropy, attainable: best": MISSED,
    "share of starts": MISSED,
    "does not depend on the width": MISSED + "; no network of any width reaches the bound where it is not attainable",
}


def table(results: Sequence[Result]) -> pd.DataFrame:
    """One row per point and draw: what was trained, whether collapse is attainable, and what was reached."""
    rows = []
    for result in results:
        config, record = result.config, result.record
        network = record[record.layer == "network"].pivot(index="seed", columns="metric", values="value")
        whole = record[record.layer.fillna("") == ""].pivot(index="seed", columns="metric", values="value")
        for seed, draw in whole.iterrows():
            found = network.loc[seed].to_dict() if seed in network.index else {}
            hidden = config.protocol.hidden or []
            rows.append(
                {
                    "point": result.point.name,
                    "data": config.data.name,
                    "loss": config.head.loss,
                    "layers": len(hidden) + 1,
                    "first": hidden[0] if hidden else math.nan,
                    "dim": config.data.dim if config.data.name == "mixture" else math.nan,
                    "samples": config.data.samples_per_class,
                    "seed": seed,
                    "rank": draw["rank"],
                    "attainable": bool(draw["attainable"]),
                    **{name: found.get(name, math.nan) for name in ("gap", "dnc1", "reached", "accuracy")},
                }
            )
    return pd.DataFrame(rows)


def claims(results: Sequence[Result]) -> list[Claim]:
    """The bound is none to go below, it is reached where it can be, at any width; three layers; images; accuracy."""
    found = table(results)
    trained, images = found[found.gap.notna()], found[found.data != "mixture"]
    two, three = trained[trained.layers == 2], trained[trained.layers == 3]
    made = []
    if len(trained):
        least = trained.gap.min()
        made += owned(THEOREM, Claim("no network below the bound", ">= 0", f"{least:.2g}", bool(least >= -1e-9)))
    for loss, title in LOSSES.items():
        some = two[two.loss == loss]
        if len(some):
            made += owned(OURS, *_if_and_only_if(title, some))
    if len(two):
        made += owned(ABSTRACT, _whatever_the_width(two), _no_link(two))
    if len(three):
        wide, narrow = three[three["first"] >= 64], three[three["first"] < 40]
        made += owned(ABSTRACT, _reaching("three layers, d = 3, first layer of 64 units or more", wide, True))
        made += owned(OURS, _reaching("three layers, d = 3, first layer of fewer units than samples", narrow, False))
    if len(images):
        free = images[images["rank"] >= 2 * images.samples]
        text = "pairs of image classes: attainable where rows are linearly independent"
        measured = f"{int(free.attainable.sum())} of {len(free)} of {len(images)} sets of images"
        made += owned(THEOREM, Claim(text, "all", measured, bool(free.attainable.all()) if len(free) else None))
    return made


def _if_and_only_if(title: str, some: pd.DataFrame) -> list[Claim]:
    can, cannot = some[some.attainable], some[~some.attainable]
    made = [_reaching(f"{title}, attainable", can, True), _reaching(f"{title}, not attainable", cannot, False)]
    if len(can):
        share = can.reached
        text = f"{title}, attainable: share of starts that reach it, smallest over points"
        made.append(Claim(text, "> 0", f"{share.min():.2g}, mean {share.mean():.2g}", bool(share.min() > 0)))
    return made


def _reaching(text: str, some: pd.DataFrame, wanted: bool) -> Claim:
    """Of the best starts of some points."""
    reached = some.gap <= REACHED
    measured = f"{int((reached == wanted).sum())} of {len(some)} points"
    if len(some):
        measured += f", gaps {some.gap.min():.2g} to {some.gap.max():.2g}"
    expected = f"gap {'<=' if wanted else '>'} {REACHED:g}"
    return Claim(
        f"{text}: best of the starts", expected, measured, bool((reached == wanted).all()) if len(some) else None
    )


def _whatever_the_width(two: pd.DataFrame) -> Claim:
    """Whether the points that reach the bound are the same at every width."""
    reached = two.assign(reached=two.gap <= REACHED).pivot_table(
        index=["loss", "dim", "seed"], columns="first", values="reached", aggfunc="max"
    )
    alike = (reached.nunique(axis=1) == 1).sum()
    text = "two layers: which data reach the bound does not depend on the width"
    holds = bool(alike == len(reached)) if reached.shape[1] > 1 else None
    return Claim(text, "the same at every width", f"{alike} of {len(reached)} data sets and losses", holds)


def _no_link(two: pd.DataFrame) -> Claim:
    """Whether collapsed networks generalise no better: accuracy of those at the bound against the others."""
    there, others = two[two.gap <= REACHED].accuracy, two[two.gap > REACHED].accuracy
    text = "two layers: test accuracy of collapsed networks against that of the others"
    if there.empty or others.empty:
        return Claim(text, "no better by .1", "one kind alone", None)
    measured = f"{there.mean():.2f} ({len(there)}) against {others.mean():.2f} ({len(others)})"
    return Claim(text, "no better by .1", measured, bool(there.mean() <= others.mean() + 0.1))


def draw(results: Sequence[Result]) -> "dict[str, Figure]":
    """F2: gap and DNC1 against the dimension by width, a column per loss; F3: against the first of three layers."""
    found = table(results)
    trained = found[found.gap.notna()]
    two, three = trained[trained.layers == 2], trained[trained.layers == 3]
    if trained.empty:
        return {}
    with Sheet(2, 3, title="Best of the starts: gap to the bound, and scatter within classes", height=1.1) as sheet:
        for column, (loss, title) in enumerate(LOSSES.items()):
            sheet.tag(sheet[0, column], f"two layers, {title}")
            _column(sheet, column, two[two.loss == loss], "dim", "dimension $d$")
        sheet.tag(sheet[0, 2], "three layers, $d = 3$")
        _column(sheet, 2, three.assign(width=LAST), "first", "width of the first layer")
        sheet.legend([marks.line(rf"gap {REACHED:g}", **style.OPTIMUM)])
    return {"shallow_networks": sheet.figure}


FLOOR = 1e-12
"""Where smaller values are drawn."""


def _column(sheet: Sheet, column: int, some: pd.DataFrame, key: str, label: str) -> None:
    """Gap above DNC1; open dots where collapse is not attainable."""
    for row, (metric, ylabel) in enumerate((("gap", "gap to the bound"), ("dnc1", "DNC1"))):
        axes = sheet[row, column]
        if some.empty:
            sheet.note(axes, "no such runs")
        by = "first" if key == "dim" else "width"
        for (width, own), color, marker in zip(some.groupby(by), style.PALETTE, style.MARKERS, strict=False):
            own = own.sort_values(key)
            values = np.maximum(own[metric].to_numpy(float), FLOOR)
            axes.plot(own[key], values, color=color, linewidth=0.8)
            for can in (True, False):
                chosen = (own.attainable if key == "dim" else own.gap <= REACHED).to_numpy() == can
                marks.dots(axes, own[key].to_numpy()[chosen], values[chosen], color, marker, filled=can)
            if key == "dim" and row == 0:
                sheet.legend([marks.dot(f"$D = {width:g}$ (open: not attainable)", color, marker)])
        if metric == "gap":
            axes.axhline(REACHED, **style.OPTIMUM)
        axes.set(yscale="log", xlabel=label, ylabel=ylabel)
        if key == "first":
            axes.set_xscale("log")
            marks.numbered(axes, FIRST)


STUDY = Study(
    name="shallow_networks",
    group=GROUP,
    title="trained networks of two and three layers: the bound is reached where it is attainable",
    versions={FULL: POINTS, CPU: CPU_POINTS, QUICK: QUICK_POINTS},
    draw=draw,
    claims=claims,
    reasons=REASONS,
    tables=lambda results: {"shallow_networks": table(results)},
)
