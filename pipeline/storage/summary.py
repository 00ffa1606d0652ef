"""``summary.json`` as viewers read it: once, checked, and with every key there, however old the run is.

A summary says itself what its run used, what its stages are called and count, which metrics it recorded and how they
are shown, and its headline. Summaries of schema 1 do not; what they lack is filled in from what they hold. A file that
cannot be read, or whose values are of wrong types, becomes a summary of status ``unreadable`` whose ``error`` says why.

Neither PyTorch nor pandas is imported here: whoever lists runs need not wait for them.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any

from pipeline.storage.reading import Unreadable, json_of
from pipeline.storage.summary_shape import SUMMARY, lacks

FILE = "summary.json"
COMPLETED, UNREADABLE = "completed", "unreadable"
STATUSES = ("running", COMPLETED, "failed", "interrupted")
"""What a run writes of itself."""
HEAD = "head"
"""The stage of a run's head, where it has one; it comes last in the flow of data."""


@dataclass(frozen=True)
class Uses:
    """What a run needs: images, a network, and a head that descends by itself or is trained with the network."""

    images: bool = True
    network: bool = True
    head: str | None = "descent"


@dataclass(frozen=True)
class Stage:
    """A part of a run that has rows of its own in the record.

    Attributes:
        name: as in the record.
        title: as a heading.
        unit: what one step counts.
        numbered: whether its layers are numbered, as those of a head, or named, as those of a network.
        intermediate: whether it only serves a later one; overviews leave it out.
    """

    name: str
    title: str
    unit: str
    numbered: bool
    intermediate: bool = False


USUAL_STAGES = (
    Stage("backbone", "Backbone", "epoch", numbered=False),
    Stage(HEAD, "Head", "gradient step", numbered=True),
    Stage("dufm", "DUFM solved for the fixed head", "gradient step", numbered=True, intermediate=True),
)
"""Stages of summaries that do not describe their own."""


@dataclass(frozen=True)
class Headline:
    """One of the values a run is known by; ``name`` is for machines, ``label`` for people."""

    name: str
    label: str
    value: float | str | None


@dataclass(frozen=True)
class MetricDisplay:
    """How a metric is shown (see `pipeline.metrics.registry`).

    Attributes:
        name: as in the record.
        title: of a panel, with mathematics between dollars.
        target: the value at collapse; None if there is none.
        scale: of an axis, ``log`` or ``linear``.
        panel: whether it is drawn without being asked for.
    """

    name: str
    title: str
    target: float | None = None
    scale: str = "log"
    panel: bool = False

    @property
    def text(self) -> str:
        """The title where mathematics is not typeset."""
        return self.title.replace("$", "")

    @property
    def short(self) -> str:
        """What stands before the colon of the title."""
        return self.text.partition(":")[0]

    @property
    def logarithmic(self) -> bool:
        """Whether its axis is."""
        return self.scale == "log"

    @property
    def falls_to_zero(self) -> bool:
        """Whether collapse shows in its logarithm."""
        return self.logarithmic and self.target == 0


@dataclass(frozen=True)
class RunSummary:
    """A summary; ``written`` is what stands in the file, for what only some runs have."""

    written: Mapping[str, Any]

    @property
    def status(self) -> str | None:
        """The status it was written with; None where nothing was written."""
        return self.written.get("status")

    @property
    def completed(self) -> bool:
        """Whether the run has come to its end."""
        return self.status == COMPLETED

    @property
    def error(self) -> str | None:
        """Why the run did not complete, or the summary cannot be read."""
        return self.written.get("error")

    @property
    def protocol(self) -> str:
        """What was run; empty where nothing says it."""
        return self.written.get("protocol") or ""

    @property
    def has_head(self) -> bool:
        """Whether it holds the results of a head: ``problem``, ``seeds``, ``loss``, ``layers`` and ``verdict``."""
        return "verdict" in self.written

    @cached_property
    def uses(self) -> Uses:
        """What the run needed; all runs of schema 1 had a head."""
        written = self.written
        if "uses" in written:
            return Uses(**{name: written["uses"].get(name) for name in ("images", "network", "head")})
        images = written.get("data") is not None if self.completed else True
        joint = (written.get("step_units") or {}).get(HEAD) == "epoch"
        return Uses(images, images, "joint" if joint else "descent")

    @cached_property
    def stages(self) -> tuple[Stage, ...]:
        """Stages that the summary knows, in the order of the data's flow."""
        described = self.written.get("stages")
        if described is not None:
            return tuple(
                Stage(name, one["title"], one["unit"], one["layers"] == "numbered", one.get("intermediate", False))
                for name, one in described.items()
            )
        units = self.written.get("step_units") or {}
        return tuple(replace(stage, unit=units[stage.name]) for stage in USUAL_STAGES if stage.name in units)

    def stage(self, name: str) -> Stage:
        """A stage of the record, whether the summary knows it or not."""
        known = {stage.name: stage for stage in (*USUAL_STAGES, *self.stages)}
        return known.get(name) or Stage(name, name.replace("_", " ").capitalize(), "step", numbered=False)

    def in_order(self, names: Iterable[str]) -> list[Stage]:
        """Stages of the record in the order of the data's flow; those that nothing is known of come last."""
        order = [stage.name for stage in (*self.stages, *USUAL_STAGES)]
        places = {name: order.index(name) if name in order else len(order) for name in names}
        return [self.stage(name) for name in sorted(places, key=places.get)]

    @cached_property
    def sections(self) -> tuple[str, ...]:
        """Names of the results it holds."""
        if "sections" in self.written:
            return tuple(self.written["sections"])
        return (*(["network"] if self.written.get("backbone_layers") else []), *([HEAD] if self.has_head else []))

    @cached_property
    def title(self) -> str:
        """The run in one sentence; empty if it has not come to its end."""
        if "title" in self.written:
            return self.written["title"] or ""
        return self.written["verdict"]["text"] if self.has_head else ""

    @cached_property
    def headline(self) -> tuple[Headline, ...]:
        """What the run is known by, in the order in which to show it."""
        if "headline" in self.written:
            return tuple(Headline(one["name"], one["label"], one["value"]) for one in self.written["headline"])
        return tuple(_headline_of_head(self.written)) if self.completed and self.has_head else ()

    @cached_property
    def metrics(self) -> Mapping[str, MetricDisplay]:
        """How the metrics of its record are shown; of a run that does not say it, all that are registered."""
        described = self.written.get("metrics")
        if described is None:
            return registered()
        names = ("title", "target", "scale", "panel")
        return {name: MetricDisplay(name, **{n: one[n] for n in names}) for name, one in described.items()}

    def metric(self, name: str) -> MetricDisplay:
        """How a metric is shown; one that nothing is known of by its name."""
        return self.metrics.get(name) or MetricDisplay(name, name)

    @property
    def further(self) -> dict[str, Any]:
        """Results that belong to none of the sections which viewers know: to show as they are."""
        return {key: self.written[key] for key in self.written if f"{key}?" not in SUMMARY}


def read(folder: Path) -> RunSummary:
    """The summary of a run folder: empty where there is none, of status ``unreadable`` where it makes no sense."""
    try:
        written = json_of(folder / FILE, SUMMARY)
    except FileNotFoundError:
        return RunSummary({})
    except Unreadable as error:
        return unreadable(error.why)
    why = lacks(written)
    return unreadable(why) if why else RunSummary(written)


def unreadable(why: str) -> RunSummary:
    """What stands for a summary that cannot be used."""
    return RunSummary({"status": UNREADABLE, "error": f"{FILE}: {why}"})


def registered() -> Mapping[str, MetricDisplay]:
    """How the metrics of the registry are shown."""
    from pipeline.metrics.registry import metrics  # on demand: it loads PyTorch

    return {
        name: MetricDisplay(name, metric.title, metric.target, metric.scale, metric.panel)
        for name, metric in metrics().items()
    }


def judged(place: Mapping[str, Any], metric: str) -> Mapping[str, Any] | None:
    """What the verdict says of a metric at one of its places; None where it says nothing."""
    found = place.get(metric)
    return found if isinstance(found, Mapping) else None


def middle(values: Sequence[float | None]) -> float | None:
    """The median of the known values; None if there are none."""
    known = [value for value in values if value is not None]
    return median(known) if known else None


def _headline_of_head(written: Mapping[str, Any]) -> Iterable[Headline]:
    """As the summary of a run with a head would say it; medians over the seeds, of the head's last layer."""
    gaps = written["loss"].get("relative_gap")
    yield Headline("gap_to_optimum", "gap", middle(gaps) if gaps else _gap_of_fixed_head(written))
    verdict = written["verdict"]
    places = [place for place in verdict["layers"] if place["stage"] == HEAD]
    for metric in verdict["thresholds"]:
        found = judged(places[-1], metric) if places else None
        yield Headline(metric, metric.upper(), found and found["value"])
    yield Headline("collapse", "collapse", _where_collapsed(verdict["collapsed_from_layer"], written["problem"]))
    for split, values in (written.get("accuracy") or {}).items():
        if (share := middle(values or [])) is not None:
            yield Headline(f"{split}_accuracy", f"{split} accuracy", share)


def _gap_of_fixed_head(written: Mapping[str, Any]) -> float | None:
    """A head that was fixed has no optimum of its own; that of its DUFM stands apart."""
    part = written.get("fixed_head")
    gap = part.get("relative_gap") if isinstance(part, Mapping) else None
    return gap if isinstance(gap, float) else None


def _where_collapsed(first: int | None, problem: Mapping[str, Any]) -> str:
    if first is None:
        return "none"
    last = problem["depth"]
    return "every layer" if first == 1 else "last layer" if first == last else f"layers {first}..{last}"
