"""The report: one HTML file about one run or several, complete in itself."""

import time
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from pipeline.runtime.files import atomic
from pipeline.views.html import across, assets, facts
from pipeline.views.html.curves import curves, heat_maps, profiles
from pipeline.views.html.markup import Html, tag
from pipeline.views.html.runs import LocalRun

MOST_IN_FULL = 12
"""Runs that are shown with all their charts; of more, a page that opens at once has the tables."""


def write_page(runs: Sequence[LocalRun], output: Path) -> None:
    """Write the report on ``runs`` (one or more) to ``output``, whole or not at all.

    Raises:
        OSError: it cannot be written there.
    """
    with atomic(output) as path:
        path.write_text(page(runs), encoding="utf-8", errors="backslashreplace")  # names may be no UTF-8


def page(runs: Sequence[LocalRun]) -> str:
    """The report as HTML. Its policy forbids the browser every request and every script but the two it carries."""
    title = f"{runs[0].name}: {runs[0].title}" if len(runs) == 1 else f"{len(runs)} runs: deep neural collapse"
    head = [
        '<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta name="color-scheme" content="light dark">',
        f'<meta http-equiv="Content-Security-Policy" content="{assets.policy()}">',
        tag("title", title),
        assets.style(),
    ]
    made = time.strftime("%Y-%m-%d %H:%M")
    foot = tag("footer", f"Written by dnc report on {made} from the files of the run; medians are over the seeds.")
    body = tag("main", _single(runs[0]) if len(runs) == 1 else _several(runs))
    no_script = tag("noscript", tag("p", "The charts need JavaScript; all tables stand without it.", class_="warning"))
    inner = f"<head>{''.join(head)}</head><body>{no_script}{body}{foot}{assets.scripts()}</body>"
    return f'<!DOCTYPE html>\n<html lang="en">{inner}</html>\n'


def _single(run: LocalRun) -> Html:
    title = tag("h1", tag("span", run.name, class_="eyebrow"), " ", _sentence(run.title))
    return tag("article", title, _body(run, *run.record(), level=2))


def _several(runs: Sequence[LocalRun]) -> Html:
    anchors = [f"run-{index}" for index in range(len(runs))]
    drawn, which = across.drawn(runs)
    records = [run.record() if index in drawn else (None, None) for index, run in enumerate(runs)]
    in_full = len(runs) <= MOST_IN_FULL
    articles = [
        tag(
            "details",
            tag("summary", tag("h2", tag("span", name, class_="eyebrow"), " ", _sentence(run.title))),
            tag("article", _body(run, *record, level=3) if in_full else _short(run, level=3), id=anchor),
        )
        for run, name, anchor, record in zip(runs, across.labels(runs), anchors, records, strict=True)
    ]
    counts = ", ".join(f"{sum(r.status == s for r in runs)} {s}" for s in dict.fromkeys(run.status for run in runs))
    left_out = f"The charts of one run: dnc report FOLDER of that run. ({len(runs)} are too many for one page.)"
    return Html(
        tag("h1", f"{len(runs)} runs ({counts})")
        + across.overview(runs, anchors)
        + tag("h2", "Compared")
        + across.together(runs, [frame for frame, _ in records], which)
        + across.heat_maps(runs)
        + across.settings(runs)
        + tag("h2", "Run by run")
        + ("" if in_full else tag("p", left_out, class_="note"))
        + "".join(articles)
    )


def _short(run: LocalRun, level: int) -> Html:
    """What is read of a run, without what is drawn."""
    heading = f"h{level}"
    parts = [facts.headline(run), facts.verdict(run), tag(heading, "Run it again"), facts.again(run)]
    return Html("".join(parts))


def _body(run: LocalRun, frame: pd.DataFrame | None, missing: str | None, level: int) -> Html:
    """Everything about one run, under headings of ``level`` and below."""
    heading, below = f"h{level}", f"h{level + 1}"
    parts = [facts.headline(run), facts.verdict(run), facts.further(run, heading)]
    if frame is None:
        parts += [tag(heading, "Over training"), tag("p", f"Nothing to draw: {missing}.")]
    else:
        drawn = {"Over training": curves(run, frame, below), "Layer by layer, at the end": profiles(run, frame)}
        for title, part in drawn.items():
            parts += [tag(heading, title), part] if part else []
    if run.summary.uses.head:
        parts += [tag(heading, "Class means, layer by layer"), heat_maps(run)]
    parts += [tag(heading, "Run it again"), facts.again(run)]
    parts += [tag(heading, "Configuration and environment"), facts.configuration(run), facts.environment(run)]
    parts += [tag(heading, "Cite it"), facts.citation(run)]
    return Html("".join(parts))


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]
