"""The network of a run, measured place by place, as a result."""

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from rich.console import Console
from rich.table import Table

from pipeline.measure.extraction import readings
from pipeline.metrics.registry import metrics
from pipeline.runs.outcome import Headline, Section

if TYPE_CHECKING:
    from pipeline.runs.run import Run

SPLITS = {"train": "train accuracy", "test": "test accuracy"}


@dataclass(frozen=True)
class NetworkSection(Section):
    """What the record says of a network at its last measurement: metrics of every place, and accuracies if known."""

    name: ClassVar[str] = "network"
    stage: str = "backbone"

    def summary(self, run: "Run") -> dict[str, Any]:
        found = {"backbone_layers": run.record.final_layers(self.stage, [run.config.seed])}
        reads = readings(run.inputs.backbone, run.config.pooling) if run.inputs.backbone is not None else {}
        found["backbone_reads"] = [
            {"layer": layer, "tap": tap, "read": text} for (layer, tap), (_, _, text) in reads.items()
        ]
        accuracy = {split: run.record.last(self.stage, f"{split}_accuracy") for split in SPLITS}
        return found | ({"accuracy": accuracy} if any(accuracy.values()) else {})

    def title(self, summary: Mapping[str, Any]) -> str | None:
        places = summary["backbone_layers"]
        if not places:
            return None
        values = [f"{name.upper()} {value:.3g}" for name, value in _values(places[-1]).items() if value is not None]
        return f"{', '.join(values) or 'no metric is defined'} at the last place of the network ({places[-1]['layer']})"

    def headline(self, summary: Mapping[str, Any]) -> list[Headline]:
        last = _values(summary["backbone_layers"][-1]) if summary["backbone_layers"] else {}
        entries = [Headline(name, name.upper(), value) for name, value in last.items()]
        return entries + accuracy_entries(summary.get("accuracy") or {})

    def show(self, summary: Mapping[str, Any], console: Console) -> None:
        if "verdict" in summary:
            return  # its table holds the network's places, too
        shown = [name for name, metric in metrics().items() if metric.panel]
        console.print(self.title(summary) or "no place of the network was measured", style="bold")
        table = Table()
        for column in ("stage", "layer", "tap"):
            table.add_column(column)
        for name in shown:
            table.add_column(name.upper(), justify="right")
        for place in summary["backbone_layers"]:
            values = _values(place)
            cells = ["" if values.get(name) is None else f"{values[name]:.3g}" for name in shown]
            table.add_row(self.stage, str(place["layer"]), place["tap"], *cells)
        console.print(table)


def accuracy_entries(accuracy: Mapping[str, list[float | None] | None]) -> list[Headline]:
    """Headline entries of the accuracies that are known: medians over seeds."""
    medians = {split: median(accuracy.get(split) or []) for split in SPLITS}
    return [
        Headline(f"{split}_accuracy", SPLITS[split], value) for split, value in medians.items() if value is not None
    ]


def median(values: list[float | None]) -> float | None:
    """The median of the known values; None if there are none."""
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def _values(place: Mapping[str, Any]) -> dict[str, float | None]:
    """The default panels' metrics at a place, one value each: a network has one seed."""
    return {name: place[name][0] for name, metric in metrics().items() if metric.panel and place.get(name)}
