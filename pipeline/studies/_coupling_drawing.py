"""Figures of the study of coupling."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipeline.studies._coupling import (
    COLORS,
    STRONG,
    by_depth,
    last_of,
    m_curve,
    matrix,
    mean_of,
    named,
    near,
    of_depths,
    scattered,
)
from pipeline.studies._measured import curve, end, places
from pipeline.studies.engine.results import Result
from pipeline.views import marks, style
from pipeline.views.sheet import Sheet

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def draw(results: Sequence[Result]) -> "dict[str, Figure]":
    """Matrices before and after training; curves, trends, accuracy."""
    deepest = max((r.config.backbone.depth for r in of_depths(results)), default=0)
    shown = [r for r in of_depths(results) if r.config.backbone.depth == min(deepest, 13)]
    shown += (
        named(results, "no_skip")
        + [r for r in named(results, "vit-") if r.point.name != "vit-n10"]
        + named(results, "cifar10")
    )
    return {"coupling_matrices": _matrices(shown), "coupling": _overview(results)}


def _matrices(shown: Sequence[Result]) -> "Figure":
    title = "Coupling of blocks $m_K(J_l, J_{l'})$: 0 coupled, 1 unrelated"
    with Sheet(2, len(shown), title=title, height=0.9, width=0.8) as sheet:
        for column, result in enumerate(shown):
            for axes, at, when in zip(sheet.column(column), (0, -1), ("before", "after"), strict=True):
                found = matrix(result, at)
                edges = (0.5, len(found) + 0.5, len(found) + 0.5, 0.5)
                image = axes.imshow(found, cmap=style.SEQUENTIAL, vmin=0, vmax=1.2, extent=edges)
                axes.grid(visible=False)
                axes.set(xlabel="block $l'$", ylabel=f"$l$, {when}")
                for axis in (axes.xaxis, axes.yaxis):
                    axis.get_major_locator().set_params(integer=True)
                sheet.tag(axes, _called(result) if at == 0 else f"mean {mean_of(found):.2f}")
        sheet.figure.colorbar(image, ax=list(sheet.panels()), shrink=0.6, label="coupling $m_K$")
    return sheet.figure


def _called(result: Result) -> str:
    if "no_skip" in result.point.name:
        return "no skip"
    decay = f"decay {result.config.optimizer.weight_decay:g}"
    if result.point.name.startswith("vit"):
        return "ViT, AdamW" if result.config.optimizer.name == "adamw" else f"ViT, {decay}"
    return decay if result.point.name.startswith("L") else result.point.name.removeprefix("cifar10-")


def _overview(results: Sequence[Result]) -> "Figure":
    with Sheet(2, 3, title="Coupling of residual blocks beside collapse", width=1.3) as sheet:
        (over, line, collapse), (depth, beside, accuracy) = sheet.row(0), sheet.row(1)
        five = by_depth(results).get(5, {})
        made = {float(result.config.optimizer.weight_decay) for result in of_depths(results)}
        for decay, color in COLORS.items():
            if decay in made:
                sheet.legend([marks.line(f"decay {decay:g}", color, marker="o")])
            if (result := five.get(decay)) is None:
                continue
            values = m_curve(result)
            over.plot(values.index, values.values, color=color, marker="o")
            values = curve(result, last_of(result), "line_shape_score")
            line.plot(values.index, values.values, color=color, marker="o")
        over.set(xlabel="epoch", ylabel="coupling m, L = 5")
        line.set(xlabel="epoch", ylabel="line shape score, L = 5")
        _collapse(sheet, collapse, five.get(STRONG))
        _trend(depth, results)
        for result in of_depths(results):
            at = [near(matrix(result))], [end(result, last_of(result), "dnc1")]
            marks.dots(beside, *at, COLORS[float(result.config.optimizer.weight_decay)])
        beside.set(xlabel="coupling m", ylabel="NC1 of the last block", yscale="log")
        handles = _scatter(accuracy, scattered(results))
        if not handles:
            sheet.drop(accuracy)
        sheet.legend(handles)
    return sheet.figure


def _collapse(sheet: Sheet, axes: "Axes", result: Result | None) -> None:
    if result is None:
        sheet.drop(axes)
        return
    blocks = places(result)
    ends = []
    for number, (place, color) in enumerate(zip(blocks, style.greys(len(blocks)), strict=True), start=1):
        values = curve(result, place, "dnc1")
        axes.plot(values.index, values.values, color=color)
        ends.append((float(values.iloc[-1]), f"block {number}", {"color": color}))
    axes.set(xlabel="epoch", ylabel=f"NC1, L = 5, decay {STRONG:g}", yscale="log")
    sheet.name_ends(axes, ends)


def _trend(axes: "Axes", results: Sequence[Result]) -> None:
    table = by_depth(results)
    for decay, color in COLORS.items():
        found = [(depth, near(matrix(own[decay]))) for depth, own in table.items() if decay in own]
        if found:
            axes.plot(*zip(*found, strict=True), color=color, marker="o")
    axes.set(xlabel="number of blocks L", ylabel="coupling m after training", ylim=(0, 1.1))
    marks.numbered(axes, list(table))


def _scatter(axes: "Axes", found: Sequence[tuple[float, float, float]]) -> list:
    handles = []
    noises = sorted({noise for *_, noise in found})
    for noise, color, marker in zip(noises, style.PALETTE, style.MARKERS, strict=False):
        own = [(-m, accuracy) for m, accuracy, other in found if other == noise]
        marks.dots(axes, *zip(*own, strict=True), color, marker)
        handles.append(marks.dot(f"{noise:.0%} wrong labels", color, marker))
    axes.set(xlabel="minus coupling, $-m$", ylabel="test accuracy")
    return handles
