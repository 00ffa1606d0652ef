"""What a wandb dashboard shows, as a plain value made of the keys that `pipeline.views.wandb` logs.

Curves of layers are chosen by a pattern, so that one layout serves heads of any depth and any network; the layer
profile is drawn from the table ``layers`` each run ends with.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.runtime.errors import ConfigError
from pipeline.storage.record import read_record
from pipeline.storage.summary import HEAD, USUAL_STAGES, MetricDisplay, Stage, read, registered
from pipeline.views.shown import families, panels
from pipeline.views.wandb.content import ordered


@dataclass(frozen=True)
class Panel:
    """One panel. ``kind``: ``curve`` (``keys`` or all that match ``pattern`` against ``x``), ``profile`` (columns
    ``keys`` = place and value of ``table``), ``table``, ``figure``, ``number``; ``log`` are its logarithmic axes."""

    kind: str
    title: str
    keys: tuple[str, ...] = ()
    pattern: str | None = None
    x: str | None = None
    table: str | None = None
    log: str = ""


@dataclass(frozen=True)
class Section:
    """Panels under one heading."""

    name: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True)
class Logged:
    """What runs log of a stage.

    Attributes:
        numbers: of the whole stage, those that belong into one panel together.
        metrics: of its layers, each with whether it is also measured before the activation of layers 2 and on.
    """

    stage: Stage
    numbers: tuple[tuple[str, ...], ...]
    metrics: tuple[tuple[MetricDisplay, bool], ...]


def usually_logged() -> tuple[Logged, ...]:
    """What a run with a network and a head logs."""
    metrics = [metric for metric in registered().values() if metric.panel]
    # Metrics of a weight matrix are measured where one is entered: not in blocks of a network, nor before a ReLU.
    entered = [(metric, "W_l" not in metric.title) for metric in metrics]
    numbers = {
        "backbone": (("train_loss", "test_loss"), ("train_accuracy", "test_accuracy")),
        HEAD: (("loss",), ("fit",), ("relative_gap",)),
    }
    return tuple(
        Logged(stage, numbers[stage.name], tuple(pair for pair in entered if stage.name == HEAD or pair[1]))
        for stage in USUAL_STAGES
        if stage.name in numbers
    )


def logged_by(folders: Sequence[Path]) -> tuple[Logged, ...]:
    """What the runs in these folders logged, by their records; stages that several share are described by the last.

    Raises:
        ConfigError: a folder holds no record.
    """
    found: dict[str, Logged] = {}
    for folder in folders:
        try:
            record = read_record(folder)
        except (OSError, ValueError) as error:
            raise ConfigError(f"{folder} holds no record.csv that can be read; allowed: a run's folder.") from error
        summary = read(folder)
        for stage in summary.in_order(set(record.stage)):
            rows = record[(record.stage == stage.name) & (record.step > 0)]
            if stage.intermediate or rows.empty:
                continue
            later = rows[(rows.tap == "pre") & (rows.layer != "1")]
            before = {metric.name for metric in panels(summary, later)}
            shown = tuple((metric, metric.name in before) for metric in panels(summary, rows))
            found[stage.name] = Logged(stage, tuple(map(tuple, families(rows).values())), shown)
    return tuple(found.values())


def layout(logged: Sequence[Logged] | None = None, order: str = "place") -> tuple[Section, ...]:
    """The sections, in order, for runs that log this; by default for those with a network and a head.

    Args:
        order: of the names in keys, as ``logger.keys`` has it.
    """
    logged = usually_logged() if logged is None else logged
    head = next((one for one in logged if one.stage.name == HEAD), None)
    sections = [] if head is None else [_loss_of(head), _layers_of(head)]
    if logged:
        sections.append(_profile(head or logged[-1], judged=head is not None))
    sections += [_stage(one) for one in logged if one is not head]
    system = (  # in wandb's own namespace: what arrives as system.cpu is called system/cpu in a panel
        Panel("curve", "CPU, %", ("system/cpu",), x="_runtime"),
        Panel("curve", "memory of the process, MB", ("system/proc.memory.rssMB",), x="_runtime"),
    )
    found = [Section(it.name, tuple(_in_order(panel, order) for panel in it.panels)) for it in sections if it.panels]
    return (*found, Section("System", system))


def _in_order(panel: Panel, order: str) -> Panel:
    """A panel of curves that finds them where the metric comes first, if that is the order."""
    if panel.kind != "curve" or order == "place":
        return panel
    pattern = panel.pattern and f"^{ordered(panel.pattern.strip('^$'), order)}$"
    return replace(panel, keys=tuple(ordered(key, order) for key in panel.keys), pattern=pattern)


def figure_panels(logged: Sequence[Logged] | None = None, order: str = "place") -> tuple[Panel, ...]:
    """What a paper's figure of one experiment shows: loss, gap, metrics over training, and their profile."""
    sections = layout(logged, order)
    curves = [panel for section in sections[:2] for panel in section.panels if panel.kind == "curve"]
    shown = [panel for panel in curves if not panel.title.endswith(BEFORE)]
    return (*shown, *(panel for section in sections for panel in section.panels if panel.kind == "profile"))


BEFORE = ", before the ReLU"
PLACES = {"": "(1/pre|[0-9]+/post)", BEFORE: "[0-9]+/pre"}
"""Taps of the head: what enters W_l, and what enters the ReLU before it."""


def _loss_of(head: Logged) -> Section:
    step = f"{HEAD}/step"
    losses = [name for name in ("loss", "fit") if (name,) in head.numbers]
    shown = [Panel("curve", "loss of the head", tuple(f"{HEAD}/{name}" for name in losses), x=step, log="xy")]
    if ("relative_gap",) in head.numbers:
        shown.append(Panel("curve", "gap to the optimum, relative", (f"{HEAD}/relative_gap",), x=step, log="xy"))
        shown.append(Panel("number", "gap to the optimum, worst seed", ("gap_to_optimum",)))
    shown.append(Panel("figure", "collapse", ("figures/collapse",)))
    return Section("Loss and gap to the optimum", tuple(shown))


def _layers_of(head: Logged) -> Section:
    *names, last = [metric.short for metric, _ in head.metrics] or [""]
    return Section(
        f"{', '.join(names)} and {last} by layer" if names else f"{last} by layer",
        tuple(
            Panel(
                "curve",
                metric.text + where,
                pattern=f"^{HEAD}/layer_{places}/{metric.name}$",
                x=f"{HEAD}/step",
                log="xy" if metric.logarithmic else "x",
            )
            for where, places in PLACES.items()
            for metric, also_before in head.metrics
            if also_before or where != BEFORE
        ),
    )


def _profile(shown: Logged, *, judged: bool) -> Section:
    ends = []
    for metric, _ in shown.metrics:
        log10 = metric.falls_to_zero
        title = f"{'log10 of ' if log10 else ''}{metric.short} at the end"
        ends.append(Panel("profile", title, ("place", f"{'log10_' if log10 else ''}{metric.name}"), table="layers"))
    if not ends:
        return Section("Layer profile", ())
    tables = [Panel("table", "all metrics at the end", table="layers")]
    tables += [Panel("table", "verdict", table="verdict_by_layer")] if judged else []
    return Section("Layer profile", (*ends, *tables))


def _stage(logged: Logged) -> Section:
    """A stage that is no head: its losses and accuracies, and the metrics of its layers."""
    name, step = logged.stage.name, f"{logged.stage.name}/step"
    whole = []
    for members in logged.numbers:
        title = members[0].removeprefix("train_").removeprefix("test_").replace("_", " ")
        log = "y" if title.endswith("loss") else ""
        whole.append(Panel("curve", title, tuple(f"{name}/{member}" for member in members), x=step, log=log))
    layers = [
        Panel(
            "curve",
            metric.text,
            pattern=f"^{name}/.+/{metric.name}$",
            x=step,
            log="y" if metric.logarithmic else "",
        )
        for metric, _ in logged.metrics
    ]
    return Section(logged.stage.title, (*whole, *layers))
