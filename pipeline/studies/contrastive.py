"""Contrastive: with ReLU features the classes are an orthogonal frame, whatever their sizes.

Paper: arXiv 2306.07960 (orthogonal frames under the supervised contrastive loss).
Shows: Gram matrices of the class means for imbalances 1, 10 and 100, with and without non-negative features; their
    distance to the frame over the steps.
Expects: features >= 0: the frame, at the closed form, for all sizes. No constraint: a simplex for equal classes, no
    symmetry for others. Fewer dimensions than classes: no frame.
Evidence: the full version, docs/reproduction: 15 of 21 claims.
    Command: scripts/reproduce contrastive (115 s of CPU)
    Machine: one of 2 shared cores of an x86-64 processor, no GPU, float64, torch 2.14.1.
    Date: 2026-11-27. Commit of the code: 824b049.
Provenance: objective, closed form of the frame and claims read; optimum of unequal classes without constraint derived
    (`pipeline.theory.contrastive_optimum`); sizes, temperature and steps ours. Mini-batches and networks: not here.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.metrics import gram_distances
from pipeline.studies._family import FEW_RECORDS, GROUP, gaps, reference, sizes, tables
from pipeline.studies.engine.claims import OURS, THEOREM, Claim, above, at_most, owned
from pipeline.studies.engine.results import Point, Result
from pipeline.studies.engine.study import FULL, QUICK, Study, shrunk
from pipeline.views import marks, style
from pipeline.views.sheet import Sheet

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIZES = {
    "equal": "[20,20,20,20]",
    "step_10": "[20,20,2,2]",
    "tail_10": "[20,9,4,2]",
    "step_100": "[200,200,2,2]",
    "tail_100": "[200,43,9,2]",
}
"""Four classes, imbalance 1, 10 and 100; of a tail, 200 (1/100)^(c/3) rounded."""
CONSTRAINTS = {"relu": "nonnegative_sphere", "free": "sphere"}
NARROW = Point("narrow-relu", ("protocol.class_sizes=[20,20,20,20]", "protocol.num_features=3"))
POINTS = (
    *(
        Point(f"{name}-{kind}", (f"protocol.class_sizes={each}", f"features.constraint={constraint}"))
        for name, each in SIZES.items()
        for kind, constraint in CONSTRAINTS.items()
    ),
    NARROW,
)
SMALL = ("equal-relu", "equal-free", "step_10-relu", "step_10-free", "narrow-relu")
QUICK_POINTS = shrunk(POINTS, SMALL, ("descent.seeds=3", "descent.steps=1000", *FEW_RECORDS))
TOO_FEW = (
    "too few plain steps where classes have 2 of 254 or 404 samples: polished from there, 19 of 20 seeds reach the "
    "optimum; in the other both small classes share a point, stationary and 6e-5 above"
)
REASONS = {"_100-": TOO_FEW}
GAP, NEAR, FAR = 1e-6, 1e-3, 0.1
"""Of the loss; Gram distances at which the classes are a frame, and are none."""


def claims(results: Sequence[Result]) -> list[Claim]:
    """The frame for all sizes with ReLU; without, a simplex for equal sizes only."""
    made = []
    for result in results:
        name, distances = result.point.name, _distances(result)
        at_optimum = at_most(f"{name}: gap to the optimum", gaps(result, reference(result, "global optimum")), GAP)
        if name == NARROW.name:
            made += owned(OURS, above(f"{name}: distance to the frame, 3 dimensions", distances["frame"], FAR))
        elif _signed(result):
            frame = at_most(f"{name}: Gram distance to the orthogonal frame", distances["frame"], NEAR)
            made += owned(THEOREM, at_optimum, frame)
        elif len(set(sizes(result))) == 1:
            simplex = at_most(f"{name}: Gram distance to the simplex", distances["simplex"], NEAR)
            made += owned(THEOREM, at_optimum, simplex)
        else:
            made += owned(OURS, at_optimum)
            made += owned(THEOREM, above(f"{name}: Gram distance to the simplex", distances["simplex"], FAR))
    return made


KINDS = (("features >= 0", style.BLUE, style.LINES[0]), ("no constraint", style.RED, style.LINES[1]))


def draw(results: Sequence[Result]) -> "dict[str, Figure]":
    """Gram matrices above (first seed), the distance to the frame over the steps below; a column per sizes."""
    shown = [result for result in results if result.completed and result.point.name != NARROW.name]
    columns = list(dict.fromkeys(sizes(result) for result in shown))
    title = "Contrastive loss: cosines of the class means (first seed) and their distance to the orthogonal frame, "
    with Sheet(3, max(len(columns), 1), title=title + "by the sizes of the classes", alike=True, most=5) as sheet:
        image = None
        for result in shown:
            column, row = columns.index(sizes(result)), 0 if _signed(result) else 1
            image = marks.matrix(sheet, sheet[row, column], _cosines(result))
            _over_steps(sheet[2, column], result, row)
        for place, each in enumerate(columns):
            sheet.tag(sheet[0, place], ", ".join(map(str, each)))
            for row, (text, *_) in enumerate(KINDS):
                sheet[row, place].set_ylabel(text)
        if image is not None:
            matrices = [axes for row in (0, 1) for axes in sheet.row(row)]
            sheet.figure.colorbar(image, ax=matrices, shrink=0.6, label="cosine of class means", aspect=30)
        sheet.legend([marks.line(text, color, dashes) for text, color, dashes in KINDS])
    return {"contrastive": sheet.figure}


def _signed(result: Result) -> bool:
    return result.summary["problem"]["constraint"] == "nonnegative_sphere"


def _distances(result: Result) -> dict[str, list[float]]:
    """Of the Gram matrix of the class means, per seed, to the frame and to the simplex."""
    if not result.completed:
        return dict.fromkeys(("frame", "simplex"), [np.nan] * len(result.seeds))
    found = gram_distances(result.tensors["features/1"], result.tensors["labels"], len(sizes(result)))
    return {name: values.tolist() for name, values in found._asdict().items()}


def _cosines(result: Result) -> np.ndarray:
    features, labels = result.tensors["features/1"][0], result.tensors["labels"]
    means = np.stack([features[labels == label].mean(dim=0).numpy() for label in labels.unique()])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    return means @ means.T


def _over_steps(axes: "Axes", result: Result, row: int) -> Any:
    rows = result.record[(result.record.metric == "nc2_frame") & (result.record.step > 0)]
    _, color, dashes = KINDS[row]
    marks.spread(rows, axes, color=color, linestyle=dashes)
    axes.set(xscale="log", yscale="log", xlabel=style.STEPS, ylabel="distance to the frame")


STUDY = Study(
    name="contrastive",
    group=GROUP,
    title="contrastive loss: orthogonal frames with ReLU, whatever the sizes of the classes",
    versions={FULL: POINTS, QUICK: QUICK_POINTS},
    draw=draw,
    claims=claims,
    reasons=REASONS,
    tables=tables("contrastive"),
)
