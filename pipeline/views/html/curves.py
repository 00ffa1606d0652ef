"""The parts of a run's report that are drawn: curves over the steps, the layer profile, Gram matrices."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from pipeline.storage.summary import HEAD, MetricDisplay, Stage
from pipeline.views.html.charts import Chart, Stroke, over_steps, profile
from pipeline.views.html.formatting import number
from pipeline.views.html.grams import gram_chart, gram_matrices
from pipeline.views.html.legend import Entry, legend
from pipeline.views.html.markup import Html, table, tag
from pipeline.views.html.palette import TEST, TRAIN, Pair, ramp
from pipeline.views.html.runs import LocalRun
from pipeline.views.html.series import Place, final, lines
from pipeline.views.shown import MOST_PANELS, families, layer_name, layers, looks_logarithmic, panels, place_names

TAPS = {"post": "after the activation", "pre": "before the activation"}
SPLITS = {"train_": ("training images", TRAIN), "test_": ("test images", TEST)}
OF_HEADS = {"loss": "Loss", "relative_gap": "Relative gap of the loss to the optimum"}
"""What is drawn of a stage as a whole where the run has a head; its axis is logarithmic."""
OPTIMA = {HEAD: ("loss", "optimum", "optimum_kind"), "dufm": ("fixed_head", "dufm_optimum", "")}
"""Where the summary says what the loss of a stage could come down to."""


def curves(run: LocalRun, frame: pd.DataFrame, heading: str) -> Html:
    """One panel per stage: metrics of every layer, losses, gap to the optimum; with legends that hide lines."""
    panels_ = [_stage_panel(run, frame, stage, heading) for stage in run.summary.in_order(set(frame.stage))]
    if not any(panels_):
        return tag("p", "Nothing was measured more than once.")
    axes = (
        "both axes are logarithmic"
        if run.summary.uses.head
        else "the axis of the steps is logarithmic, and others are where that helps"
    )
    note = (
        f"Medians over the seeds, in a band from the smallest to the largest seed; {axes}, so step 0 "
        "and values that are zero, negative or undefined are left out."
    )
    return Html(tag("p", note, class_="note") + "".join(panels_))


def _stage_panel(run: LocalRun, frame: pd.DataFrame, stage: Stage, heading: str) -> Html:
    """The panel of a stage; empty if nothing of it can be drawn over the steps."""
    rows = frame[(frame.stage == stage.name) & (frame.step > 0)]
    names = layers(frame, stage.name)
    colors = dict(zip(names, ramp(len(names)), strict=True))
    shown = {name: layer_name(stage, name) for name in names}
    metrics = panels(run.summary, rows)
    charts = [_over_steps(metric, _strokes(rows, stage.name, metric, colors, shown), stage.unit) for metric in metrics]
    charts += _of_whole_stage(run, rows, stage)
    if not any(charts):
        return Html("")
    present = rows[rows.layer != ""]
    legends = [legend("Layers", "layer", [Entry(name, shown[name], colors[name]) for name in names])]
    legends.append(_taps(present))
    if present.metric.isin([f"test_{metric.name}" for metric in metrics]).any():
        splits = [Entry("train", "training split"), Entry("test", "test split (dotted)", dash="dotted", checked=False)]
        legends.append(legend("Splits", "split", splits))
    title = tag(heading, stage.title)
    return tag("section", title, tag("div", *legends, class_="legends"), _grid(charts), class_="panel")


def _over_steps(metric: MetricDisplay, strokes: Sequence[Stroke], unit: str) -> Chart | None:
    return over_steps(metric.text, strokes, unit, logarithmic=metric.logarithmic)


def _strokes(
    rows: pd.DataFrame, stage: str, metric: MetricDisplay, colors: Mapping[str, Pair], shown: Mapping[str, str]
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
        for line in lines(rows, stage, prefix + metric.name, logarithmic=metric.logarithmic)
        if line.layer
    ]


def _of_whole_stage(run: LocalRun, rows: pd.DataFrame, stage: Stage) -> list[Chart | None]:
    """The loss with its optimum and the gap between them; where there is no head, whatever else was recorded."""
    found = families(rows)
    chosen = [name for name in OF_HEADS if name in found]
    if run.summary.uses.head is None:
        chosen = [*chosen, *(name for name in found if name not in chosen)][:MOST_PANELS]
    return [_family(run, rows, stage, name, found[name]) for name in chosen]


def _family(run: LocalRun, rows: pd.DataFrame, stage: Stage, name: str, members: list[str]) -> Chart | None:
    """Metrics of a whole stage in one chart, of both splits if there are two."""
    logarithmic = name in OF_HEADS or looks_logarithmic(rows[rows.metric.isin(members)].value)
    title = OF_HEADS.get(name) or run.summary.metric(name).text.replace("_", " ")
    if name == "loss" and members != ["loss"]:
        title = "Loss of the classifier"
    told = {prefix + name: split for prefix, split in SPLITS.items()}
    strokes = [
        Stroke(line, *told.get(member, (name.split("_")[-1], TRAIN)), {})
        for member in members
        for line in lines(rows, stage.name, member, logarithmic=logarithmic)
        if not line.layer
    ]
    reference = _optimum(run, stage) if members == ["loss"] else None
    return over_steps(title[:1].upper() + title[1:], strokes, stage.unit, reference, logarithmic=logarithmic)


def _optimum(run: LocalRun, stage: Stage) -> tuple[float, str] | None:
    """The smallest loss that theory knows of the stage, and what it is."""
    part, value, kind = OPTIMA.get(stage.name, ("", "", ""))
    found = run.summary.written.get(part)
    if not isinstance(found, Mapping) or not isinstance(found.get(value), int | float):
        return None
    return found[value], found.get(kind) or "optimum"


def profiles(run: LocalRun, frame: pd.DataFrame) -> Html:
    """The final metrics against the layer, drawn and as a table; empty if no layer was measured."""
    names = place_names(run.summary, frame)
    metrics = panels(run.summary, frame[frame.stage.isin({stage for stage, _ in names})])
    ends = {m: {"train": final(frame, m.name, names), "test": final(frame, f"test_{m.name}", names)} for m in metrics}
    charts = [profile(metric, ends[metric], _thresholds(run).get(metric.name)) for metric in metrics]
    if not metrics:
        return Html("")
    if not any(charts):  # as of a run that diverged
        return _in_numbers(ends)
    split_entries = [Entry("train", "training split", TRAIN)]
    if any(splits["test"] for splits in ends.values()):
        split_entries.append(Entry("test", "test split", TEST))
    legends = tag("div", legend("Splits", "split", split_entries), _taps(frame[frame.layer != ""]), class_="legends")
    panel = tag("section", legends, _grid(charts), class_="panel", aria_label="Layer profile")
    return Html(panel + tag("details", tag("summary", "The same in numbers"), _in_numbers(ends)))


def _in_numbers(ends: Mapping[MetricDisplay, Mapping[str, Sequence[Place]]]) -> Html:
    splits = [split for split in ("train", "test") if any(found[split] for found in ends.values())]
    columns = [(metric, split) for metric in ends for split in splits]
    cells = {
        (place.name, place.tap, metric, split): _spread(place)
        for metric, split in columns
        for place in ends[metric][split]
    }
    places = dict.fromkeys((name, tap) for name, tap, *_ in cells)
    rows = [[name, tap, *(cells.get((name, tap, *column), "") for column in columns)] for name, tap in places]
    head = ["layer", "tap"] + [f"{metric.short} {split}" for metric, split in columns]
    return table("Final metrics: median over the seeds (smallest to largest)", head, rows, class_="numbers")


def _thresholds(run: LocalRun) -> Mapping[str, float]:
    """What counts as collapsed, where somebody judges it."""
    if not run.summary.uses.head:
        return {}
    found = (run.summary.written.get("verdict") or {}).get("thresholds") or run.group("verdict")
    return {name: value for name, value in found.items() if isinstance(value, int | float)}


def _taps(rows: pd.DataFrame) -> Html:
    present = dict.fromkeys(rows.tap)
    taps = [*(tap for tap in TAPS if tap in present), *(tap for tap in present if tap not in TAPS)]
    entries = [Entry(tap, TAPS.get(tap, tap), dash="solid" if tap == "post" else "dashed") for tap in taps]
    return legend("Taps", "tap", entries)


def _spread(place: Place) -> str:
    if place.middle is None:
        return "undefined"
    if place.low == place.high:
        return number(place.middle)
    return f"{number(place.middle)} ({number(place.low)} to {number(place.high)})"


def heat_maps(run: LocalRun) -> Html:
    """Gram matrices of the class means per head layer, or a sentence on why there are none."""
    try:
        found, seed = gram_matrices(run.folder, run.summary.written)
    except LookupError as reason:
        return tag("p", f"Not drawn: {reason.args[0]}.")
    problem: Mapping[str, Any] = run.summary.written["problem"]
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
