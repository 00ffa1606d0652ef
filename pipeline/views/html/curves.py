"""The parts of a run's report that are drawn: curves over the steps, the layer profile, Gram matrices."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from pipeline.views.html.charts import TITLES, Chart, Stroke, over_steps, place_name, profile
from pipeline.views.html.formatting import number
from pipeline.views.html.grams import gram_chart, gram_matrices
from pipeline.views.html.legend import Entry, legend
from pipeline.views.html.markup import Html, table, tag
from pipeline.views.html.palette import TEST, TRAIN, Pair, ramp
from pipeline.views.html.runs import METRICS, LocalRun
from pipeline.views.html.series import Place, final, layers, lines, stages

STAGE_TITLES = {"backbone": "Backbone", "head": "Head", "dufm": "DUFM solved for the fixed head"}
TAPS = {"post": "after the activation", "pre": "before the activation"}


def curves(run: LocalRun, frame: pd.DataFrame, heading: str) -> Html:
    """One panel per stage: DNC1-3 of every layer, loss, gap to the optimum; with legends that hide lines."""
    panels = [_stage_panel(run, frame, stage, heading) for stage in stages(frame)]
    note = (
        "Medians over the seeds, in a band from the smallest to the largest seed; both axes are logarithmic, so step 0 "
        "and values that are zero, negative or undefined are left out."
    )
    return Html(tag("p", note, class_="note") + "".join(panels))


def _stage_panel(run: LocalRun, frame: pd.DataFrame, stage: str, heading: str) -> Html:
    unit = run.step_unit(stage)
    names = layers(frame, stage)
    colors = dict(zip(names, ramp(len(names)), strict=True))
    shown = {name: f"layer {name}" if stage != "backbone" else name.removeprefix("network.") for name in names}
    charts = [over_steps(TITLES[metric], _strokes(frame, stage, metric, colors, shown), unit) for metric in METRICS]
    charts += _losses(run, frame, stage, unit)
    present = frame[(frame.stage == stage) & (frame.layer != "")]
    legends = [legend("Layers", "layer", [Entry(name, shown[name], colors[name]) for name in names])]
    legends.append(_taps(present))
    if (present.metric == "test_dnc1").any():
        splits = [Entry("train", "training split"), Entry("test", "test split (dotted)", dash="dotted", checked=False)]
        legends.append(legend("Splits", "split", splits))
    title = tag(heading, STAGE_TITLES.get(stage, stage))
    return tag("section", title, tag("div", *legends, class_="legends"), _grid(charts), class_="panel")


def _strokes(
    frame: pd.DataFrame, stage: str, metric: str, colors: Mapping[str, Pair], shown: Mapping[str, str]
) -> list[Stroke]:
    """Lines of both splits; what they are called says tap and split."""
    return [
        Stroke(
            line,
            f"{shown[line.layer]} {line.tap}" + (" test" if split == "test" else ""),
            colors[line.layer],
            {"layer": line.layer, "tap": line.tap, "split": split},
            split,
        )
        for split, prefix in (("train", ""), ("test", "test_"))
        for line in lines(frame, stage, prefix + metric)
    ]


def _losses(run: LocalRun, frame: pd.DataFrame, stage: str, unit: str) -> list[Chart | None]:
    """The loss with the optimum, and the gap between them; of a backbone, the losses of both splits."""
    if stage == "backbone":
        both = [
            Stroke(line, name, color, {})
            for metric, name, color in (("train_loss", "training images", TRAIN), ("test_loss", "test images", TEST))
            for line in lines(frame, stage, metric)
        ]
        return [over_steps("Loss of the classifier", both, unit)]
    found = run.summary.get("loss" if stage == "head" else "fixed_head") or {}
    optimum = found.get("optimum" if stage == "head" else "dufm_optimum")
    loss, gap = (
        [Stroke(line, name, TRAIN, {}) for line in lines(frame, stage, metric)]
        for metric, name in (("loss", "loss"), ("relative_gap", "gap"))
    )
    reference = None if optimum is None else (optimum, found.get("optimum_kind") or "optimum")
    return [over_steps(TITLES["loss"], loss, unit, reference), over_steps(TITLES["relative_gap"], gap, unit)]


def profiles(run: LocalRun, frame: pd.DataFrame) -> Html:
    """The final metrics against the layer, drawn and as a table."""
    ends = {m: {"train": final(frame, m), "test": final(frame, f"test_{m}")} for m in METRICS}
    thresholds = (run.summary.get("verdict") or {}).get("thresholds") or run.config.get("verdict") or {}
    charts = [profile(TITLES[metric], ends[metric], thresholds.get(metric)) for metric in METRICS]
    found = {
        (place.stage, place.layer, place.tap, metric, split): place
        for metric, splits in ends.items()
        for split, places in splits.items()
        for place in places
    }
    rows = [
        [place_name(place), place.tap]
        + [
            _spread(found.get((place.stage, place.layer, place.tap, metric, split)))
            for metric in METRICS
            for split in ("train", "test")
        ]
        for place in ends["dnc1"]["train"]
    ]
    head = ["layer", "tap"] + [f"{metric.upper()} {split}" for metric in METRICS for split in ("train", "test")]
    split_entries = [Entry("train", "training split", TRAIN)]
    if ends["dnc1"]["test"]:
        split_entries.append(Entry("test", "test split", TEST))
    legends = tag("div", legend("Splits", "split", split_entries), _taps(frame[frame.layer != ""]), class_="legends")
    numbers = table("Final metrics: median over the seeds (smallest to largest)", head, rows, class_="numbers")
    panel = tag("section", legends, _grid(charts), class_="panel", aria_label="Layer profile")
    return Html(panel + tag("details", tag("summary", "The same in numbers"), numbers))


def _taps(rows: pd.DataFrame) -> Html:
    present = set(rows.tap)
    entries = [Entry(tap, name, dash="solid" if tap == "post" else "dashed") for tap, name in TAPS.items()]
    return legend("Taps", "tap", [entry for entry in entries if entry.value in present])


def _spread(place: Place | None) -> str:
    if place is None:
        return ""
    if place.middle is None:
        return "undefined"
    if place.low == place.high:
        return number(place.middle)
    return f"{number(place.middle)} ({number(place.low)} to {number(place.high)})"


def heat_maps(run: LocalRun) -> Html:
    """Gram matrices of the class means per head layer, or a sentence on why there are none."""
    try:
        found, seed = gram_matrices(run.folder, run.summary)
    except LookupError as reason:
        return tag("p", f"Not drawn: {reason.args[0]}.")
    problem: Mapping[str, Any] = run.summary["problem"]
    classes = [str(name) for name in problem.get("classes") or range(problem["num_classes"])]
    charts = [gram_chart(gram, classes, problem["activation"] == "relu") for gram in found]
    note = (
        f"Training split, seed {seed}. Each matrix is scaled to mean diagonal 1: the identity means orthogonal class "
        "means of equal length, which is DNC2."
    )
    scale = tag("p", Html("&minus;1"), tag("span", class_="scale", aria_hidden="true"), "1", class_="scale-row")
    return Html(tag("p", note, class_="note") + scale + tag("div", *(c.html("gram") for c in charts), class_="grams"))


def _grid(charts: Sequence[Chart | None]) -> Html:
    return tag("div", *(chart.html() for chart in charts if chart is not None), class_="charts")
