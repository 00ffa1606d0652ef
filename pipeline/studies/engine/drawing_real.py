"""The figures of E3 and E4: collapse over training, through all layers at the end, and against the head's settings."""

from collections.abc import Callable, Sequence
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from pipeline.studies.engine.drawing import plot_seeds
from pipeline.studies.engine.runs import Result
from pipeline.studies.engine.tables_real import accuracy, chain_of, images, swept, variant
from pipeline.views.figures import (
    OPTIMUM,
    STYLE,
    TEST_COLOR,
    TITLES,
    TRAIN_COLOR,
    layer_colors,
    plain_ticks,
    plot_over_steps,
    plot_profile,
)

NAMES = {
    "end_to_end_dufm": "end to end,\nDUFM's penalties",
    "end_to_end_standard": "end to end,\nstandard decay",
    "frozen_features": "head on\nfrozen features",
    "fixed_head": "backbone under\na fixed head",
    "untrained_backbone": "head on an\nuntrained backbone",
}


def draw_e3(results: Sequence[Result]) -> dict[str, Figure]:
    """Two figures per backbone and pair of classes, of its deepest head, by file name."""
    figures = {}
    for pair in dict.fromkeys((images(result), result.config.backbone.name) for result in results):
        own = [r for r in results if (images(r), r.config.backbone.name) == pair and r.completed]
        if not own:
            continue
        deepest = max(result.config.head.depth for result in own)
        own = [result for result in own if result.config.head.depth == deepest]
        name = "e3_" + "_".join(pair).replace(" ", "_").replace("/", "_")
        figures[f"{name}_training"] = over_training(own, pair)
        figures[f"{name}_layers"] = through_layers(own, pair)
    return figures


def over_training(results: Sequence[Result], pair: tuple[str, str]) -> Figure:
    """DNC1-3 of every layer over training: one row per protocol, and one for the backbone before it is frozen."""
    variants = list(dict.fromkeys(map(variant, results)))
    rows = [(name, "head") for name in variants]
    rows += [("frozen_features", "backbone")] if "frozen_features" in variants else []
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(11, 2.2 * len(rows) + 0.9), layout="constrained")
        grid = figure.subplots(len(rows), 3, squeeze=False)
        for (name, stage), line in zip(rows, grid, strict=True):
            own = [result for result in results if variant(result) == name]
            frame = record_of(own)
            frame = frame[(frame.stage == stage) & ((stage == "head") | (frame.tap == "post"))]
            colors = layer_colors(list(dict.fromkeys(frame[frame.layer != ""].layer)))
            for metric, axes in zip(TITLES, line, strict=True):
                if (frame.metric == metric).any():
                    plot_over_steps(frame, metric, axes, stage, colors, own[0].summary["step_units"][stage])
                else:
                    axes.axis("off")  # a block has no weight matrix of the head's kind, hence no DNC3
            text = NAMES[name] if stage == "head" else "the backbone\nthat is frozen"
            line[0].set_ylabel(text, fontweight="bold")
            line[2].legend(handles=_layer_handles(colors, stage), loc="center left", bbox_to_anchor=(1.01, 0.5))
        for axes in grid[1:].flat:
            axes.set_title("")
        depth, networks = results[0].config.head.depth, _networks(results)
        figure.suptitle(
            f"{pair[0]}, {pair[1]}, L = {depth}, training images: geometric mean over {networks}, shaded from "
            "smallest to largest (solid: after the activation, dashed: before)"
        )
    return figure


def through_layers(results: Sequence[Result], pair: tuple[str, str]) -> Figure:
    """DNC1-3 at the end against the layer, backbone blocks and head layers together, training and test images."""
    variants = list(dict.fromkeys(map(variant, results)))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(11, 2.5 * len(variants) + 0.9), layout="constrained")
        grid = figure.subplots(len(variants), 3, squeeze=False)
        for name, line in zip(variants, grid, strict=True):
            own = [result for result in results if variant(result) == name]
            frame = record_of(own)
            for metric, axes in zip(TITLES, line, strict=True):
                plot_profile(frame, metric, axes, getattr(own[0].config.verdict, metric))
            line[0].set_ylabel(NAMES[name], fontweight="bold")
        figure.legend(handles=_split_handles(), loc="outside lower center", ncols=5)
        for axes in grid[1:].flat:
            axes.set_title("")
        depth, networks = results[0].config.head.depth, _networks(results)
        figure.suptitle(f"{pair[0]}, {pair[1]}, L = {depth}, at the end: mean over {networks}, bars span them")
    return figure


SWEEPS: dict[str, tuple[str, str, Callable[[Result], Any], bool]] = {
    # name -> (title, axis, value of a run, logarithmic)
    "decay": ("decay of head (DUFM's penalties)", "head.weight_decay", lambda r: r.config.head.weight_decay, True),
    "standard": ("decay of all weights", "optimizer.weight_decay", lambda r: r.config.optimizer.weight_decay, True),
    "width": ("width", "head.width", lambda r: r.config.head.width, True),
    "depth": ("depth", "head.depth", lambda r: r.config.head.depth, False),
    "lr": ("learning rate", "optimizer.lr", lambda r: r.config.optimizer.lr, True),
    "activation": ("activation", "head.activation", lambda r: r.config.head.activation, False),
}


def draw_e4(results: Sequence[Result]) -> dict[str, Figure]:
    """The last layer's DNC1-3 and the accuracy against every setting, training and test images."""
    sweeps = {name: own for name in SWEEPS if (own := swept(results, name))}
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(2.5 * len(sweeps), 8.5), layout="constrained")
        grid = figure.subplots(4, len(sweeps), squeeze=False, sharey="row")
        for (name, own), column in zip(sweeps.items(), grid.T, strict=True):
            title, key, value, logarithmic = SWEEPS[name]
            values = sorted({value(result) for result in own}, key=lambda v: (isinstance(v, str), v))
            at = {v: (v if logarithmic or not isinstance(v, str) else index) for index, v in enumerate(values)}
            for metric, axes in zip((*TITLES, "accuracy"), column, strict=True):
                for split, color in (("train", TRAIN_COLOR), ("test", TEST_COLOR)):
                    seeds = [[_last(r, metric, split) for r in own if value(r) == v] for v in values]
                    plot_seeds(axes, [at[v] for v in values], [np.array(s) for s in seeds], color=color)
                _decorate(axes, metric, own)
                if logarithmic:
                    axes.set_xscale("log")
                axes.set_xticks(list(at.values()), [f"{v:g}" if not isinstance(v, str) else v for v in values])
                axes.minorticks_off()
                axes.tick_params(axis="x", labelsize=6)
            column[0].set_title(title)
            column[-1].set_xlabel(key)
        for metric, axes in zip((*TITLES, "accuracy"), grid[:, 0], strict=True):
            axes.set_ylabel(metric.upper() if metric in TITLES else metric, fontweight="bold")
        figure.legend(handles=_split_handles()[:1] + _split_handles()[2:3], loc="outside lower center", ncols=2)
        config = results[0].config
        figure.suptitle(
            f"{images(results[0])}, {config.backbone.name}, backbone and head trained together: last layer of the head "
            f"after {config.backbone.epochs} epochs, {_networks(results)} per setting (line: median)"
        )
    return {"e4": figure}


def record_of(results: Sequence[Result]) -> pd.DataFrame:
    """The records of several runs, which differ in their seeds, as one; what led to a fixed head left out."""
    frame = pd.concat([result.record for result in results])
    return frame[frame.stage != "dufm"]


def _networks(results: Sequence[Result]) -> str:
    """How many networks (seeds) there are of every setting, in words."""
    count = len({result.config.seed for result in results})
    return f"{count} network" + "s" * (count != 1)


def _last(result: Result, metric: str, split: str) -> float:
    if metric == "accuracy":
        return accuracy(result, split)
    return chain_of(result, metric if split == "train" else f"test_{metric}")[-1]


def _decorate(axes: Axes, metric: str, results: Sequence[Result]) -> None:
    if metric == "accuracy":
        return
    axes.set_yscale("log")
    plain_ticks(axes)
    axes.axhline(getattr(results[0].config.verdict, metric), color="grey", linewidth=0.8, linestyle="-.")
    if metric == "dnc2":
        axes.axhline(1.0, **OPTIMUM)


def _layer_handles(colors: dict[str, Any], stage: str) -> list[Line2D]:
    names = {layer: f"layer {layer}" if stage == "head" else layer.removeprefix("network.") for layer in colors}
    return [Line2D([], [], color=color, label=names[layer]) for layer, color in colors.items()]


def _split_handles() -> list[Line2D]:
    dot = {"linestyle": "", "markersize": 4}
    return [
        Line2D([], [], color=TRAIN_COLOR, marker="o", label="training images", **dot),
        Line2D([], [], color=TRAIN_COLOR, marker="s", fillstyle="none", label="before the activation", **dot),
        Line2D([], [], color=TEST_COLOR, marker="o", label="test images", **dot),
        Line2D([], [], color=TEST_COLOR, marker="s", fillstyle="none", label="before the activation", **dot),
        Line2D([], [], color="grey", linewidth=0.8, linestyle="-.", label="threshold"),
    ]
