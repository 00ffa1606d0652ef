"""The command ``scripts/dashboard``: a wandb workspace and a report that fit every run the pipeline tracks.

What they show is a plain value (see `pipeline.views.wandb.layout`). Putting it into wandb's own classes needs the extra
``dashboard`` (the package wandb-workspaces).
"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

from pipeline.runtime.command_line import EXIT_BAD_ARGUMENTS, Parser, exit_with
from pipeline.runtime.errors import ConfigError
from pipeline.runtime.program import run_program
from pipeline.views.wandb.layout import Logged, Panel, figure_panels, layout, logged_by

PATIENCE = 5.0
"""Seconds the server may take to answer at all."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Console entry point; exits 0 done, 2 when something is missing (extra, key, server) or arguments are bad."""
    options = _parser().parse_args(arguments)
    try:
        logged = logged_by(options.runs) if options.runs else None
    except ConfigError as error:
        _exit(str(error))
    if options.print:
        sections, panels = layout(logged, options.keys), figure_panels(logged, options.keys)
        shown = {"workspace": [asdict(section) for section in sections], "report": [asdict(panel) for panel in panels]}
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
        for url in save(options.project, options.entity, options.group, workspaces, reports, logged, options.keys):
            print(url)
    except Exception as error:  # the package raises its own, wandb's and transport errors alike
        _exit(f"wandb refused the dashboard: {first_line(error)}")


def save(
    project: str,
    entity: str | None,
    group: str | None,
    workspaces: ModuleType,
    reports: ModuleType,
    logged: Sequence[Logged] | None = None,
    order: str = "place",
) -> tuple[str, str]:
    """Save workspace and report in a project; returns their addresses.

    Args:
        entity: team or user; by default that of the API key.
        group: only runs of this group are in the report (an experiment's name, see ``logger.group``).
        workspaces: the module ``wandb_workspaces.workspaces``.
        reports: the module ``wandb_workspaces.reports.v2``.
        logged: what the runs log; by default what those with a network and a head do.
        order: of the names in their keys, see ``logger.keys``.
    """
    import wandb

    entity = entity or wandb.Api().default_entity
    sections = [
        workspaces.Section(name=section.name, is_open=True, panels=[_draw(reports, panel) for panel in section.panels])
        for section in layout(logged, order)
    ]
    workspace = workspaces.Workspace(
        name="Deep neural collapse", entity=entity, project=project, sections=sections
    ).save()
    filters = f"Group = '{group}'" if group else ""
    runset = reports.Runset(entity=entity, project=project, name=group or "all runs", filters=filters)
    panels = [_draw(reports, panel, position) for position, panel in enumerate(figure_panels(logged, order))]
    report = reports.Report(
        entity=entity,
        project=project,
        title="Deep neural collapse" + (f": {group}" if group else ""),
        description="Loss, gap to the optimum and metrics of every layer, over training and at the end.",
        blocks=[reports.PanelGrid(runsets=[runset], panels=panels)],
        width="fluid",
    ).save()
    return workspace.url, report.url


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
    parser.add_argument(
        "--runs",
        nargs="+",
        type=Path,
        metavar="FOLDER",
        help="fit the panels to what the runs in these folders recorded (default: runs with a network and a head)",
    )
    parser.add_argument("--keys", default="place", choices=("place", "metric"), help="as the runs had logger.keys")
    parser.add_argument("--print", action="store_true", help="print the layout as JSON; needs no server")
    return parser


def _exit(message: str) -> NoReturn:
    exit_with(f"error: {message.rstrip('.')}.", EXIT_BAD_ARGUMENTS)


if __name__ == "__main__":
    run_program(lambda: main)
