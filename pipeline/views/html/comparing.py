"""``dnc compare``: in what runs differ, their settings and their results."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from pipeline.runtime.text import printable
from pipeline.storage.summary import judged
from pipeline.views.html.formatting import flat, setting
from pipeline.views.html.runs import LocalRun

ABSENT = "(absent)"


def differing(mappings: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Keys whose values differ, with the values as text, in the order of the first appearance.

    Values that differ only beyond the digits usually shown are given with all of theirs.
    """
    keys = dict.fromkeys(key for mapping in mappings for key in mapping)
    found = {}
    for key in keys:
        values = [mapping.get(key, ABSENT) for mapping in mappings]
        if any(value != values[0] for value in values[1:]):
            short = [_short(value) for value in values]
            found[key] = short if len(set(short)) > 1 else [setting(value) for value in values]
    return found


def results(run: LocalRun) -> dict[str, Any]:
    """What came out: status and title, and of a completed run its headline or, of a head, losses and accuracies per
    seed and the verdict's medians per layer; then whatever else its sections wrote."""
    summary = run.summary
    found: dict[str, Any] = {"status": run.status}
    if not run.completed:
        return found | {"verdict": run.title}
    if summary.has_head:
        found |= {"verdict": run.title} | _of_head(summary.written)
    else:
        found |= {"title": run.title} | {entry.label: entry.value for entry in run.headline}
    found |= {f"accuracy.{split}": value for split, value in (summary.written.get("accuracy") or {}).items()}
    aside = {name: summary.written.get(name) or {} for name in ("stopped_early", "diverged")}
    return found | flat(summary.further) | flat(aside)


def _of_head(written: Mapping[str, Any]) -> dict[str, Any]:
    found = {f"loss.{name}": value for name, value in written["loss"].items()}
    for place in written["verdict"]["layers"]:
        where = f"{place['stage']} {place['layer']} {place['tap']}"
        for metric in written["verdict"]["thresholds"]:
            if said := judged(place, metric):
                found[f"{where} {metric.upper()}"] = said["value"]
    return found


def comparison_table(first: LocalRun, second: LocalRun) -> Table | None:
    """The differences of two runs, in three parts: configuration, results, environment; None if there are none."""
    table = Table()
    for column in ("", first.name, second.name):
        table.add_column(Text(printable(column)), overflow="fold")
    parts = {
        "configuration": [run.settings for run in (first, second)],
        "results": [results(run) for run in (first, second)],
        "environment": [flat(run.summary.written.get("environment") or {}) for run in (first, second)],
    }
    for title, mappings in parts.items():
        rows = differing(mappings)
        if rows:
            table.add_row(Text(title, "bold"))
        for key, values in rows.items():
            table.add_row(*(Text(printable(str(text))) for text in (key, *values)))
        if rows:
            table.add_section()
    return table if table.rows else None


def _short(value: Any) -> str:
    """Numbers with four digits; lists of them likewise."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return "[" + ", ".join(_short(item) for item in value) + "]"
    return setting(value)
