"""Linguistic collapse: a language model's class means spread and align with its unembedding as it predicts better.

Paper: arXiv 2405.17767 (linguistic collapse: neural collapse in (large) language models).
Shows: loss on held-out text against log CDNV, variation of the log kernel (GNC2), variation of the duality (UNC3) and
    agreement with the nearest class mean (NC4), one point per network.
Expects: all four go with the loss; equinorm and mean duality do not, in large models.
Evidence: docs/reproduction/measures.md and linguistic*.csv there.
    Command: scripts/reproduce linguistic --cpu
    Machine: one of 2 shared cores of an x86-64 processor, no GPU, float32, torch 2.14.1.
    Date: 2026-11-27. Commit of the code: the one that brought this file.
Provenance: definitions and squared correlations (230 models, TinyStories) read in the code and its released table; text
    (Python's reference, 500 words), transformer, optimiser and widths ours. `<unk>` is a class like the others here.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from pipeline.metrics import sphere_kernel_log
from pipeline.studies._measured import CLASSIFIER, COMMON, GROUP, end, figures, numbers, tables
from pipeline.studies.engine.claims import OURS, READ, Claim, owned, reasoned
from pipeline.studies.engine.results import Point, Result
from pipeline.studies.engine.study import CPU, FULL, QUICK, Study, shrunk
from pipeline.views import marks, style
from pipeline.views.sheet import Sheet

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIZES = ((16, 1), (32, 1), (64, 1), (128, 1), (64, 2))
SMALL = tuple(
    Point(f"width_{width}-depth_{depth}", (f"backbone.width={width}", f"backbone.depth={depth}"))
    for width, depth in SIZES
)
POINTS = tuple(
    Point(
        f"words_3000-width_{width}-depth_{depth}",
        ("data.vocabulary=3000", "data.window=128", f"backbone.width={width}", f"backbone.depth={depth}"),
    )
    for width in (64, 128, 256, 512, 768, 1024)
    for depth in (1, 2, 4, 8, 12)
)
QUICK_POINTS = shrunk(SMALL, [point.name for point in SMALL[:4]], ("backbone.epochs=2", *COMMON))
MEASURES = {
    "log CDNV": ("cdnv_2", np.log, 0.916),
    "GNC2, variation of the log kernel": ("kernel_log_cov", float, 0.841),
    "UNC3, variation of the duality": ("dual_cov", float, 0.693),
    "NC4, agreement with the nearest mean": ("test_nc4", lambda value: 1 - value, 0.891),
}
"""Metric, what is drawn of it, and the squared correlation with the loss that the released table gives."""
REASONS = {"goes with the loss on held-out text": "width 64 with one layer and with two is level after 5 epochs"}
"""Why claims do not hold, by a part of their text."""
SMALLER = {"equinorm": ("norm_cov", 0.079), "mean duality": ("dual_mean", 0.312)}


def claims(results: Sequence[Result]) -> list[Claim]:
    """That each measure goes with the loss, and what small models cannot decide."""
    made, ordered = [], sorted(results, key=loss_of, reverse=True)
    for name, (metric, shown, read) in MEASURES.items():
        values = [shown(end(result, CLASSIFIER, metric)) for result in ordered]
        right = (1 if metric == "test_nc4" else -1) * np.array([after - before for before, after in pairwise(values)])
        text = f"{name} goes with the loss on held-out text (networks by falling loss)"
        made += owned(OURS, Claim(text, "monotone", numbers(values), bool(len(right)) and bool((right > 0).all())))
        squared = correlation([loss_of(result) for result in ordered], values)
        text = f"{name}: squared correlation with the loss"
        made += owned(READ, Claim(text, f"{read} in the paper; >= 0.5", f"{squared:.3f}", squared >= 0.5))
    for name, (metric, read) in SMALLER.items():
        squared = correlation([loss_of(result) for result in ordered], [end(r, CLASSIFIER, metric) for r in ordered])
        text = f"{name} does not go with the loss"
        made += owned(READ, Claim(text, f"{read} in the paper, of large models", f"{squared:.3f}", None))
    return reasoned(made, REASONS)


def draw(results: Sequence[Result]) -> "dict[str, Figure]":
    """The loss against each measure, one point per network."""
    return figures("linguistic", results, _figure)


def _figure(results: Sequence[Result]) -> "Figure":
    title = "Linguistic collapse: language models, one dot a network, by width and number of layers"
    with Sheet(1, len(MEASURES), title=title, alike=True) as sheet:
        looks, losses = _looks(results), [loss_of(result) for result in results]
        for axes, (name, (metric, shown, _)) in zip(sheet.row(0), MEASURES.items(), strict=True):
            values = [shown(end(result, CLASSIFIER, metric)) for result in results]
            for result, value, loss in zip(results, values, losses, strict=True):
                marks.dots(axes, [value], [loss], *looks[_size(result)])
            axes.set(xlabel=name, ylabel="loss on held-out text")
            if len(results) > 2:
                sheet.tag(axes, f"$R^2 = {correlation(losses, values):.2f}$")
            if metric == "kernel_log_cov":
                _even_directions(axes, results)
        sheet.legend([marks.dot(_said(size), *look) for size, look in looks.items()])
        sheet.legend([marks.line("directions spread evenly: least and greatest width", **style.OPTIMUM)])
    return sheet.figure


def _size(result: Result) -> tuple[int, int]:
    """Width and number of layers."""
    return int(result.config.backbone.width), int(result.config.backbone.depth)


def _said(size: tuple[int, int]) -> str:
    return f"width {size[0]}, {size[1]} layer{'s' * (size[1] > 1)}"


def _looks(results: Sequence[Result]) -> dict[tuple[int, int], tuple[str, str]]:
    """Size -> colour, by the width, and marker, by the number of layers."""
    sizes = sorted({_size(result) for result in results})
    widths, depths = (sorted({size[side] for size in sizes}) for side in (0, 1))
    colors = dict(zip(widths, style.shades(len(widths)), strict=True))
    markers = dict(zip(depths, style.MARKERS, strict=False))
    return {(width, depth): (colors[width], markers[depth]) for width, depth in sizes}


def loss_of(result: Result) -> float:
    """Cross-entropy on held-out text at the end."""
    return end(result, None, "test_loss")


def correlation(first: Sequence[float], second: Sequence[float]) -> float:
    """Squared Pearson correlation; NaN of fewer than three points."""
    return float(np.corrcoef(first, second)[0, 1] ** 2) if len(first) > 2 else float("nan")


def _even_directions(axes: "Axes", results: Sequence[Result]) -> None:
    """What directions spread evenly over the sphere would have, for the least and the greatest width."""
    widths = {_size(result)[0] for result in results}
    for width in sorted({min(widths), max(widths)}):
        even = sphere_kernel_log(width)
        axes.axvline(float(even.variance) ** 0.5 / abs(float(even.mean)), **style.OPTIMUM)


STUDY = Study(
    name="linguistic",
    group=GROUP,
    title="language models: class means against the loss",
    versions={FULL: (*SMALL, *POINTS), CPU: SMALL, QUICK: QUICK_POINTS},
    draw=draw,
    claims=claims,
    tables=tables(
        "linguistic", "test_loss", "cdnv_1", "cdnv_2", "kernel_log_cov", "dual_mean", "dual_cov", "norm_cov", "test_nc4"
    ),
)
