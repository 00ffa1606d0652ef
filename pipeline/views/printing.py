"""``dnc figure``: the figures of runs drawn again, for the screen or for a journal."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.runtime.errors import ConfigError
from pipeline.runtime.files import atomic
from pipeline.runtime.suggestions import did_you_mean
from pipeline.views import style
from pipeline.views.html.runs import LocalRun

if TYPE_CHECKING:
    from matplotlib.figure import Figure

OPTION = "--paper"
SUFFIXES = (".pdf", ".png")
NAME = "collapse"
"""Of the figure that every run has."""


def spelled_out(arguments: Sequence[str]) -> list[str]:
    """The arguments, in which ``--paper`` names its medium: a folder behind it is not taken for one."""
    made: list[str] = []
    waiting = list(arguments)
    while waiting:
        argument = waiting.pop(0)
        if argument == OPTION:
            argument = f"{OPTION}={waiting.pop(0) if waiting[:1] and waiting[0] in style.PAPER else style.PAPER[0]}"
        made.append(argument)
    return made


def add_option(parser: argparse.ArgumentParser, text: str) -> None:
    """Add ``--paper`` to a command."""
    widths = ", ".join(f"{name} {style.MEDIA[name].width:g} inches wide" for name in style.PAPER)
    parser.add_argument(
        OPTION,
        type=_medium,
        metavar="|".join(style.PAPER),
        help=f"{text} ({widths}; alone: {style.PAPER[0]})",
    )


def _medium(name: str) -> str:
    if name not in style.PAPER:
        raise argparse.ArgumentTypeError(
            f"{name or 'nothing'} is not known{did_you_mean(name, style.PAPER)}; allowed: {', '.join(style.PAPER)}"
        )
    return name


def draw_runs(runs: Sequence[LocalRun], paper: str | None, output: Path | None) -> list[Path]:
    """Draw every run and write its figure as PDF and PNG; the paths.

    Args:
        paper: one of `style.PAPER`; None: as on the screen.
        output: a folder, or of one run a file of one of `SUFFIXES`; None: the runs' own ``figures/``.

    Raises:
        ConfigError: a run has nothing to draw, or the output is none of these; nothing has been written then.
    """
    medium = paper or style.SCREEN.name
    paths = _paths(runs, medium, output)
    figures = [_figure(run, medium) for run in runs]
    from pipeline.views.figures import write_figure

    for figure, files in zip(figures, paths, strict=True):
        for file in files:
            with atomic(file) as temporary:
                write_figure(figure, temporary, file.suffix)
    return [file for files in paths for file in files]


def _paths(runs: Sequence[LocalRun], medium: str, output: Path | None) -> list[list[Path]]:
    name = NAME if medium == style.SCREEN.name else f"{NAME}_{medium}"
    if output is None:
        return [[run.folder / "figures" / f"{name}{suffix}" for suffix in SUFFIXES] for run in runs]
    if output.suffix in SUFFIXES and not output.is_dir():
        if len(runs) > 1:
            raise ConfigError(f"--output={output} is one file, for {len(runs)} runs; allowed: a folder.")
        return [[output]]
    if output.exists() and not output.is_dir():
        raise ConfigError(f"--output={output} is a file; allowed: a folder, or a file that ends in .pdf or .png.")
    if output.suffix and not output.exists():
        raise ConfigError(f"--output={output} ends in {output.suffix}; allowed: .pdf, .png, or a folder.")
    named = [[run.name.replace("/", "_")] * (len(runs) > 1) + [name] for run in runs]
    return [[output / f"{'_'.join(parts)}{suffix}" for suffix in SUFFIXES] for parts in named]


def _figure(run: LocalRun, medium: str) -> "Figure":
    record, why = run.record()
    if run.unreadable or record is None:
        raise ConfigError(f"{run.folder} cannot be drawn: {run.unreadable or why}; allowed: a run with its record.")
    from pipeline.views.figures import run_figure

    with style.drawn_for(medium):
        figure = run_figure(record, run.summary.written)
    if figure is None:
        raise ConfigError(f"{run.folder} has recorded nothing that can be drawn; allowed: a run that has.")
    return figure
