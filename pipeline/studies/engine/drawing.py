"""The figures of E2, from results; and what the figures of all studies share."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from pipeline.studies.engine.claims import decay_multiple, fold_multiple, gaps, outputs, worst
from pipeline.studies.engine.runs import Result
from pipeline.theory import DufmProblem, collapsed_optimum, critical_decay, partial_loss
from pipeline.views.figures import OPTIMUM, STYLE

# Good to bad, for the values at which two classes can end.
DIAGNOSES = {
    "global optimum": "#2c7fb8",
    "metastable collapsed solution": "#7fcdbb",
    "1 of 2 classes fitted": "#fec44f",
    "zero solution": "#d95f0e",
    "none of them": "#bdbdbd",
    "diverged": "#252525",
}


def plot_spread(rows: pd.DataFrame, axes: Axes, **line: Any) -> None:
    """Value over steps: the geometric mean over seeds, shaded from the smallest to the largest seed."""
    per_step = rows[rows.value > 0].groupby("step").value
    middle = per_step.apply(lambda values: np.exp(np.log(values).mean()))
    axes.plot(middle.index, middle, **line)
    axes.fill_between(middle.index, per_step.min(), per_step.max(), color=line["color"], alpha=0.2, linewidth=0)


def plot_seeds(axes: Axes, places: Sequence[float], values: Sequence[Sequence[float]], **style: Any) -> None:
    """Every seed a dot, the median a line through the places."""
    color, label = style.get("color", "tab:blue"), style.get("label")
    for place, seeds in zip(places, values, strict=True):
        axes.plot([place] * len(seeds), seeds, "o", color=color, markersize=3.5, alpha=0.5, markeredgewidth=0)
    axes.plot(
        places,
        [np.nanmedian(seeds) if np.isfinite(seeds).any() else np.nan for seeds in values],
        color=color,
        label=label,
    )


def draw_depth(results: Sequence[Result]) -> dict[str, Figure]:
    """Loss, gap and the worst promised DNC1-3 against the depth."""
    depths = [result.config.head.depth for result in results]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(13, 2.9), layout="constrained")
        loss, gap, *metrics = figure.subplots(1, 5)
        loss.plot(
            depths, [collapsed_optimum(result.problem).loss for result in results], **OPTIMUM, label="closed form"
        )
        plot_seeds(loss, depths, [result.losses for result in results], label="median over seeds")
        loss.set(title="loss")
        loss.legend()
        plot_seeds(gap, depths, [gaps(result) for result in results])
        gap.set(title="relative gap of the loss to the optimum", yscale="log")
        for axes, metric in zip(metrics, ("dnc1", "dnc2", "dnc3"), strict=True):
            plot_seeds(axes, depths, [worst(result, metric) for result in results], color="tab:red")
            axes.axhline(getattr(results[0].config.verdict, metric), color="grey", linewidth=0.8, linestyle="-.")
            axes.set(title=f"{metric.upper()}: worst promised layer")
        metrics[0].set(yscale="log")
        for axes in figure.axes:
            axes.set(xlabel="depth L", xticks=depths)
        steps = results[0].config.descent.steps
        figure.suptitle(f"Depth: the end of {steps:,} steps, {len(results[0].seeds)} seeds (dash-dotted: thresholds)")
    return {"e2_depth": figure}


def draw_width(results: Sequence[Result]) -> dict[str, Figure]:
    """Where the seeds end, named, against the width: shares as stacked bars, and the losses themselves."""
    usual = len(results[0].seeds)
    widths = [
        str(result.config.head.width) + ("" if len(result.seeds) == usual else f"\n{len(result.seeds)} seeds")
        for result in results
    ]
    found = [[diagnosis.name for diagnosis in result.diagnoses] for result in results]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(10, 3.6), layout="constrained")
        bars, losses = figure.subplots(1, 2)
        floor = np.zeros(len(results))
        for name in _present(found):
            shares = np.array([names.count(name) / len(names) for names in found])
            bars.bar(widths, shares, bottom=floor, color=DIAGNOSES.get(name, "#756bb1"), label=name, width=0.8)
            floor += shares
        bars.set(title="share of seeds at", xlabel="width", ylim=(0, 1))
        bars.grid(axis="x", visible=False)
        bars.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=3)
        for place, (result, names) in enumerate(zip(results, found, strict=True)):
            shifts = np.linspace(-0.25, 0.25, len(names))
            colors = [DIAGNOSES.get(name, "#756bb1") for name in names]
            losses.scatter(place + shifts, result.losses, c=colors, s=16, zorder=3, linewidths=0.3, edgecolors="black")
        for fitted in range(3):
            losses.axhline(partial_loss(results[0].problem, fitted), **OPTIMUM)
        losses.set(
            title="final loss of every seed (dotted: zero, one, two classes fitted)", xlabel="width", yscale="log"
        )
        losses.set_xticks(range(len(widths)), widths)
        losses.grid(axis="x", visible=False)
        depth = results[0].config.head.depth
        figure.suptitle(f"Width: narrow heads get stuck (L = {depth}, {usual} seeds)")
    return {"e2_width": figure}


def draw_decay(results: Sequence[Result]) -> dict[str, Figure]:
    """The phase transition: loss and output q against the decay in multiples of the critical one."""
    scales = sorted({result.config.head.init_scale for result in results})
    colors = dict(zip(scales, ("tab:blue", "tab:red", "tab:green"), strict=False))
    depth = results[0].config.head.depth
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(11, 4.1), layout="constrained")
        loss, output = figure.subplots(1, 2)
        _branches(results[0], loss, output)
        for scale in scales:
            started = [result for result in results if result.config.head.init_scale == scale]
            # Side by side, so that one start does not hide the other.
            shift = 1.012 ** (1 if scale == scales[-1] else -1)
            for result in started:
                places = [decay_multiple(result) * shift] * len(result.seeds)
                dots = {"color": colors[scale], "s": 18, "alpha": 0.45, "linewidths": 0, "zorder": 3}
                loss.scatter(places, result.losses, **dots)
                output.scatter(places, outputs(result), **dots)
        loss.set(title="loss", ylim=(0, 0.7))
        output.set(title="output $q$ for the correct class", ylim=(-0.05, 1.05))
        ticks = [0.02, 0.05, 0.1, 0.2, 0.5, 1, 2]
        for axes in (loss, output):
            axes.set(xscale="log", xlabel="common decay / critical decay", xlim=(0.017, 2.4))
            axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
            axes.minorticks_off()
        handles = [
            Line2D(
                [],
                [],
                color=colors[scale],
                marker="o",
                linestyle="",
                markersize=4,
                label=f"seeds, start of scale {scale:g}",
            )
            for scale in scales
        ]
        figure.legend(handles=[*loss.get_legend_handles_labels()[0], *handles], loc="outside lower center", ncols=6)
        figure.suptitle(
            f"Phase transition over the weight decay (L = {depth}, {len(results[0].seeds)} seeds per start)"
        )
    return {"e2_decay": figure}


def draw_lr(results: Sequence[Result]) -> dict[str, Figure]:
    """The gap to the optimum against steps and against lr x steps."""
    colors = matplotlib.colormaps["plasma"](np.linspace(0, 0.9, len(results)))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(11, 3.8), layout="constrained")
        steps, time = figure.subplots(1, 2, sharey=True)
        for result, color in zip(results, colors, strict=True):
            rows = result.record[(result.record.metric == "relative_gap") & (result.record.step > 0)]
            lr, stuck = result.config.descent.lr, [d.name for d in result.diagnoses]
            note = ", diverged" if set(stuck) == {"diverged"} else ""
            plot_spread(rows, steps, color=color, label=f"{lr:g}{note}")
            plot_spread(rows.assign(step=rows.step * lr), time, color=color)
        steps.set(xlabel="gradient step", ylabel="relative gap of the loss to the optimum")
        time.set(xlabel="lr x gradient step")
        for axes in (steps, time):
            axes.set(xscale="log", yscale="log")
        figure.legend(title="learning rate", loc="outside right center")
        setting = f"L = {results[0].config.head.depth}, {len(results[0].seeds)} seeds"
        figure.suptitle(f"Learning rate ({setting}): geometric mean, shaded from smallest to largest")
    return {"e2_lr": figure}


def _present(found: Sequence[Sequence[str]]) -> list[str]:
    """The diagnoses that occur, in the order of `DIAGNOSES`, others last."""
    names = {name for names in found for name in names}
    return [name for name in DIAGNOSES if name in names] + sorted(names - set(DIAGNOSES))


def _branches(result: Result, loss: Axes, output: Axes) -> None:
    """Closed forms over the decay: the optimum, the metastable collapsed solution, one of two classes fitted."""
    head, protocol = result.config.head, result.config.protocol
    fold, critical = fold_multiple(result), critical_decay(result.problem)

    def problem(multiple: float) -> DufmProblem:
        decay = multiple * critical
        return DufmProblem(protocol.num_classes, protocol.samples_per_class, head.depth, decay, decay)

    below = np.geomspace(0.017, 1 - 1e-9, 300)
    optima = [collapsed_optimum(problem(multiple)) for multiple in below]
    solid, partial = {"color": "black", "linewidth": 1.2}, {"color": "#fec44f", "linewidth": 1.2}
    loss.plot([*below, 1, 2.4], [*(optimum.loss for optimum in optima), 0.5, 0.5], **solid, label="closed-form optimum")
    output.plot([*below, 1, 1, 2.4], [*(optimum.output for optimum in optima), optima[-1].output, 0, 0], **solid)
    loss.plot(
        below, [partial_loss(problem(multiple), 1) for multiple in below], **partial, label="1 of 2 classes fitted"
    )
    output.plot(below, [optimum.output / 2 for optimum in optima], **partial)
    # Beyond the threshold the stationarity equation (1) of `theory` gives decay and loss as functions of q.
    q = np.linspace((head.depth - 1) / (2 * head.depth), (head.depth - 1) / head.depth, 200)
    rate = (1 - q) * q ** ((head.depth - 1) / (head.depth + 1))
    metastable: Mapping[str, Any] = {"color": "black", "linewidth": 1.2, "linestyle": "--"}
    loss.plot(rate / rate[-1], (1 - q) * (1 + head.depth * q) / 2, **metastable, label="metastable collapsed solution")
    output.plot(rate / rate[-1], q, **metastable)
    loss.plot(rate / rate[-1], ((1 - q) * (1 + head.depth * q) + 1) / 4, **metastable | {"color": partial["color"]})
    output.plot(rate / rate[-1], q / 2, **metastable | {"color": partial["color"]})
    for axes in (loss, output):
        axes.axvline(1, color="grey", linewidth=0.8)
        axes.axvline(fold, color="grey", linewidth=0.8, linestyle=":")
