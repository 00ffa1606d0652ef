"""The listing for programs: JSON and CSV."""

import csv
import io
import json
import math
from typing import Any

from pipeline.runtime.text import printable
from pipeline.views.html.formatting import setting
from pipeline.views.listing import Listing, changed


def as_json(listing: Listing) -> str:
    """A list of objects: run, folder, status, protocol, data and backbone, settings that differ, results, date."""
    made = []
    for index, run in enumerate(listing.runs):
        results = {entry.name: entry.value for entry in run.headline}
        made.append(
            {
                "run": run.name,
                "folder": str(run.folder),
                "status": run.status,
                "protocol": run.protocol,
                "subject": run.subject,
                "settings": {one.key: one.values[index] for one in listing.settings},
                "results": {name: _finite(value) for name, value in results.items()},
                "title": run.title,
                "changed": changed(run),
            }
        )
    return json.dumps(made, indent=2, default=str)


def as_csv(listing: Listing) -> str:
    """One line per run: as `as_json`, flat."""
    results = list(dict.fromkeys(entry.name for run in listing.runs for entry in run.headline))
    settings = [one.key for one in listing.settings]
    names = ["run", "folder", *settings, "status", "protocol", "subject"]
    results = [name for name in results if name not in names]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*names, *results, "title", "changed"])
    for index, run in enumerate(listing.runs):
        known = {entry.name: entry.value for entry in run.headline}
        swept = [_plain(one.values[index]) for one in listing.settings]
        ends = ["" if known.get(name) is None else known[name] for name in results]
        row = [run.name, run.folder, *swept, run.status, run.protocol, run.subject, *ends, run.title, changed(run)]
        writer.writerow([printable(one) if isinstance(one, str) else one for one in row])
    return text.getvalue()


def _plain(value: Any) -> Any:
    """Numbers with all their digits, everything else as one would write it."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return value if number else "" if value is None else setting(value)


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
