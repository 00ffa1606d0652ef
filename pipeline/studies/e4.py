"""E4: how collapse in a real network depends on decay, width, depth, learning rate and activation of the head.

Every point is one network and one seed, the MLP on MNIST 4 and 9 trained together with its head.

Paper: ours; what is expected is recalled from arXiv 2305.13165, and of linear heads from 2410.04887, not read.
Shows: DNC1-3 of the last layer of the head and the accuracies against each setting.
Expects: the last layer collapses at every setting but for narrow heads; DNC2 the nearer to 1 the larger lr x decay.
Evidence: docs/reproduction/real.md and e4*.csv there, of --cpu.
    Command: scripts/reproduce e4 --cpu --jobs 2 data.root=DATA
    Machine: 2 cores of an Intel Xeon (AVX-512, model not named), 24 GiB, no GPU, torch 2.14.1; 93 min with E3.
    Date: committed 2026-11-24. Commit of the code: not recorded. The full version was not run.
"""

from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import TYPE_CHECKING, Any

from pipeline.studies._networks import (
    EXPECTATION,
    GROUP,
    QUICK_SHRUNK,
    accuracy,
    chain,
    chain_of,
    groups,
    images,
    tables,
)
from pipeline.studies._networks_drawing import count_of_networks, lost
from pipeline.studies._settings import NOT_IN_THE_PAPER, TERMINAL, at_most, completed, over_settings
from pipeline.studies.engine.claims import RECALLED, Claim
from pipeline.studies.engine.results import Point, Result
from pipeline.studies.engine.study import CPU, FULL, QUICK, Grid, Study
from pipeline.views import marks, style
from pipeline.views.figures import PANELS as METRICS
from pipeline.views.sheet import Sheet

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SEEDS = (0, 1, 2, 3, 4)
WIDE = 16
"""From this width on a head must collapse."""
SWEPT = {
    "decay": {"head.weight_decay": (5e-4, 2e-3, 1e-2, 2e-2)},
    "standard": {"optimizer.weight_decay": (1e-4, 5e-4, 1e-3, 5e-3, 1e-2)},
    "width": {"head.width": (2, 4, 8, 16, 256)},
    "depth": {"head.depth": (2, 3, 6, 8)},
    "lr": {"optimizer.lr": (0.002, 0.01, 0.02, 0.1)},
    "activation": {"head.activation": ("linear",)},
    "base": {},
}
"""What is swept over, by the names of the grids. The value of the base point, which belongs to all, is left out."""
FIXED = {"standard": ("protocol.regularization=standard",)}
QUICK_SWEPT = {
    "decay": {"head.weight_decay": (5e-4, 2e-2)},
    "standard": {"optimizer.weight_decay": (1e-3,)},
    "width": {"head.width": (4,)},
    "depth": {"head.depth": (2,)},
    "lr": {"optimizer.lr": (0.01,)},
    "activation": {"head.activation": ("linear",)},
    "base": {},
}
CPU_SHRUNK = ("data.samples_per_class=1000", "backbone.epochs=150", "backbone.batch_size=64")
SMALLER = (*QUICK_SHRUNK, "data.samples_per_class=200", "backbone.epochs=30")
REASONS = {
    "DNC2 of the last layer": "training time: DNC2 comes to 1 with the time constants 1 / (lr x decay) that a training "
    "lasts, see the claims on decay and learning rate",
}
PANELS: dict[str, tuple[str, Callable[[Result], Any], bool]] = {
    # name -> (axis, value of a run, logarithmic)
    "decay": ("decay of head (DUFM's penalties)", lambda r: r.config.head.weight_decay, True),
    "standard": ("decay of all weights", lambda r: r.config.optimizer.weight_decay, True),
    "width": ("width of head", lambda r: r.config.head.width, True),
    "depth": ("depth $L$ of head", lambda r: r.config.head.depth, False),
    "lr": (r"learning rate $\eta$", lambda r: r.config.optimizer.lr, True),
    "activation": ("activation of head", lambda r: r.config.head.activation, False),
}


def _grids(swept: Mapping[str, Mapping[str, tuple]], seeds: tuple[int, ...]) -> tuple[Grid, ...]:
    return tuple(Grid(name, {**axes, "seed": seeds}, FIXED.get(name, ())) for name, axes in swept.items())


def _points(grids: tuple[Grid, ...], shrunk: tuple[str, ...] = ()) -> tuple[Point, ...]:
    return tuple(point for grid in grids for point in grid.points(lambda values: shrunk))


GRIDS = _grids(SWEPT, SEEDS)


def swept(results: Sequence[Result], name: str) -> list[Result]:
    """The runs of a sweep, with the base point unless that belongs to another regularisation."""
    base = [] if name == "standard" else [r for r in results if r.point.name.startswith("base")]
    return [r for r in results if r.point.name.startswith(f"{name}-")] + base


def claims(results: Sequence[Result]) -> list[Claim]:
    """How collapse depends on the settings of the head."""
    sweeps = {name: swept(results, name) for name in PANELS}
    limits = results[0].config.verdict
    narrow = [result for result in sweeps["width"] if result.config.head.width < 4]
    wide = [result for result in sweeps["width"] if result.config.head.width >= WIDE]
    made = [
        over_settings(f"{text}: DNC1 of the last layer <= {limits.dnc1:g}", paper, own, at_most("dnc1", limits.dnc1))
        for text, paper, own in (
            ("at every decay of the head (dufm)", "collapses", sweeps["decay"]),
            ("at every decay of all weights (standard)", "collapses", sweeps["standard"]),
            (f"at every width from {WIDE} on", "collapses", wide),
            ("at every depth", "collapses", sweeps["depth"]),
            ("at every learning rate", NOT_IN_THE_PAPER, sweeps["lr"]),
            ("with a linear head", "collapses (arXiv 2410.04887)", [r for r in sweeps["activation"] if not _relu(r)]),
        )
    ]
    made += [
        over_settings(f"{text}: DNC2 of the last layer <= {limits.dnc2:g}", paper, own, at_most("dnc2", limits.dnc2))
        for text, paper, own in (
            ("at every decay of the head (dufm)", "tends to 1", sweeps["decay"]),
            (f"at every width from {WIDE} on", "tends to 1", wide),
            ("at every depth", "tends to 1", sweeps["depth"]),
        )
    ]
    if narrow:
        text = f"width {narrow[0].config.head.width}: some networks do not fit their training images"
        shares = [accuracy(result, "train") for result in narrow]
        stuck = sum(not share >= TERMINAL for share in shares)
        measured = f"{stuck} of {len(shares)} networks"
        made.append(Claim(text, "narrow heads get stuck", measured, stuck > 0, RECALLED))
    made.append(_ordered("stronger decay of the head brings DNC2 closer to 1", sweeps["decay"], "weight_decay"))
    made.append(_ordered("a larger learning rate brings DNC2 closer to 1", sweeps["lr"], "lr"))
    return made


def _ordered(text: str, results: Sequence[Result], key: str) -> Claim:
    """DNC2 of the last layer falls strictly from the smallest to the largest value of a setting (ends compared)."""
    fitted = {}
    for group in groups(results).values():
        shares = [accuracy(result, "train") for result in completed(group)]
        if shares and median(shares) >= TERMINAL:
            config = group[0].config
            value = config.head.weight_decay if key == "weight_decay" else config.optimizer.lr
            fitted[value] = chain(completed(group), "dnc2")[-1]
    ends = sorted(fitted)
    measured = ", ".join(f"{value:g}: {fitted[value]:.3g}" for value in ends)
    return Claim(text, NOT_IN_THE_PAPER, measured, None if len(ends) < 2 else fitted[ends[-1]] < fitted[ends[0]])


def _relu(result: Result) -> bool:
    return result.config.head.activation == "relu"


def draw(results: Sequence[Result]) -> "dict[str, Figure]":
    """The last layer's DNC1-3 and the accuracy against every setting, training and test images."""
    panels = {name: own for name in PANELS if (own := swept(results, name))}
    config = results[0].config
    title = f"{images(results[0])}, {config.backbone.name}, backbone and head trained together: last layer of the head "
    title += f"after {config.backbone.epochs} epochs, {count_of_networks(results)} per setting"
    with Sheet(4, len(panels), title=title, alike=True, same_x=True) as sheet:
        for place, (name, own) in enumerate(panels.items()):
            column = sheet.column(place)
            if said := lost(own):
                sheet.tag(column[0], said)
            for metric, axes in zip((*METRICS, "accuracy"), column, strict=True):
                _panel(axes, name, metric, own)
        sheet.legend(_handles())
    return {"e4": sheet.figure}


def _panel(axes: "Axes", name: str, metric: str, results: Sequence[Result]) -> None:
    """One quantity against one setting; networks that do not fit their training images are open."""
    title, value, logarithmic = PANELS[name]
    values = sorted({value(result) for result in results}, key=lambda v: (isinstance(v, str), v))
    numbers = not isinstance(values[0], str)
    at = values if numbers else list(range(len(values)))
    for split, color, marker, side in (("train", style.TRAIN, "o", -1), ("test", style.TEST, "^", 1)):
        seeds = [[_last(r, metric, split) for r in results if value(r) == v] for v in values]
        unfitted = [[accuracy(r, "train") < TERMINAL for r in results if value(r) == v] for v in values]
        # Side by side, so that neither split hides the other.
        beside = [place * 1.06**side if logarithmic else place + 0.12 * side for place in at]
        marks.seeds(axes, beside, seeds, color=color, marker=marker, joined=numbers, unlike=unfitted)
    if metric != "accuracy":
        axes.axhline(getattr(results[0].config.verdict, metric), **style.THRESHOLD)
    if metric == "dnc2":
        axes.axhline(1.0, **style.OPTIMUM)
    label = metric.upper() if metric in METRICS else metric
    axes.set(xscale="log" if logarithmic else "linear", yscale="linear" if metric == "accuracy" else "log")
    axes.set(ylabel=label, xlabel=title)
    if numbers:
        marks.numbered(axes, values)
    else:
        marks.named(axes, values)


def _handles() -> list[Any]:
    return [
        marks.dot("training images", style.TRAIN),
        marks.dot("test images", style.TEST, "^"),
        marks.dot(f"open: less than {TERMINAL:.1%} of the training images fitted", style.GREY, filled=False),
        marks.line("median"),
        marks.line("threshold", **style.THRESHOLD),
        marks.line("value at collapse", **style.OPTIMUM),
    ]


def _last(result: Result, metric: str, split: str) -> float:
    if metric == "accuracy":
        return accuracy(result, split)
    return chain_of(result, metric if split == "train" else f"test_{metric}")[-1]


STUDY = Study(
    name="e4",
    group=GROUP,
    title="real networks against decay, width, depth, learning rate and activation of the head",
    versions={
        FULL: _points(GRIDS),
        CPU: _points(_grids(SWEPT, (0, 1, 2)), (*CPU_SHRUNK, "descent.records_per_decade=5")),
        QUICK: _points(_grids(QUICK_SWEPT, (0,)), SMALLER),
    },
    draw=draw,
    claims=claims,
    reasons=REASONS,
    tables=tables("e4"),
    expectation=EXPECTATION,
    grids=GRIDS,
)
