"""``dnc sweep``: the runs of a sweep side by side, as a table and as heat maps.

A sweep is a multirun. Runs may be of any kind: the numbers are those of each run's headline.

Reads ``summary.json`` and ``.hydra/config.yaml`` of every run in a folder (a multirun's, or any that holds run folders)
and writes ``sweep.csv``, ``sweep.md`` and ``sweep.png`` beside them.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from pipeline.runtime.errors import ConfigError
from pipeline.runtime.files import atomic
from pipeline.runtime.text import printable
from pipeline.storage.summary import COMPLETED, MetricDisplay, RunSummary
from pipeline.views import style
from pipeline.views.figures import write_figure
from pipeline.views.html.columns import Columns
from pipeline.views.html.formatting import one_line
from pipeline.views.html.runs import LocalRun, runs_below
from pipeline.views.sheet import Sheet
from pipeline.views.varying import varied
from pipeline.views.wandb.content import headline

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LONGEST_LABEL = 40
"""Letters of a setting or of its value in a figure."""
MOST_CELLS = 400
"""Of a heat map that has numbers in its cells; of more, whoever wants a number looks into sweep.csv."""
HIGHEST, WIDEST = 3.0, 1.5
"""Such a map's sides, in those of a usual panel: cells without numbers need no room for them."""
GAP = MetricDisplay("gap_to_optimum", "gap to the optimum, worst seed")


def write_all(folder: Path, runs: Sequence[LocalRun]) -> list[Path]:
    """Write everything about the runs (`sweep_runs`) in a folder; the paths."""
    table, settings = table_of(runs)
    return write(table, settings, folder, heat_maps(runs))


def sweep_runs(folder: Path) -> list[LocalRun]:
    """The runs in a folder, in natural order.

    Raises:
        ConfigError: ``folder`` holds no runs.
    """
    runs = [run for run in runs_below(folder) if run.folder.parent == folder]
    if not runs:
        raise ConfigError(f"{folder} holds no runs; allowed: the folder of a multirun (multirun/<date>/<time>).")
    return runs


def sweep_table(folder: Path) -> tuple[pd.DataFrame, list[str]]:
    """One row per run, and the settings that differ between them.

    Returns:
        The table (columns: run, the settings that differ, status, the numbers of the headlines, of the last layer and
        medians over seeds; numbers of runs that did not complete are missing), and the names of those settings, the
        one with the most values first.

    Raises:
        ConfigError: ``folder`` holds no runs.
    """
    return table_of(sweep_runs(folder))


def table_of(runs: Sequence[LocalRun]) -> tuple[pd.DataFrame, list[str]]:
    """`sweep_table` of runs that are found already."""
    settings = {one.key: one.values for one in varied(runs) if one.key not in ("run", "status", "")}
    numbers = pd.DataFrame([_numbers(run) for run in runs])
    numbers = numbers.drop(columns=["run", *settings], errors="ignore")  # a stranger's headline may call a number so
    names = pd.DataFrame({"run": [run.name for run in runs]})
    return pd.concat([names, pd.DataFrame(settings, index=names.index), numbers], axis=1), list(settings)


def write(table: pd.DataFrame, settings: Sequence[str], folder: Path, maps: Sequence[MetricDisplay]) -> list[Path]:
    """Write ``sweep.csv``, ``sweep.md`` and, if settings differ and runs completed, ``sweep.png``; their paths."""
    paths = [folder / "sweep.csv", folder / "sweep.md"]
    with atomic(paths[0]) as path:
        table.to_csv(path, index=False, errors="backslashreplace")
    with atomic(paths[1]) as path:
        path.write_text(_markdown(table), encoding="utf-8", errors="backslashreplace")
    maps = [one for one in maps if one.name in table and _numeric(table[one.name]).notna().any()]
    if settings and maps:
        paths.append(folder / "sweep.png")
        with atomic(paths[-1]) as path:
            write_figure(sweep_figure(table, settings, maps), path, ".png")
    return paths


def heat_maps(runs: Sequence[LocalRun]) -> list[MetricDisplay]:
    """What is drawn: the numbers by which the runs are compared, and how each is shown."""
    known = {name: metric for run in reversed(runs) for name, metric in _metrics(run.summary).items()}
    labels = Columns.of(runs).numbers
    return [known.get(name) or MetricDisplay(name, label, scale="linear") for name, label in labels.items()]


def sweep_figure(table: pd.DataFrame, settings: Sequence[str], maps: Sequence[MetricDisplay]) -> "Figure":
    """Heat maps over the two settings with the most values (or the only one).

    Where runs differ in more than those two, a cell shows the worst number of its runs, and the figure says so.
    """
    rows, columns = settings[0], (*settings, None)[1]
    grid = table.assign(**{name: _categories(table[name]) for name in (rows, columns) if name})
    grid = grid if columns else grid.assign(**{"": ""})
    high, wide = grid[rows].nunique(), grid[columns or ""].nunique()
    title = f"{rows} and {columns}" if columns else rows
    highest, widest = (HIGHEST, WIDEST) if high * wide > MOST_CELLS else (math.inf, math.inf)
    sides = {"height": min(max(0.8, 0.2 * high), highest), "width": min(max(1.2, 0.26 * wide), widest)}
    with Sheet(1, len(maps), title=_literal(title), **sides) as sheet:
        for shown, axes in zip(maps, sheet.row(0), strict=True):
            grid[shown.name] = _numeric(grid[shown.name])
            worst = "min" if shown.target == 1 and not shown.logarithmic else "max"
            cells = grid.pivot_table(shown.name, rows, columns or "", aggfunc=worst, dropna=False, observed=False)
            _heat_map(sheet, axes, cells, shown)
            axes.set(ylabel=_literal(rows), xlabel=_literal(columns or ""))
        sheet.caption(_note(table, settings[2:]).replace("$", r"\$"))
    return sheet.figure


def _note(table: pd.DataFrame, over: Sequence[str]) -> str:
    """What a cell is, and which runs are in none."""
    of_run = "metrics: medians over a run's seeds"
    said = [f"a cell is the worst over {', '.join(over)}; {of_run}" if over else of_run]
    if lost := int((table.status != COMPLETED).sum()):
        said.append(f"{lost} of {len(table)} runs did not complete and {'is' if lost == 1 else 'are'} left out")
    return "; ".join(said)


def _categories(values: pd.Series) -> pd.Categorical:
    """Settings as their texts, numbers in their own order: a table is not pivoted over lists, nor over mixed types."""
    plain = [None if isinstance(value, float) and np.isnan(value) else value for value in values]
    numbers = all(isinstance(value, int | float | None) for value in plain)
    order = sorted(plain, key=lambda value: (value is not None, value or 0) if numbers else _short(value))
    return pd.Categorical(map(_short, plain), list(dict.fromkeys(map(_short, order))))


def _numeric(values: pd.Series) -> pd.Series:
    return pd.to_numeric(values, errors="coerce")


def _heat_map(sheet: Sheet, axes: "Axes", cells: pd.DataFrame, shown: MetricDisplay) -> None:
    from matplotlib.colors import LogNorm

    values = cells.to_numpy(dtype=float)
    positive = values[np.isfinite(values) & (values > 0)]
    norm = None
    spread = positive.size == np.isfinite(values).sum() and positive.size and positive.max() > 10 * positive.min()
    if positive.size and (shown.logarithmic or spread):  # one diverged run would make all others one colour
        norm = LogNorm(positive.min(), max(positive.max(), positive.min() * 1.01), clip=True)
    image = axes.imshow(values, aspect="auto", cmap=f"{style.SEQUENTIAL}_r", norm=norm)
    axes.set_xticks(range(len(cells.columns)), [_literal(name) for name in cells.columns])
    axes.set_yticks(range(len(cells.index)), [_literal(name) for name in cells.index])
    axes.grid(visible=False)
    if values.size <= MOST_CELLS:
        sheet.cells(axes, np.where(np.isfinite(values), values, np.nan), image)
    sheet.figure.colorbar(image, ax=axes, label=_typeset(shown), aspect=12)


def _literal(text: object) -> str:
    """Text in which dollars are dollars, no longer than there is room for."""
    return one_line(str(text), LONGEST_LABEL).replace("$", r"\$")


def _typeset(shown: MetricDisplay) -> str:
    """A title with its mathematics, if it is any."""
    try:
        from matplotlib.mathtext import MathTextParser

        MathTextParser("path").parse(shown.title)
    except ValueError:
        return shown.text
    return shown.title


def _metrics(summary: RunSummary) -> dict[str, MetricDisplay]:
    known = (entry.name for entry in summary.headline if entry.name in summary.metrics)
    return {GAP.name: GAP} | {name: summary.metrics[name] for name in known}


def _numbers(run: LocalRun) -> dict[str, Any]:
    """The status of a run and, if it completed, the numbers of its headline; those of a head as wandb has them."""
    summary = run.summary
    if not run.completed:
        return {"status": f"unreadable: {run.error}" if run.unreadable else summary.status or "missing"}
    found = headline(summary, seed=None)
    plain = {name: value for name, value in found.items() if isinstance(value, int | float) and name != "collapsed"}
    more = {one.name: one.value for one in summary.headline if not isinstance(one.value, str)}
    return {"status": summary.status} | plain | {name: value for name, value in more.items() if name not in plain}


def _markdown(table: pd.DataFrame) -> str:
    lines = [list(table.columns), ["---"] * len(table.columns)]
    lines += [[_short(value) for value in row] for row in table.itertuples(index=False)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def _short(value: Any) -> str:
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return ""
    return f"{value:.4g}" if isinstance(value, float) else printable(str(value))
