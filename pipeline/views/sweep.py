"""The command ``scripts/sweep_table``: the runs of a sweep side by side, as a table and as heat maps.

Reads ``summary.json`` and ``.hydra/config.yaml`` of every run in a folder (a multirun's, or any that holds run folders)
and writes ``sweep.csv``, ``sweep.md`` and ``sweep.png`` beside them.
"""

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import yaml
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from pipeline.dufm.verdict import METRICS
from pipeline.runtime.errors import ConfigError
from pipeline.runtime.files import atomic
from pipeline.storage.record import COMPLETED, read_summary
from pipeline.views.figures import STYLE, TITLES
from pipeline.views.wandb.content import headline

EXIT_BAD_ARGUMENTS = 2
MAPS = {"gap_to_optimum": "gap to the optimum, worst seed"} | {metric: TITLES[metric] for metric in METRICS}
"""Numbers drawn as heat maps, where runs have them. DNC1-3 are those of the last layer, medians over seeds."""
LOGARITHMIC = ("gap_to_optimum", "dnc1")


def main(arguments: Sequence[str] | None = None) -> None:
    """Console entry point; exits 0 done, 2 when there is nothing to compare."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if len(given) != 1 or given[0].startswith("-"):
            raise ConfigError(f"{' '.join(given) or 'no argument'} is not one folder; allowed: sweep_table FOLDER.")
        table, varied = sweep_table(Path(given[0]))
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(EXIT_BAD_ARGUMENTS)
    for path in write(table, varied, Path(given[0])):
        print(path)


def sweep_table(folder: Path) -> tuple[pd.DataFrame, list[str]]:
    """One row per run, and the settings that differ between them.

    Returns:
        The table (columns: run, the settings that differ, status, headline numbers, DNC1-3 of the head's last layer;
        numbers of runs that did not complete are missing), and the names of those settings, the one with the most
        values first.

    Raises:
        ConfigError: ``folder`` holds no runs.
    """
    runs = sorted((path.parent for path in folder.glob("*/.hydra")), key=lambda run: _natural(run.name))
    if not runs:
        raise ConfigError(f"{folder} holds no runs; allowed: the folder of a multirun (multirun/<date>/<time>).")
    settings = pd.DataFrame([dict(_flat(_config(run))) for run in runs])
    values = settings.astype(object).where(settings.notna(), None).map(str)
    counts = values.nunique().sort_values(ascending=False, kind="stable")
    varied = [name for name, count in counts.items() if count > 1 and not str(name).startswith("logger.")]
    numbers = pd.DataFrame([_numbers(run) for run in runs])
    return pd.concat([pd.DataFrame({"run": [run.name for run in runs]}), settings[varied], numbers], axis=1), varied


def write(table: pd.DataFrame, varied: Sequence[str], folder: Path) -> list[Path]:
    """Write ``sweep.csv``, ``sweep.md`` and, if settings differ and runs completed, ``sweep.png``; their paths."""
    paths = [folder / "sweep.csv", folder / "sweep.md"]
    with atomic(paths[0]) as path:
        table.to_csv(path, index=False)
    with atomic(paths[1]) as path:
        path.write_text(_markdown(table))
    if varied and any(table[name].notna().any() for name in MAPS if name in table):
        paths.append(folder / "sweep.png")
        with atomic(paths[-1]) as path, matplotlib.rc_context(STYLE):
            sweep_figure(table, varied).savefig(path, dpi=200)
    return paths


def sweep_figure(table: pd.DataFrame, varied: Sequence[str]) -> Figure:
    """Heat maps over the two settings with the most values (or the only one).

    Where runs differ in more than those two, a cell shows the worst (largest) of its runs.
    """
    names = [name for name in MAPS if name in table and table[name].notna().any()]
    rows, columns = varied[0], (*varied, None)[1]
    figure = Figure(figsize=(4.2 * len(names), 0.8 + 0.5 * table[rows].nunique() + 1.2), layout="constrained")
    for name, axes in zip(names, figure.subplots(1, len(names), squeeze=False)[0], strict=True):
        grid = table.assign(**({columns: table[columns]} if columns else {"": ""}))
        _heat_map(grid.pivot_table(name, rows, columns or "", aggfunc="max", dropna=False), axes, name)
        axes.set(title=MAPS[name], ylabel=rows, xlabel=columns or "")
    return figure


def _heat_map(cells: pd.DataFrame, axes: Axes, name: str) -> None:
    values = cells.to_numpy(dtype=float)
    positive = values[np.isfinite(values) & (values > 0)]
    norm = None
    if name in LOGARITHMIC and positive.size:
        norm = LogNorm(positive.min(), max(positive.max(), positive.min() * 1.01), clip=True)
    axes.imshow(values, aspect="auto", cmap="viridis_r", norm=norm)
    axes.set_xticks(range(len(cells.columns)), [_short(value) for value in cells.columns])
    axes.set_yticks(range(len(cells.index)), [_short(value) for value in cells.index])
    axes.grid(visible=False)
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value):
            label = {"facecolor": "white", "alpha": 0.7, "linewidth": 0, "boxstyle": "round,pad=0.15"}
            axes.text(column, row, f"{value:.2g}", ha="center", va="center", bbox=label)


def _config(run: Path) -> dict[str, Any]:
    return yaml.safe_load((run / ".hydra" / "config.yaml").read_text()) or {}


def _flat(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _numbers(run: Path) -> dict[str, Any]:
    summary = read_summary(run) or {"status": "missing"}
    if summary["status"] != COMPLETED:
        return {"status": summary["status"]}
    found = headline(summary, seed=None)
    del found["verdict"], found["collapsed"]
    found.pop("fixed_head", None)
    *_, last = (place for place in summary["verdict"]["layers"] if place["stage"] == "head")
    return found | {metric: last[metric] and last[metric]["value"] for metric in METRICS}


def _markdown(table: pd.DataFrame) -> str:
    lines = [list(table.columns), ["---"] * len(table.columns)]
    lines += [[_short(value) for value in row] for row in table.itertuples(index=False)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def _short(value: Any) -> str:
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _natural(name: str) -> list[Any]:
    """Sort key by which job 10 comes after job 9."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", name) if part]


if __name__ == "__main__":
    main()
