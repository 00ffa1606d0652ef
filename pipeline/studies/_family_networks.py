"""What the studies of the DUFM family share of networks that are trained under the penalties of the model."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from pipeline.dufm.head_measures import PlaceShape, head_shape
from pipeline.studies._family import known, seeds_table, weights
from pipeline.studies._networks import accuracy, entered, value_at
from pipeline.studies._networks_drawing import count_of_networks, record_of
from pipeline.studies._settings import DECAY_TIMES, TERMINAL, decay_times
from pipeline.studies.engine.claims import Claim
from pipeline.studies.engine.results import Point, Result
from pipeline.views import marks, style
from pipeline.views.figures import layer_colors, plot_over_steps
from pipeline.views.legends import tap_handles
from pipeline.views.sheet import Sheet

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PREFIX = "network_"
SEEDS = (0, 1, 2, 3, 4)
MNIST, MLP = "data=mnist", "backbone=mlp"
FEW_RECORDS = ("descent.records_per_decade=3", "record.figures=false")
RTOL = 1e-2
"""A singular value counts from this share of the largest on (ours)."""
LOWEST = 1e-7
"""Of singular values over the largest, what is drawn; networks compute in float32."""


def network_points(kinds: Mapping[str, tuple[str, ...]], seeds: Sequence[int] = SEEDS) -> tuple[Point, ...]:
    """Of the full version: each kind with its overrides, once per seed."""
    common = "experiment=family_networks"
    return tuple(
        Point(f"{PREFIX}{kind}-seed_{seed}", (common, *overrides, f"seed={seed}"))
        for kind, overrides in kinds.items()
        for seed in seeds
    )


def smaller(points: Sequence[Point], sizes: Mapping[str, tuple[str, ...]], seed: int = 0) -> tuple[Point, ...]:
    """Of these points those of one seed that ``sizes`` names by kind, with what it changes."""
    return tuple(
        Point(point.name, point.overrides, (*sizes[kind_of(point)], *FEW_RECORDS))
        for point in points
        if kind_of(point) in sizes and point.name.endswith(f"seed_{seed}")
    )


def kind_of(point: Point) -> str:
    """``mlp_mnist`` of ``network_mlp_mnist-seed_0``."""
    return point.name.removeprefix(PREFIX).partition("-")[0]


def networks(results: Sequence[Result]) -> dict[str, list[Result]]:
    """The trained networks that came to an end, by kind."""
    found: dict[str, list[Result]] = {}
    for result in results:
        if result.point.name.startswith(PREFIX) and result.completed:
            found.setdefault(kind_of(result.point), []).append(result)
    return found


def models(results: Sequence[Result]) -> list[Result]:
    """The runs of the model by itself."""
    return [result for result in results if not result.point.name.startswith(PREFIX)]


def fitted(results: Sequence[Result]) -> bool:
    """Whether all networks decide (nearly) all training images rightly; of others nothing is claimed."""
    return all(accuracy(result, "train") >= TERMINAL for result in results)


def lasted(results: Sequence[Result]) -> bool:
    """Whether all were trained for long enough to be told from where they began."""
    return all(decay_times(result) >= DECAY_TIMES for result in results)


def of_networks(text: str, results: Sequence[Result], passed: Sequence[bool], measured: str) -> Claim:
    """A claim about every network of a kind, undecided where one does not fit its images, or misses it too early."""
    holds: bool | None = all(passed)
    said = f"{sum(passed)} of {len(passed)}; {measured}"
    if not fitted(results):
        shares = ", ".join(f"{accuracy(result, 'train'):.1%}" for result in results)
        holds, said = None, f"{said}; training accuracy {shares}"
    elif not holds and not lasted(results):
        holds, said = None, f"{said}; {min(map(decay_times, results)):.2g} time constants of the decay only"
    return Claim(text, f"{len(passed)} of {len(passed)}", said, holds)


def shape(result: Result, rtol: float = RTOL) -> list[PlaceShape]:
    """Class means at every place of the head at the end."""
    tensors, problem = result.tensors, result.summary["problem"]
    matrices = [weight.double() for weight in weights(result)]
    features = tensors["features/1"].double().expand(len(matrices[0]), -1, -1)  # a network's have no members
    return head_shape(features, matrices, tensors["labels"], problem["activation"], rtol)


def ranks(result: Result, places: Sequence[tuple[int, str]], rtol: float = RTOL) -> list[int]:
    """Of the class means at these places of the head, by (layer, tap); layer L + 1 holds the outputs."""
    found = {(place.layer, place.tap): int(place.spectrum.rank[0]) for place in shape(result, rtol)}
    return [found[place] for place in places]


def last_dnc1(result: Result) -> float:
    """Of what enters the last weight."""
    return value_at(result, entered(result.config.head.depth)[-1], "dnc1")


def networks_figure(kinds: Mapping[str, list[Result]], names: Mapping[str, str], lines: Mapping[str, str]) -> "Figure":
    """A row for each kind: loss over epochs with values of theory, DNC1 of every layer, singular values at the end.

    Args:
        names: of the kinds, for their rows.
        lines: reference -> what it is called beside its line.
    """
    all_of_them = [result for own in kinds.values() for result in own]
    title = f"Networks under the model's penalties, training images, {count_of_networks(all_of_them)}"
    with Sheet(len(kinds), 3, title=title, width=1.4) as sheet:
        depth = max(result.config.head.depth for result in all_of_them)
        colors = layer_colors([str(layer) for layer in range(1, depth + 1)])
        for row, (kind, own) in enumerate(kinds.items()):
            sheet.tag(sheet[row, 1], names[kind])
            _loss(sheet, sheet[row, 0], own, lines)
            frame = record_of(own)
            plot_over_steps(frame[frame.stage == "head"], "dnc1", sheet[row, 1], colors=colors, unit="epoch")
            _spectra(sheet[row, 2], own[0], colors)
        sheet.legend([marks.line(f"layer {layer}", color) for layer, color in colors.items()])
        taps = {place.tap for result in all_of_them for place in shape(result)}
        sheet.legend([*tap_handles(taps), marks.line("outputs", style.GREY, marker="s")])
        sheet.legend([marks.line("theory, and the threshold of ranks", **style.OPTIMUM)])
    return sheet.figure


def _loss(sheet: Sheet, axes: "Axes", results: Sequence[Result], lines: Mapping[str, str]) -> None:
    frame = record_of(results)
    rows = frame[(frame.stage == "head") & (frame.metric == "loss") & (frame.step > 0)]
    marks.spread(rows, axes, color=style.BLUE)
    values = [(known(results[0])[name], text) for name, text in lines.items() if name in known(results[0])]
    for value, _ in values:
        axes.axhline(value, **style.OPTIMUM)
    sheet.name_ends(axes, [(value, text, style.OPTIMUM) for value, text in values]) if values else None
    axes.set(xscale="log", yscale="log", xlabel="epoch", ylabel="loss")


def _spectra(axes: "Axes", result: Result, colors: Mapping[str, object]) -> None:
    """Singular values of the class means, dashed before the activation, solid after it; first seed."""
    for place in shape(result):
        values = place.spectrum.values[0].numpy()
        hidden = str(place.layer) in colors and place.layer <= result.config.head.depth
        color = colors[str(place.layer)] if hidden else style.GREY
        marker, dashes = ("o" if hidden else "s"), style.LINES[0] if place.tap == "post" else style.LINES[1]
        shown = np.maximum(values / values[0], LOWEST)
        axes.plot(range(1, len(values) + 1), shown, color=color, marker=marker, linestyle=dashes, markersize=2.5)
    axes.axhline(RTOL, **style.OPTIMUM)
    axes.set(yscale="log", ylim=(LOWEST / 2, 2), xlabel="index", ylabel="singular value over the largest")


def tables_of(study: str, results: Sequence[Result]) -> dict[str, pd.DataFrame]:
    """The seeds of the model and, where there are some, the networks."""
    found, trained = {study: seeds_table(models(results))}, networks(results)
    if trained:
        found[f"{study}_networks"] = networks_table(trained)
    return {name: table for name, table in found.items() if len(table)}


def networks_table(kinds: Mapping[str, list[Result]]) -> pd.DataFrame:
    """One row per network: how well it fits, its loss beside what theory knows, ranks of what enters each weight."""
    rows = []
    for kind, own in kinds.items():
        for result in own:
            (loss,), at, depth = result.losses, known(result), result.config.head.depth
            collapsed = at.get("collapsed solution", at.get("global optimum", np.nan))
            places = [(layer, "pre" if layer == 1 else "post") for layer in range(1, depth + 1)]
            if result.summary["problem"]["activation"] != "relu":
                places = [(layer, "pre") for layer in range(1, depth + 1)]
            rows.append(
                {
                    "kind": kind,
                    "seed": result.config.seed,
                    "samples_per_class": result.config.data.samples_per_class,
                    "epochs": result.config.backbone.epochs,
                    "time_constants": decay_times(result),
                    "train_accuracy": accuracy(result, "train"),
                    "test_accuracy": accuracy(result, "test"),
                    "loss": loss,
                    "collapsed": collapsed,
                    "lowest_reference": min(at.values(), default=np.nan),
                    "dnc1_last": last_dnc1(result),
                    "ranks": " ".join(map(str, ranks(result, [*places, (depth + 1, "pre")]))),
                    "seconds": sum(result.summary.get("timings", {}).values()),
                }
            )
    return pd.DataFrame(rows)
