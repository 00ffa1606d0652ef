"""The command ``scripts/dashboard``: a wandb workspace and a report that fit every run the pipeline tracks.

The layout is a plain value made of the keys `pipeline.views.wandb` logs. Curves of layers are chosen by a pattern, so
one layout serves heads of any depth and any backbone; the layer profile is drawn from the table ``layers`` each run
ends with. Putting it into wandb's own classes needs the extra ``dashboard`` (the package wandb-workspaces).
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from types import ModuleType
from typing import Any, NoReturn

from pipeline.runtime.command_line import EXIT_BAD_ARGUMENTS, Parser, exit_with

PATIENCE = 5.0
"""Seconds the server may take to answer at all."""


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


DNC = {
    "dnc1": "DNC1: within / between variability",
    "dnc2": "DNC2: condition number of class means",
    "dnc3": "DNC3: rows of W_l to class means (sine)",
}
PLACES = {"": "(1/pre|[0-9]+/post)", ", before the ReLU": "[0-9]+/pre"}
"""Taps of the head: what enters W_l, and what enters the ReLU before it."""


def layout() -> tuple[Section, ...]:
    """The sections, in order."""
    return (
        Section(
            "Loss and gap to the optimum",
            (
                _head_curve("loss of the head", "head/loss", "head/fit"),
                _head_curve("gap to the optimum, relative", "head/relative_gap"),
                Panel("number", "gap to the optimum, worst seed", ("gap_to_optimum",)),
                Panel("figure", "collapse", ("figures/collapse",)),
            ),
        ),
        Section(
            "DNC1, DNC2 and DNC3 by layer",
            tuple(
                Panel("curve", title + where, pattern=f"^head/layer_{places}/{metric}$", x="head/step", log="xy")
                for where, places in PLACES.items()
                for metric, title in DNC.items()
                if metric != "dnc3" or not where  # W_l is entered after the ReLU
            ),
        ),
        Section(
            "Layer profile",
            (
                Panel("profile", "log10 of DNC1 at the end", ("place", "log10_dnc1"), table="layers"),
                Panel("profile", "DNC2 at the end", ("place", "dnc2"), table="layers"),
                Panel("profile", "DNC3 at the end", ("place", "dnc3"), table="layers"),
                Panel("table", "all metrics at the end", table="layers"),
                Panel("table", "verdict", table="verdict_by_layer"),
            ),
        ),
        Section(
            "Backbone",
            (
                _epochs("loss", "backbone/train_loss", "backbone/test_loss", log="y"),
                _epochs("accuracy", "backbone/train_accuracy", "backbone/test_accuracy"),
                *(
                    Panel("curve", title, pattern=f"^backbone/layer_.*/{metric}$", x="backbone/step", log="y")
                    for metric, title in list(DNC.items())[:2]  # blocks have no W_l
                ),
            ),
        ),
        Section(
            "System",  # in wandb's own namespace: what arrives as system.cpu is called system/cpu in a panel
            (
                Panel("curve", "CPU, %", ("system/cpu",), x="_runtime"),
                Panel("curve", "memory of the process, MB", ("system/proc.memory.rssMB",), x="_runtime"),
            ),
        ),
    )


def figure_panels() -> tuple[Panel, ...]:
    """What a paper's figure of one experiment shows: loss, gap, DNC1-3 over training, and their profile."""
    loss, dnc, profile, *_ = layout()
    return (*loss.panels[:2], *dnc.panels[: len(DNC)], *(panel for panel in profile.panels if panel.kind == "profile"))


def main(arguments: Sequence[str] | None = None) -> None:
    """Console entry point; exits 0 done, 2 when something is missing (extra, key, server) or arguments are bad."""
    options = _parser().parse_args(arguments)
    if options.print:
        shown = {"workspace": [asdict(section) for section in layout()], "report": [asdict(p) for p in figure_panels()]}
        print(json.dumps(shown, indent=2))
        return
    try:
        import wandb_workspaces.reports.v2 as reports
        import wandb_workspaces.workspaces as workspaces
    except ImportError:
        _exit("the package wandb-workspaces is missing; pip install 'deep-neural-collapse[dashboard]' brings it")
    from pipeline.views.wandb.runs import first_line, no_server

    if reason := no_server(PATIENCE):
        _exit(reason)
    try:
        for url in save(options.project, options.entity, options.group, workspaces, reports):
            print(url)
    except Exception as error:  # the package raises its own, wandb's and transport errors alike
        _exit(f"wandb refused the dashboard: {first_line(error)}")


def save(
    project: str, entity: str | None, group: str | None, workspaces: ModuleType, reports: ModuleType
) -> tuple[str, str]:
    """Save workspace and report in a project; returns their addresses.

    Args:
        entity: team or user; by default that of the API key.
        group: only runs of this group are in the report (an experiment's name, see ``logger.group``).
        workspaces: the module ``wandb_workspaces.workspaces``.
        reports: the module ``wandb_workspaces.reports.v2``.
    """
    import wandb

    entity = entity or wandb.Api().default_entity
    sections = [
        workspaces.Section(name=section.name, is_open=True, panels=[_draw(reports, panel) for panel in section.panels])
        for section in layout()
    ]
    workspace = workspaces.Workspace(
        name="Deep neural collapse", entity=entity, project=project, sections=sections
    ).save()
    filters = f"Group = '{group}'" if group else ""
    runset = reports.Runset(entity=entity, project=project, name=group or "all runs", filters=filters)
    panels = [_draw(reports, panel, position) for position, panel in enumerate(figure_panels())]
    report = reports.Report(
        entity=entity,
        project=project,
        title="Deep neural collapse" + (f": {group}" if group else ""),
        description="Loss, gap to the optimum and DNC1-3 of every layer, over training and at the end.",
        blocks=[reports.PanelGrid(runsets=[runset], panels=panels)],
        width="fluid",
    ).save()
    return workspace.url, report.url


def _head_curve(title: str, *keys: str) -> Panel:
    return Panel("curve", title, keys, x="head/step", log="xy")


def _epochs(title: str, *keys: str, log: str = "") -> Panel:
    return Panel("curve", title, keys, x="backbone/step", log=log)


def _draw(reports: ModuleType, panel: Panel, position: int | None = None) -> Any:
    """A panel as wandb-workspaces knows it; ``position`` counts panels of a report, three to a row of 24 columns."""
    place = {}
    if position is not None:
        place["layout"] = reports.Layout(x=position % 3 * 8, y=position // 3 * 6, w=8, h=6)
    if panel.kind == "curve":
        return reports.LinePlot(
            title=panel.title,
            x=panel.x,
            y=list(panel.keys),
            metric_regex=panel.pattern,
            log_x="x" in panel.log,
            log_y="y" in panel.log,
            **place,
        )
    if panel.kind == "profile":
        label, value = panel.keys
        return reports.CustomChart(
            query={"summaryTable": {"tableKey": panel.table}},
            chart_name="wandb/bar/v0",
            chart_fields={"label": label, "value": value},
            chart_strings={"title": panel.title},
            **place,
        )
    if panel.kind == "table":
        return reports.WeavePanelSummaryTable(table_name=panel.table, **place)
    if panel.kind == "figure":
        return reports.MediaBrowser(title=panel.title, media_keys=list(panel.keys), **place)
    return reports.ScalarChart(title=panel.title, metric=panel.keys[0], groupby_aggfunc="max", **place)


def _parser() -> Parser:
    parser = Parser(prog="dashboard", description="Save a wandb workspace and a report for the runs of a project.")
    parser.add_argument("--project", default="deep-neural-collapse", help="wandb project (default: %(default)s)")
    parser.add_argument("--entity", help="team or user (default: that of the API key)")
    parser.add_argument("--group", help="report on the runs of this group only, e.g. an experiment's name")
    parser.add_argument("--print", action="store_true", help="print the layout as JSON; needs no server")
    return parser


def _exit(message: str) -> NoReturn:
    exit_with(f"error: {message.rstrip('.')}.", EXIT_BAD_ARGUMENTS)


if __name__ == "__main__":
    main()
