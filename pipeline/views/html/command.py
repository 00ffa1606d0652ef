"""The subcommands ``dnc report``, ``dnc compare`` and ``dnc list``."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from pipeline.runtime.command_line import EXIT_BAD_ARGUMENTS, EXIT_FAILED, Parser, exit_with
from pipeline.runtime.errors import ConfigError, RunError
from pipeline.runtime.text import printable
from pipeline.views.html.comparing import comparison_table
from pipeline.views.html.listing import runs_table
from pipeline.views.html.runs import LocalRun, find_runs, open_run, open_runs

DEFAULT_FOLDERS = ("outputs", "multirun")
WIDE = 1000
"""Columns of a console that is no terminal: nothing is cut or folded in a pipe."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Console entry point; exits 0 done, 1 the report could not be made, 2 bad arguments."""
    options = _parser().parse_args(arguments)
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
    # Imported late: plotly is an extra, and pandas takes its time.
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
    runs = [LocalRun(run.folder, _from_here(run.folder)) for run in open_runs(folders)]
    _console().print(runs_table(runs))


def _from_here(folder: Path) -> str:
    here = Path.cwd().resolve()
    return str(folder.relative_to(here) if folder.is_relative_to(here) else folder)


def _console() -> Console:
    console = Console()
    return console if console.is_terminal else Console(width=WIDE)


def _parser() -> Parser:
    parser = Parser(prog="dnc", description="Look at runs that were made.")
    commands = parser.add_subparsers(required=True, metavar="report|compare|list", parser_class=Parser)
    report = commands.add_parser(
        "report",
        help="write one HTML file about runs",
        description="Write one self-contained HTML file about one run or several: the verdict, curves per layer, the "
        "layer profile, Gram matrices of the class means, a comparison, configuration, and how to run it again. "
        "It opens from disk and asks nothing of the network. Needs the extra `report` (plotly).",
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
    listing = commands.add_parser(
        "list",
        help="list the runs on this machine",
        description="List runs, the latest first: status, protocol, data and backbone, what each is known by, and the "
        "time since it last wrote its summary. A head is known by the median final gap of its loss to the optimum, "
        "the metrics of its last layer, and where deep neural collapse holds.",
    )
    listing.add_argument(
        "folders",
        nargs="*",
        type=Path,
        metavar="FOLDER",
        help="where to look, at any depth (default: outputs and multirun in the working directory)",
    )
    listing.set_defaults(perform=_list)
    return parser
