"""The subcommands ``dnc report``, ``dnc compare``, ``dnc list``, ``dnc sweep`` and ``dnc figure``."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from pipeline.runtime.command_line import EXIT_BAD_ARGUMENTS, EXIT_FAILED, Parser, exit_with
from pipeline.runtime.errors import ConfigError, RunError
from pipeline.runtime.text import printable
from pipeline.views import printing
from pipeline.views.html.comparing import comparison_table
from pipeline.views.html.runs import LocalRun, find_runs, open_run, open_runs
from pipeline.views.listing import Listing, plain_lines, terminal_table
from pipeline.views.selection import STATUSES, chosen

DEFAULT_FOLDERS = ("outputs", "multirun")
WIDE = 1000
"""Columns of a console that is no terminal: nothing is cut or folded in a pipe."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Console entry point; exits 0 done, 1 the report could not be made, 2 bad arguments."""
    options = _parser().parse_args(printing.spelled_out(sys.argv[1:] if arguments is None else arguments))
    try:
        options.perform(options)
    except ConfigError as error:
        exit_with(f"error: {error}", EXIT_BAD_ARGUMENTS)
    except RunError as error:
        exit_with(f"error: {error}", EXIT_FAILED)
    except OSError as error:
        exit_with(f"error: {error.filename or 'a file'}: {error.strerror or error}", EXIT_FAILED)


def _report(options: argparse.Namespace) -> None:
    runs = open_runs(options.folders)
    output = options.output or _default_output(options.folders)
    if output.is_dir():
        raise ConfigError(f"--output={output} is a folder; allowed: the path of a file.")
    # Imported late: pandas takes its time.
    from pipeline.views.html.page import write_page

    write_page(runs, output)
    print(printable(str(output)))


def _default_output(folders: Sequence[Path]) -> Path:
    return (folders[0] if len(folders) == 1 else Path()) / "report.html"


def _compare(options: argparse.Namespace) -> None:
    table = comparison_table(open_run(options.first), open_run(options.second))
    _console().print("No differences." if table is None else table)


def _list(options: argparse.Namespace) -> None:
    folders = options.folders or [Path(name) for name in DEFAULT_FOLDERS if any(find_runs(Path(name)))]
    if not folders:
        print(f"No runs in {' or '.join(f'{name}/' for name in DEFAULT_FOLDERS)} below this folder.")
        return
    found = open_runs(folders)
    runs = chosen(
        found,
        status=[one for many in options.status for one in many.split(",")],
        where=options.where,
        limit=options.limit,
        sort=options.sort,
        reverse=options.reverse,
    )
    if options.form:
        print(_exported(runs, found, options.form), end="")
    elif not runs:
        print("No run is as asked for.")
    else:
        _show(Listing.of(runs, found))


def _exported(runs: Sequence[LocalRun], among: Sequence[LocalRun], form: str) -> str:
    from pipeline.views import export

    if not runs:
        return "[]\n" if form == "json" else ""
    listing = Listing.of(runs, among)
    return export.as_json(listing) + "\n" if form == "json" else export.as_csv(listing)


def _show(listing: Listing) -> None:
    console = Console()
    if console.is_terminal:
        console.print(terminal_table(listing, console.width))
    else:
        print("\n".join(plain_lines(listing)))


def _sweep(options: argparse.Namespace) -> None:
    from pipeline.views import sweep  # on demand: pandas takes its time

    runs = sweep.sweep_runs(options.folder)
    _show(Listing.of(runs))
    for path in sweep.write_all(options.folder, runs):
        print(printable(str(path)))


def _figure(options: argparse.Namespace) -> None:
    for path in printing.draw_runs(open_runs(options.folders), options.paper, options.output):
        print(printable(str(path)))


def _console() -> Console:
    console = Console()
    return console if console.is_terminal else Console(width=WIDE)


def _parser() -> Parser:
    parser = Parser(prog="dnc", description="Look at runs that were made.")
    commands = parser.add_subparsers(required=True, metavar="report|compare|list|sweep|figure", parser_class=Parser)
    report = commands.add_parser(
        "report",
        help="write one HTML file about runs",
        description="Write one self-contained HTML file about one run or several: the verdict, curves per layer, the "
        "layer profile, Gram matrices of the class means, a comparison, configuration, and how to run it again. "
        "It opens from disk and asks nothing of the network.",
    )
    report.add_argument(
        "folders", nargs="+", type=Path, metavar="FOLDER", help="a run's folder, or one that holds runs (a multirun)"
    )
    report.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="FILE",
        help="where to write it (default: report.html in the folder given; in the working directory if several are)",
    )
    report.set_defaults(perform=_report)
    compare = commands.add_parser(
        "compare",
        help="print in what two runs differ",
        description="Print in what the configurations, results and environments of two runs differ. Results are those "
        "of summary.json; per layer, medians over the seeds.",
    )
    compare.add_argument("first", type=Path, metavar="A", help="a run's folder")
    compare.add_argument("second", type=Path, metavar="B", help="another run's folder")
    compare.set_defaults(perform=_compare)
    _add_list(commands)
    sweep = commands.add_parser(
        "sweep",
        help="the runs of a sweep side by side",
        description="Print the runs of a multirun (or of any folder that holds run folders), and write sweep.csv, "
        "sweep.md and, as heat maps over the two settings with the most values, sweep.png beside them.",
    )
    sweep.add_argument("folder", type=Path, metavar="FOLDER", help="a multirun's folder")
    sweep.set_defaults(perform=_sweep)
    _add_figure(commands)
    return parser


def _add_figure(commands: Any) -> None:
    figure = commands.add_parser(
        "figure",
        help="draw the figures of runs again, also for print",
        description="Draw the figure of every run again, as PDF and PNG. With --paper it is as wide as a journal takes "
        "it, has no text below 7 points and no title, and its PDF embeds its fonts.",
    )
    figure.add_argument(
        "folders", nargs="+", type=Path, metavar="FOLDER", help="a run's folder, or one that holds runs (a multirun)"
    )
    printing.add_option(figure, "for print instead of the screen")
    figure.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="PATH",
        help="a folder, or of one run a file (.pdf, .png) (default: figures/ in the run's own folder)",
    )
    figure.set_defaults(perform=_figure)


def _add_list(commands: Any) -> None:
    listing = commands.add_parser(
        "list",
        help="list the runs on this machine",
        description="List runs, the latest first: settings that differ, status, what each is known by, and the time "
        "since it last wrote its summary. A head is known by the median final gap of its loss to the optimum, the "
        "metrics of its last layer, and where deep neural collapse holds. A pipe gets plain text with all columns.",
    )
    listing.add_argument(
        "folders",
        nargs="*",
        type=Path,
        metavar="FOLDER",
        help="where to look, at any depth (default: outputs and multirun in the working directory)",
    )
    listing.add_argument(
        "--status", action="append", default=[], metavar="NAME[,NAME]", help=f"only these: {', '.join(STATUSES)}"
    )
    listing.add_argument(
        "--where",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="only runs with this setting (may be repeated)",
    )
    listing.add_argument(
        "--sort", metavar="COLUMN", help="a setting, a number such as dnc1 or gap, run, status, protocol or age"
    )
    listing.add_argument("--reverse", action="store_true", help="the other way round")
    listing.add_argument("--limit", type=_count, metavar="N", help="at most so many")
    form = listing.add_mutually_exclusive_group()
    form.add_argument("--json", dest="form", action="store_const", const="json", help="for programs, with all there is")
    form.add_argument("--csv", dest="form", action="store_const", const="csv", help="the same as lines with commas")
    listing.set_defaults(perform=_list)


def _count(text: str) -> int:
    if not text.isdigit() or not int(text):
        raise argparse.ArgumentTypeError(f"{text} is no number of runs; allowed: an integer >= 1")
    return int(text)
