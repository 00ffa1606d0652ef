"""Kernels of wide networks on Gaussian clouds: which of them are more collapsed than the data, and than each other.

Paper: Kothapalli & Tirer, arXiv 2406.02105. Claims (a) to (d) are theirs (read); the numbers in the last claims are
    the specification's own earlier runs, which drew other samples. Nothing is trained: each point computes kernels.
Shows: log10 DNC1 of NNGP, NTK and the adapted kernel (F1), and over DNC1 of the data (F2), against the dimension.
Expects: NTK never more collapsed than NNGP, erf more than ReLU, the adapted kernel more than NNGP.
Evidence: docs/reproduction/beyond.md and kernels*.csv there.
    Command: scripts/reproduce kernels --cpu
    Machine: 2 shared cores, no GPU, float64, torch 2.14.1; 2 min. The full version has not been run.
    Date: 2026-11-26. Commit of the code: the one that brought this file.
"""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from pipeline.studies.engine.claims import READ, Claim, owned
from pipeline.studies.engine.results import Point, Result
from pipeline.studies.engine.study import CPU, FULL, QUICK, Grid, Study
from pipeline.views import marks, style
from pipeline.views.sheet import Sheet

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GROUP = "beyond"
DIMENSIONS = (1, 2, 8, 32, 128)
KERNELS = {"nngp": "NNGP", "ntk": "NTK", "adaptive": "adapted"}
ACTIVATIONS = ("relu", "erf")
SLACK = 1e-9
"""Relative: at d_0 = 1 NTK and NNGP of ReLU are exactly as collapsed as each other."""
NEAR = 0.1
"""Decades that another draw may differ by."""
SEEN: Mapping[int, Mapping[str, float]] = {
    1: {"inputs": -1.25, "relu_nngp": -0.95, "relu_ntk": -0.95, "erf_nngp": -2.13, "erf_ntk": -1.54},
    8: {"inputs": -1.22, "relu_nngp": -0.95, "relu_ntk": -0.67, "erf_nngp": -1.05, "erf_ntk": -0.75},
    32: {"inputs": -1.21, "relu_nngp": -0.94, "relu_ntk": -0.65, "erf_nngp": -1.00, "erf_ntk": -0.69},
    128: {"inputs": -1.21, "relu_nngp": -0.95, "relu_ntk": -0.65, "erf_nngp": -0.99, "erf_ntk": -0.68},
}
"""log10 DNC1 by dimension for N = 128, two classes, as the specification has seen it."""


def _points(sizes: Sequence[int], shrunk: tuple[str, ...] = ()) -> tuple[Point, ...]:
    """Two classes of each size N over all dimensions."""
    axes = {"data.samples_per_class": [size // 2 for size in sizes], "data.dim": DIMENSIONS}
    return tuple(Grid("two", axes).points(lambda values: shrunk))


FOUR = Grid("four", {"data.dim": DIMENSIONS}, ("data.num_classes=4", "data.samples_per_class=32"))
UNEQUAL = Grid("unequal", {"data.dim": DIMENSIONS}, ("data.samples_per_class=96", "data.imbalance=0.34"))
MORE = (*FOUR.points(), *UNEQUAL.points())


def values(result: Result) -> pd.DataFrame:
    """log10 DNC1: one row per draw, one column per kernel, and one of the data themselves (``inputs``)."""
    record = result.record
    table = record[record.metric == "dnc1"].pivot(index="seed", columns="layer", values="value")
    return np.log10(table)


ORDERS = (
    ("(a) ReLU: NTK never more collapsed than NNGP", "relu_ntk", "relu_nngp", False),
    ("(a) erf: NTK never more collapsed than NNGP", "erf_ntk", "erf_nngp", False),
    ("(b) adapted kernel more collapsed than NNGP", "erf_nngp", "erf_adaptive", True),
    ("(c) NNGP: erf more collapsed than ReLU", "relu_nngp", "erf_nngp", True),
    ("(c) NTK: erf more collapsed than ReLU", "relu_ntk", "erf_ntk", True),
)
"""Claim, the kernel of larger DNC1, that of smaller, and whether they may not be equal."""
REASONS = {
    "four classes": "open; the means of four classes, in equal steps on a diagonal, are ours and not the paper's",
    "d_0 = 1:": "another draw: DNC1 of the data is a variance over 128 numbers, with a std of 0.055 decades per draw",
}
KINDS = {"two": "two equal classes", "four": "four classes", "unequal": "classes of 96 and 32"}


def claims(results: Sequence[Result]) -> list[Claim]:
    """The paper's, for each kind of data; then whether what was seen before is seen again."""
    found = {result.point.name: values(result) for result in results}
    made = []
    for kind, title in KINDS.items():
        ours = {name: table for name, table in found.items() if name.startswith(f"{kind}-")}
        if ours:
            made += [_never_below(f"{text}, {title}", ours, *names) for text, *names in ORDERS]
    made.append(Claim("(d) adapted kernel may not follow the network", "no", "no networks in this study", None))
    return owned(READ, *made) + [_as_seen(result, found[result.point.name]) for result in results if _was_seen(result)]


def _never_below(text: str, tables: Mapping[str, pd.DataFrame], upper: str, lower: str, strictly: bool) -> Claim:
    """In every draw of every point one kernel has at least (or more than) the other's DNC1."""
    gaps = [table[upper] - table[lower] for table in tables.values() if {upper, lower} <= {*table.columns}]
    gaps = pd.concat(gaps) if gaps else pd.Series(dtype=float)
    if gaps.empty:
        return Claim(text, "every draw", "not measured", None)
    passed = int((gaps > 0).sum() if strictly else (gaps >= -SLACK).sum())
    measured = f"{passed} of {len(gaps)} draws, {gaps.min():.3f} to {gaps.max():.3f} decades apart"
    return Claim(text, "every draw", measured, passed == len(gaps))


def _was_seen(result: Result) -> bool:
    data = result.config.data
    return data.dim in SEEN and data.num_classes == 2 and data.samples_per_class == 64 and not data.imbalance


def _as_seen(result: Result, table: pd.DataFrame) -> Claim:
    """The mean over draws against the specification's table; N = 128."""
    seen, mean = SEEN[result.config.data.dim], table.mean()
    off = max(abs(mean[name] - value) for name, value in seen.items())
    text = f"N = 128, d_0 = {result.config.data.dim}: log10 DNC1 of {', '.join(seen)} (seen before)"
    measured = ", ".join(f"{mean[name]:.2f}" for name in seen)
    expected = ", ".join(f"{value:.2f}" for value in seen.values()) + f", within {NEAR:g}"
    return Claim(text, expected, measured, bool(off <= NEAR))


def draw(results: Sequence[Result]) -> "dict[str, Figure]":
    """F1 and F2 for two equal classes."""
    lines: dict[int, dict[int, pd.DataFrame]] = {}
    for result in results:
        data = result.config.data
        if data.num_classes == 2 and not data.imbalance:
            lines.setdefault(2 * data.samples_per_class, {})[data.dim] = values(result)
    if not lines:
        return {}
    about = "of the kernel, two equal classes (mean and std over draws)"
    absolute = _panels(lines, r"$\log_{10}$ DNC1", f"DNC1 {about}")
    relative = _panels(lines, r"$\log_{10}$ DNC1 over that of the data", f"DNC1 {about}, over DNC1 of the data")
    return {"kernels": absolute, "kernels_over_data": relative}


def _panels(lines: Mapping[int, Mapping[int, pd.DataFrame]], label: str, title: str) -> "Figure":
    """Mean and std over draws against the dimension: a row per activation, a column per kernel, a line per N."""
    relative = label.endswith("data")
    with Sheet(len(ACTIVATIONS), len(KERNELS), title=title, alike=True, same_x=True) as sheet:
        for row, activation in enumerate(ACTIVATIONS):
            for column, (kernel, text) in enumerate(KERNELS.items()):
                axes, name = sheet[row, column], f"{activation}_{kernel}"
                if row == 0:
                    sheet.tag(axes, text)
                elif column == 0:  # the others share theirs with this one
                    axes.sharey(sheet[0, 0])
                axes.set(xlabel="dimension $d_0$", ylabel=f"{label}, {activation}", xscale="log")
                if any(name in table for tables in lines.values() for table in tables.values()):
                    _curves(axes, name, lines, relative)
                else:
                    sheet.note(axes, "erf alone" if activation == "relu" else "not measured")
                marks.numbered(axes, DIMENSIONS)
        sizes = enumerate(sorted(lines))
        sheet.legend([marks.line(f"N = {size}", style.PALETTE[place], marker="o") for place, size in sizes])
    return sheet.figure


def _curves(axes: "Axes", name: str, lines: Mapping[int, Mapping[int, pd.DataFrame]], relative: bool) -> None:
    for place, (_, tables) in enumerate(sorted(lines.items())):
        known = {dim: table for dim, table in sorted(tables.items()) if name in table}
        drawn = [table[name] - (table["inputs"] if relative else 0.0) for table in known.values()]
        middle = np.array([values.mean() for values in drawn])
        spread = np.array([values.std() if len(values) > 1 else 0.0 for values in drawn])
        axes.plot([*known], middle, marker="o", color=style.PALETTE[place])
        axes.fill_between([*known], middle - spread, middle + spread, color=style.PALETTE[place], **style.BAND)


def tables(results: Sequence[Result]) -> dict[str, pd.DataFrame]:
    """Mean and std of log10 DNC1 over draws, of every point and kernel."""
    rows = []
    for result in results:
        data, found = result.config.data, values(result)
        for name in found:
            spread = found[name].std() if len(found) > 1 else math.nan
            rows.append([result.point.name, data.num_classes, data.dim, name, len(found), found[name].mean(), spread])
    columns = ["point", "classes", "dim", "kernel", "draws", "log10_dnc1", "std"]
    return {"kernels": pd.DataFrame(rows, columns=columns)}


STUDY = Study(
    name="kernels",
    group=GROUP,
    title="DNC1 of NNGP, NTK and adapted kernels on Gaussian clouds, against the dimension",
    versions={
        FULL: (*_points((128, 256, 512, 1024)), *MORE),
        CPU: (*_points((128,)), *MORE),
        QUICK: _points((128,), ("protocol.repeats=3",)),
    },
    draw=draw,
    claims=claims,
    reasons=REASONS,
    tables=tables,
)
