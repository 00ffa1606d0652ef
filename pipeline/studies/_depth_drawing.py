"""Figures of the study of depth."""

from collections.abc import Iterator, Sequence
from itertools import cycle
from typing import TYPE_CHECKING

import pandas as pd

from pipeline.studies._depth import KINDS, MEASURES, MLPS, TRANSFORMER, kind_of, optimum_of, table
from pipeline.studies._measured import by_data, curve, figures
from pipeline.studies.engine.results import Result
from pipeline.views import marks, style
from pipeline.views.sheet import Sheet

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def draw(results: Sequence[Result]) -> "dict[str, Figure]":
    """F1: NC1-3 against L; F2: the gap, its parts, and the objective over steps; F3: a transformer beside an MLP."""
    completed = [result for result in results if result.completed]
    mlps = [result for result in completed if kind_of(result) in MLPS]
    beside = [result for result in completed if kind_of(result) in ("one", TRANSFORMER)]
    made = figures("depth", mlps, _collapse) if mlps else {}
    made |= figures("depth_gap", mlps, _gap) if mlps else {}
    if any(kind_of(result) == TRANSFORMER for result in beside):
        made |= figures("depth_transformer", beside, _transformers)
    return made


def _looks() -> Iterator[tuple[str, str, str, str]]:
    """Kind, colour, marker and dashes."""
    return zip(KINDS, style.PALETTE, style.MARKERS, cycle(style.LINES), strict=False)


def _collapse(results: Sequence[Result]) -> "Figure":
    found, (data, *_) = table(results), by_data(results)
    title = f"Residual MLPs on {data}: collapse at the end against depth (mean and std over seeds)"
    with Sheet(1, len(MEASURES), title=title, height=1.2, width=1.2) as sheet:
        for axes, (name, label) in zip(sheet.row(0), MEASURES.items(), strict=True):
            sheet.legend(_lines(axes, found, name))
            axes.set(xscale="log", yscale="log", xlabel="blocks $L$", ylabel=label)
            marks.numbered(axes, sorted(found.depth.unique()))
    return sheet.figure


def _transformers(results: Sequence[Result]) -> "Figure":
    found, (data, *_) = table(results), by_data(results)
    title = f"Transformers on patches of {data}, beside residual MLPs: collapse against depth (mean and std over seeds)"
    with Sheet(1, len(MEASURES) + 1, title=title, height=1.2) as sheet:
        named = {**MEASURES, "gap": "objective / GUFM - 1"}
        for axes, (name, label) in zip(sheet.row(0), named.items(), strict=True):
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
            handles.append(marks.line(_called(kind, found), color, dashes, marker=marker))
    return handles


def _called(kind: str, found: pd.DataFrame) -> str:
    """A kind in a legend; beside transformers the others are MLPs."""
    return "residual MLP, one layer" if kind == "one" and TRANSFORMER in set(found.kind) else KINDS[kind][0]


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
