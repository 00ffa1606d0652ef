"""The figures of E1: convergence over the steps, one row per depth, and Gram matrices of the final class means."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from torch import Tensor

from pipeline import dufm
from pipeline.studies.engine.drawing import plot_spread
from pipeline.studies.engine.runs import Result
from pipeline.theory import collapsed_optimum
from pipeline.views.figures import OPTIMUM, STYLE, TITLES, layer_colors, plot_over_steps


def draw_e1(results: Sequence[Result]) -> dict[str, Figure]:
    """Both figures, by file name."""
    return {"e1_convergence": convergence(results), "e1_gram": gram_matrices(results)}


def convergence(results: Sequence[Result]) -> Figure:
    """DNC1-3 of every layer, the loss, and its gap to the optimum over the steps; one row per depth."""
    depth = max(result.config.head.depth for result in results)
    colors = layer_colors([str(layer) for layer in range(1, depth + 1)])
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(13, 2.3 * len(results) + 0.8), layout="constrained")
        grid = figure.subplots(len(results), 5, squeeze=False, sharex=True)
        for result, row in zip(results, grid, strict=True):
            for metric, axes in zip(TITLES, row, strict=False):
                plot_over_steps(result.record, metric, axes, colors=colors)
            _loss_and_gap(result, row[3], row[4])
            row[0].set_ylabel(f"L = {result.config.head.depth}", fontsize=11, fontweight="bold")
        for axes in grid[1:].flat:
            axes.set_title("")
        for axes in grid[:-1].flat:
            axes.set_xlabel("")
        figure.legend(handles=_handles(colors), loc="outside lower center", ncols=10)
        seeds = len(results[0].seeds)
        figure.suptitle(
            f"Gradient descent on the DUFM: geometric mean over {seeds} seeds, shaded from smallest to largest"
        )
    return figure


def gram_matrices(results: Sequence[Result]) -> Figure:
    """Class-mean Gram matrices M^T M of every layer of the first seed, scaled to mean diagonal 1 (1 0; 0 1 = DNC2)."""
    depth = max(result.config.head.depth for result in results)
    with matplotlib.rc_context(STYLE | {"axes.grid": False}):
        figure = Figure(figsize=(1.15 * depth + 1.6, 2.3 * len(results) + 0.5), layout="constrained")
        grid = figure.subplots(2 * len(results), depth, squeeze=False)
        for axes in grid.flat:
            axes.axis("off")
        for index, result in enumerate(results):
            pair = grid[2 * index : 2 * index + 2]
            for layer, tap, gram in _grams(result):
                # Layer 1 has no activation before it: what enters W_1 stands in the row of what enters the others.
                row = 0 if tap == "pre" and layer > 1 else 1
                name = f"$H_{{{layer}}}$" if tap == "pre" else rf"$\sigma(H_{{{layer}}})$"
                image = _heat_map(pair[row, layer - 1], gram, name)
            place = pair[0, 0]
            text = f"L = {result.config.head.depth}"
            place.text(0.5, 0.5, text, transform=place.transAxes, ha="center", fontsize=11, fontweight="bold")
        figure.colorbar(image, ax=grid, shrink=0.5, label=r"$M^\top M$, mean diagonal = 1")
        figure.suptitle("Gram matrices of the class means at the end, first seed")
    return figure


def _loss_and_gap(result: Result, loss: Axes, gap: Axes) -> None:
    rows = result.record[result.record.step > 0]
    plot_spread(rows[rows.metric == "loss"], loss, color="tab:blue")
    loss.axhline(collapsed_optimum(result.problem).loss, **OPTIMUM)
    loss.set(xscale="log", yscale="log", title="loss", xlabel="gradient step")
    plot_spread(rows[rows.metric == "relative_gap"], gap, color="tab:blue")
    gap.set(xscale="log", yscale="log", title="relative gap to the optimum", xlabel="gradient step")


def _handles(colors: Mapping[str, Any]) -> list[Line2D]:
    return [
        *(Line2D([], [], color=color, label=f"layer {layer}") for layer, color in colors.items()),
        Line2D([], [], color="grey", label="post-activation"),
        Line2D([], [], color="grey", linestyle=(0, (4, 2)), label="pre-activation"),
        Line2D([], [], **OPTIMUM, label="closed-form optimum"),
    ]


def _grams(result: Result) -> list[tuple[int, str, Tensor]]:
    """(layer, tap, (K, K)) of the first seed."""
    if not result.completed:
        return []
    weights = [result.tensors[f"weights/{layer}"][0] for layer in range(1, result.config.head.depth + 1)]
    labels, grams = result.tensors["labels"], []
    for layer, tap, entering in dufm.layer_taps(
        result.tensors["features/1"][0], weights, result.config.head.activation
    ):
        means = torch.stack([entering[labels == label].mean(dim=0) for label in labels.unique()])
        gram = means @ means.T
        grams.append((layer, tap, gram / gram.diagonal().mean()))
    return grams


def _heat_map(axes: Axes, gram: Tensor, name: str) -> matplotlib.image.AxesImage:
    axes.axis("on")
    image = axes.imshow(gram, cmap="RdBu_r", vmin=-1, vmax=1)
    for row, line in enumerate(gram.tolist()):
        for column, value in enumerate(line):
            shade = "white" if abs(value) > 0.6 else "black"
            # "+ 0" turns -0.00 into 0.00.
            axes.text(column, row, f"{round(value, 2) + 0:.2f}", ha="center", va="center", color=shade, fontsize=7)
    axes.set(xticks=[], yticks=[], title=name)
    return image
