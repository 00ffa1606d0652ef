"""Kernels of wide networks on Gaussian clouds: which of them are more collapsed than the data, and than each other.

Paper: Kothapalli & Tirer, arXiv 2406.02105. Claims (a) to (d) are theirs (read); the numbers in the last claims are
    the specification's own earlier runs, which drew other samples. Kernels are computed; networks of two layers
    beside them, on two equal classes, are trained as the paper does (read), and from a mean-field start (ours).
Shows: log10 DNC1 of NNGP, NTK, the adapted kernel and hidden features of networks (F1), and over DNC1 of the data (F2),
    against the dimension.
Expects: NTK never more collapsed than NNGP, erf more than ReLU, the adapted kernel more than NNGP; networks that stay
    where they start, but for those with a mean-field start, which are more collapsed.
Evidence: docs/reproduction/beyond.md and kernels*.csv there.
    Command: scripts/reproduce kernels --cpu
    Machine: 2 shared cores, no GPU, float64, torch 2.14.1; 2 min of CPU. The full version has not been run.
    Date: 2026-11-27. Commit of the code: the one that brought this file.
"""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from pipeline.studies.engine.claims import OURS, READ, Claim, owned
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
NETWORKS = {"net": "network", "mean_field": "mean-field start"}
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
SEEN_NETWORKS: Mapping[int, Mapping[str, float]] = {
    1: {"relu_net": -0.95, "erf_net": -2.12},
    8: {"relu_net": -0.93, "erf_net": -1.04},
    32: {"relu_net": -0.96, "erf_net": -1.03},
    128: {"relu_net": -0.92, "erf_net": -1.10},
}
"""The same of trained networks."""
LAZY = 0.1
"""Decades that a network may move from its start to count as lazy."""


def _points(sizes: Sequence[int], shrunk: tuple[str, ...] = ()) -> tuple[Point, ...]:
    """Two classes of each size N over all dimensions."""
    axes = {"data.samples_per_class": [size // 2 for size in sizes], "data.dim": DIMENSIONS}
    return tuple(Grid("two", axes, ("protocol.network_width=500",)).points(lambda values: shrunk))


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
    "mean-field start": "a small last layer alone does not make features move; probably it has grown to its fit at the "
    "same learning rate, before the first layer, whose gradient is small with it, has left its start",
    "stay lazy": "the bound: one network of thirty moves by .102",
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
    made = owned(READ, *made, _follows(found))
    made += owned(OURS, _lazy(found))
    text = "mean-field start: more collapsed than the network that starts as the paper's"
    for activation in ACTIVATIONS:
        names = (f"{activation}_net", f"{activation}_mean_field")
        made.append(_never_below(f"{activation}, {text}", found, *names, True))
    seen = [result for result in results if _was_seen(result)]
    made += [_as_seen(result, found[result.point.name], SEEN) for result in seen]
    return made + [
        _as_seen(result, found[result.point.name], SEEN_NETWORKS)
        for result in seen
        if "erf_net" in found[result.point.name]
    ]


def _follows(tables: Mapping[str, pd.DataFrame]) -> Claim:
    """Whether trained networks are nearer to NNGP than to the adapted kernel somewhere."""
    text, expected = "(d) adapted kernel may not follow the network: NNGP is nearer to it", "at some dimension"
    columns = ["erf_net", "erf_adaptive", "erf_nngp"]
    whole = {name: table[columns].dropna() for name, table in tables.items() if {*columns} <= {*table.columns}}
    if not whole:
        return Claim(text, expected, "no networks in these runs", None)
    away = {
        name: [float((table[kernel] - table.erf_net).abs().mean()) for kernel in columns[1:]]
        for name, table in whole.items()
    }
    farther = [name for name, (adapted, plain) in away.items() if adapted > plain]
    largest = max(adapted for adapted, _ in away.values())
    measured = f"at {len(farther)} of {len(away)} points; adapted kernel at most {largest:.3f} decades off"
    return Claim(text, expected, measured, bool(farther))


def _lazy(tables: Mapping[str, pd.DataFrame]) -> Claim:
    """Whether networks from the paper's start end where they begin, in every draw (as was seen before)."""
    moved = [
        (table[f"{activation}_net"] - table[f"{activation}_start"]).abs().dropna()
        for table in tables.values()
        for activation in ACTIVATIONS
        if f"{activation}_net" in table
    ]
    text, expected = (
        "the paper's networks stay lazy: DNC1 after training is that at the start",
        f"within {LAZY:g} decades",
    )
    if not moved:
        return Claim(text, expected, "no networks in these runs", None)
    values = pd.concat(moved)
    passed = int((values <= LAZY).sum())
    measured = f"{passed} of {len(values)} networks, at most {values.max():.3f} off"
    return Claim(text, expected, measured, passed == len(values))


def _never_below(text: str, tables: Mapping[str, pd.DataFrame], upper: str, lower: str, strictly: bool) -> Claim:
    """In every draw of every point one kernel has at least (or more than) the other's DNC1."""
    gaps = [table[upper] - table[lower] for table in tables.values() if {upper, lower} <= {*table.columns}]
    gaps = pd.concat(gaps).dropna() if gaps else pd.Series(dtype=float)
    if gaps.empty:
        return Claim(text, "every draw", "not measured", None)
    passed = int((gaps > 0).sum() if strictly else (gaps >= -SLACK).sum())
    measured = f"{passed} of {len(gaps)} draws, {gaps.min():.3f} to {gaps.max():.3f} decades apart"
    return Claim(text, "every draw", measured, passed == len(gaps))


def _was_seen(result: Result) -> bool:
    data = result.config.data
    return data.dim in SEEN and data.num_classes == 2 and data.samples_per_class == 64 and not data.imbalance


def _as_seen(result: Result, table: pd.DataFrame, known: Mapping[int, Mapping[str, float]]) -> Claim:
    """The mean over draws against the specification's table; N = 128."""
    seen, mean = known[result.config.data.dim], table.mean()
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
    about = "of kernels and networks, two equal classes (mean and std over draws)"
    absolute = _panels(lines, r"$\log_{10}$ DNC1", f"DNC1 {about}")
    relative = _panels(lines, r"$\log_{10}$ DNC1 over that of the data", f"DNC1 {about}, over DNC1 of the data")
    return {"kernels": absolute, "kernels_over_data": relative}


def _panels(lines: Mapping[int, Mapping[int, pd.DataFrame]], label: str, title: str) -> "Figure":
    """Mean and std over draws against the dimension: a row per activation, a column per kernel, a line per N."""
    relative = label.endswith("data")
    trained = any("erf_net" in table for tables in lines.values() for table in tables.values())
    columns = KERNELS | (NETWORKS if trained else {})
    with Sheet(len(ACTIVATIONS), len(columns), title=title, alike=True, same_x=True) as sheet:
        for row, activation in enumerate(ACTIVATIONS):
            for column, (kernel, text) in enumerate(columns.items()):
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
        spread = np.array([values.std() if values.count() > 1 else 0.0 for values in drawn])
        axes.plot([*known], middle, marker="o", color=style.PALETTE[place])
        axes.fill_between([*known], middle - spread, middle + spread, color=style.PALETTE[place], **style.BAND)


def tables(results: Sequence[Result]) -> dict[str, pd.DataFrame]:
    """Mean and std of log10 DNC1 over draws, of every point and kernel."""
    rows = []
    for result in results:
        data, found = result.config.data, values(result)
        for name in found:
            count = found[name].count()
            spread = found[name].std() if count > 1 else math.nan
            rows.append([result.point.name, data.num_classes, data.dim, name, count, found[name].mean(), spread])
    columns = ["point", "classes", "dim", "kernel", "draws", "log10_dnc1", "std"]
    return {"kernels": pd.DataFrame(rows, columns=columns)}


STUDY = Study(
    name="kernels",
    group=GROUP,
    title="DNC1 of NNGP, NTK, adapted kernels and networks on Gaussian clouds, against the dimension",
    versions={
        FULL: (*_points((128, 256, 512, 1024)), *MORE),
        CPU: (*_points((128,)), *MORE),
        QUICK: _points((128,), ("protocol.repeats=3", "protocol.network_draws=1", "protocol.network_epochs=300")),
    },
    draw=draw,
    claims=claims,
    reasons=REASONS,
    tables=tables,
)
