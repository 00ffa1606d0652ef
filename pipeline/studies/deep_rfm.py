"""Deep RFM: a machine without gradient descent collapses layer by layer, by the average gradient outer product.

Paper: arXiv 2402.13728 (average gradient outer product as a mechanism for deep neural collapse).
Shows: NC1 and NC2 against the layer for rows X, X M^1/2 and random features, with M and with M = I; the Gram matrices
    of the last layer.
Expects: NC1 and NC2 fall with depth; the projection does it, the random features undo a little; not so with M = I.
Evidence: docs/reproduction/measures.md and deep_rfm*.csv there.
    Command: scripts/reproduce deep_rfm --cpu
    Machine: one of 2 shared cores of an x86-64 processor, no GPU, torch 2.14.1.
    Date: 2026-11-27. Commit of the code: the one that brought this file.
Provenance: machine, width, bandwidth and metrics read; the ridge is that of the public package, which the paper's code
    does not name; the factor per layer and the control ours. The kernel matrix is held in memory, so that the full
    version has 5,000 images where the paper has 50,000.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from pipeline.studies._family import every
from pipeline.studies._measured import COMMON, GROUP, Place, end, figures, numbers, places, tables
from pipeline.studies.engine.claims import OURS, READ, Claim, owned, reasoned
from pipeline.studies.engine.results import Point, Result
from pipeline.studies.engine.study import CPU, FULL, QUICK, Study, shrunk
from pipeline.views import marks, style
from pipeline.views.sheet import Sheet

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SETS = ("mnist", "cifar10", "svhn")
DEEP = ("backbone.depth=20", "data.samples_per_class=500")
CONTROL = "backbone.agop=false"
FACTOR = 0.6
"""What a layer must leave of NC1."""
MACHINES = {"agop": (), "control": (CONTROL,)}
POINTS = tuple(
    Point(f"{name}-{data}-seed_{seed}", (f"data={data}", "data.classes=null", f"seed={seed}", *DEEP, *more))
    for data in SETS
    for name, more in MACHINES.items()
    for seed in range(3 if name == "agop" else 1)
)
DIGITS = (
    *(Point(f"agop-digits-seed_{seed}", (f"seed={seed}",)) for seed in range(2)),
    Point("control-digits-seed_0", (CONTROL,)),
)
SMALL = ("data.samples_per_class=50", "backbone.depth=7")
REAL = shrunk(POINTS, [f"{name}-{data}-seed_0" for data in SETS[:1] for name in MACHINES], SMALL)
"""500 images of MNIST."""
ROWS = ("x", "projected", "phi")
WORDS = {"x": "$X$", "projected": r"$X M^{1/2}$", "phi": "random features"}
LABELS = ("NC1", "NC2: mean squared distance of cosines")

REASONS = {"NC2 of X falls": "it falls to a floor and moves about that"}
"""Why claims do not hold, by a part of their text."""


def claims(results: Sequence[Result]) -> list[Claim]:
    """NC1 and NC2 over depth, what each part of a layer does, and the control."""
    made = []
    for result in results:
        name, found = result.point.name, {rows: through(result, rows, "dnc1") for rows in ROWS}
        before, after = found["x"], found["phi"]
        if _is_control(result):
            falls = before[-1] < before[0]
            made += owned(OURS, Claim(f"{name}: NC1 of X does not fall", "rising", numbers(before), not falls))
            continue
        made += owned(READ, Claim(f"{name}: NC1 of X falls with depth", "falling", numbers(before), _fall(before)))
        factors = [b / a for a, b in pairwise(before)]
        text = f"{name}: a layer leaves at most {FACTOR} of NC1"
        made += owned(OURS, every(text, [f <= FACTOR for f in factors], numbers(factors)))
        spread = through(result, "x", "nc2_etf_mse")
        made += owned(READ, Claim(f"{name}: NC2 of X falls with depth", "falling", numbers(spread), _fall(spread)))
        down = [p < x for p, x in zip(found["projected"], before, strict=True)]
        made += owned(READ, every(f"{name}: the projection lowers NC1", down, numbers(found["projected"])))
        up = [p < x for p, x in zip(found["projected"], after, strict=True)]
        made += owned(READ, every(f"{name}: the random features undo a little", up, numbers(after)))
    return reasoned(made, REASONS)


def draw(results: Sequence[Result]) -> "dict[str, Figure]":
    """NC1 and NC2 against the layer, and Gram matrices of what leaves the last one."""
    return figures("deep_rfm", results, _figure)


def _figure(results: Sequence[Result]) -> "Figure":
    shown = {control: next((r for r in results if _is_control(r) == control), None) for control in (False, True)}
    with Sheet(2, 2, title="Deep RFM: collapse without gradient descent", width=1.5, height=1.2) as sheet:
        for axes, metric, label in zip(sheet.row(0), ("dnc1", "nc2_etf_mse"), LABELS, strict=True):
            for result in filter(None, shown.values()):
                _lines(axes, result, metric)
            axes.set(yscale="log", xlabel="layer", ylabel=label)
        sheet.legend([marks.line(WORDS[rows], **_look(rows)) for rows in ROWS])
        for axes, (control, result) in zip(sheet.row(1), shown.items(), strict=True):
            if result is not None:
                sheet.legend([marks.line(_said(control), style.GREY, _dashes(control))])
            if result is not None and result.completed:
                _gram(axes, result)
                sheet.tag(axes, _said(control))
            else:
                sheet.drop(axes)
    return sheet.figure


def through(result: Result, rows: str, metric: str) -> list[float]:
    """A metric of X, X M^1/2 or the random features at the end, layer by layer."""
    return [end(result, place, metric) for place in _of(result, rows)]


def _of(result: Result, rows: str) -> list[Place]:
    return [place for place in places(result) if place[0].endswith(f".{rows}")]


def _is_control(result: Result) -> bool:
    return CONTROL in result.point.overrides


def _fall(values: Sequence[float]) -> bool:
    return len(values) > 1 and all(after < before for before, after in pairwise(values))


def _said(control: bool) -> str:
    return "$M = I$" if control else "with $M$"


def _look(rows: str) -> dict[str, Any]:
    """Of X and X M^1/2, which are the same with M = I, neither hides the other."""
    place = ROWS.index(rows)
    face = {"markerfacecolor": "none"} if rows == "projected" else {}
    return {"color": style.PALETTE[place], "marker": style.MARKERS[place], **face}


def _dashes(control: bool) -> Any:
    return style.LINES[1] if control else style.LINES[0]


def _lines(axes: "Axes", result: Result, metric: str) -> None:
    dashes = _dashes(_is_control(result))
    for rows in ROWS:
        values = through(result, rows, metric)
        axes.plot(range(1, len(values) + 1), values, linestyle=dashes, **_look(rows))
    marks.numbered(axes, range(1, len(values) + 1))


def _gram(axes: "Axes", result: Result) -> None:
    """Cosines of the rows less their mean, ordered by class."""
    features, labels = result.tensors["features/1"].double(), result.tensors["labels"]
    rows = features.reshape(-1, features.shape[-1])
    rows = (rows - rows.mean(0))[labels.argsort(stable=True)]
    rows = rows / rows.norm(dim=1, keepdim=True).clamp(min=1e-300)
    image = axes.imshow((rows @ rows.T).numpy(), vmin=-1, vmax=1, cmap=style.DIVERGING, interpolation="nearest")
    axes.set(xticks=[], yticks=[], ylabel="images by class")
    axes.grid(visible=False)
    axes.figure.colorbar(image, ax=axes, location="bottom", label="cosine after the last layer")


STUDY = Study(
    name="deep_rfm",
    group=GROUP,
    title="collapse layer by layer in a recursive feature machine",
    versions={
        FULL: (*DIGITS, *POINTS),
        CPU: (*DIGITS, *REAL),
        QUICK: shrunk(DIGITS, [point.name for point in DIGITS], COMMON),
    },
    draw=draw,
    claims=claims,
    tables=tables("deep_rfm", "dnc1", "nc2_etf_mse", "dnc2"),
)
