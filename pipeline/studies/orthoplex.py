"""Orthoplex: more classes than dimensions, and the figures that class means form for K from d+2 to 2d.

Paper: Alcala et al., arXiv 2603.20587 (neural collapse in the orthoplex regime).
Shows: sorted cosines of class means; shares of opposite and of orthogonal pairs; losses against those of known figures.
Expects: largest cosine 0, K-d simplices on orthogonal subspaces, at K = 2d opposite pairs on d axes; a simplex at K =
    d+1; beyond 2d a positive largest cosine.
Evidence: docs/reproduction/beyond.md and orthoplex*.csv there.
    Command: scripts/reproduce orthoplex --cpu
    Machine: one of 2 shared cores of an x86-64 processor, no GPU, float64, torch 2.14.1.
    Date: 2026-11-27. Commit of the code: the one that brought this file.
Provenance: read in the abstract: figures other than the simplex for K from d+2 to 2d, none of which it names. That K >=
    d+2 directions have two at an angle of at most 90 degrees, and that those without a smaller one are at least K-d
    orthogonal parts, is known of point sets (Rankin); that minimisers under decay have them is our expectation. Losses
    of figures: `pipeline.theory.frame_reference` (derived). Loss, decays, sizes and two layers ours.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.studies._family import tables
from pipeline.studies.engine.claims import CONTROL, OURS, THEOREM, Claim, at_most, owned
from pipeline.studies.engine.results import Point, Result
from pipeline.studies.engine.study import CPU, FULL, QUICK, Study, shrunk
from pipeline.views import marks, style
from pipeline.views.sheet import Sheet

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

REGIME = ((3, 5), (3, 6), (4, 6), (4, 7), (4, 8), (5, 7), (5, 10))
"""d and K from d+2 to 2d."""
CONTROLS = ((4, 5), (4, 9), (4, 12))
"""K = d+1, and K beyond 2d."""
DECAYS = (1e-4, 1e-5)
"""Smaller ones of the weights, for the figures that change with the decay; the features' is a fifth of it."""


def _point(name: str, dim: int, classes: int, *more: str) -> Point:
    sizes = (f"protocol.num_features={dim}", f"head.width={dim}", f"protocol.num_classes={classes}")
    return Point(f"{name}d_{dim}-k_{classes}", (*sizes, *more))


def _weaker(decay: float) -> tuple[Point, ...]:
    how = (f"head.weight_decay={decay}", f"head.feature_decay={decay / 5}")
    return tuple(_point(f"decay_{decay:g}-", 4, classes, *how) for classes in (6, 7, 8))


POINTS = (
    *(_point("", *sizes) for sizes in (*REGIME, *CONTROLS)),
    *(point for decay in DECAYS for point in _weaker(decay)),
    *(
        Point(f"layers_2-k_{classes}", ("head.depth=2", f"protocol.num_classes={classes}", "protocol.num_features=16"))
        for classes in (6, 7, 8)
    ),
)
QUICK_NAMES = ("d_4-k_5", "d_4-k_6", "d_4-k_7", "d_4-k_8", "d_4-k_9", "decay_0.0001-d_4-k_7", "layers_2-k_8")
QUICK_POINTS = shrunk(POINTS, QUICK_NAMES, ("descent.seeds=4", "descent.steps=1000"))
NEAR = 0.02
"""Largest distance of a cosine from the one expected."""
RELATED = 0.05
"""From this cosine on two classes are of one part."""
COLLAPSED = 1e-6
TILTED = (
    "opposite pairs and single classes, a little turned away from each other, cost less than simplices at right "
    "angles; their largest cosine goes to 0 slowly with the decay"
)
REASONS = {
    "K = 6, two layers": "depth lowers the rank: three pairs on three axes cost less than parts of 4 and 2 in four",
    "as the decay falls": "at .001 a simplex of 4 and a pair cost least, below that two pairs and two single classes",
    "K = 5": TILTED,
    "K = 6": TILTED,
    "K = 7": TILTED,
}
LOOKS = dict(zip((6, 7, 8, 5, 9, 12), zip(style.PALETTE, style.MARKERS, strict=True), strict=True))
"""Of each K."""


def claims(results: Sequence[Result]) -> list[Claim]:
    """Rankin's bound, the figures of the regime, the sizes at its ends, smaller decays, two layers."""
    done = [result for result in results if result.completed]
    made = owned(THEOREM, *_bounded([result for result in done if classes(result) >= dim(result) + 2]))
    for result in done:
        k, d, name = classes(result), dim(result), _name(result)
        if k == d + 1:
            away = [float((own + 1 / (k - 1)).abs().max()) for own in cosines(result)]
            made += owned(CONTROL, at_most(f"{name}: distance to the simplex", away, NEAR))
        elif k > 2 * d:
            least = min(float(own.max()) for own in cosines(result))
            made += owned(CONTROL, Claim(f"{name}: largest cosine", f"> {NEAR:g}", f"{least:.3g}", least > NEAR))
        else:
            made += _in_the_regime(name, result)
    if done:
        worst = [max(result.final("dnc1")[1, "pre"]) for result in done]
        made += owned(OURS, at_most("scatter within classes over scatter between, every point", worst, COLLAPSED))
    return [*made, *_by_decay(done)]


def _bounded(results: Sequence[Result]) -> list[Claim]:
    if not results:
        return []
    least = min(float(own.max()) for result in results for own in cosines(result))
    return [Claim("K >= d+2: two class means at 90 degrees or less", ">= 0", f"{least:.3g}", least >= -1e-6)]


def _in_the_regime(name: str, result: Result) -> list[Claim]:
    """Of the seed with the least loss."""
    own, k, d = cosines(result)[best(result)], classes(result), dim(result)
    made = owned(OURS, at_most(f"{name}: largest cosine (best seed)", [abs(float(own.max()))], NEAR))
    found = parts(own, k)
    measured = f"{len(found)}, of {' + '.join(map(str, found))} classes"
    text = f"{name}: class means form {k - d} orthogonal parts (best seed)"
    made += owned(OURS, Claim(text, f"{k - d}", measured, len(found) == k - d))
    if k == 2 * d:
        opposite, orthogonal = shares(result)
        holds = opposite == 1 / (k - 1) and orthogonal == (k - 2) / (k - 1)
        text = f"{name}: an orthoplex, shares of opposite and of orthogonal pairs (best seed)"
        expected = f"{1 / (k - 1):.3g}, {(k - 2) / (k - 1):.3g}"
        made += owned(OURS, Claim(text, expected, f"{opposite:.3g}, {orthogonal:.3g}", holds))
    return made


def _by_decay(results: Sequence[Result]) -> list[Claim]:
    made = []
    for k in (6, 7, 8):
        same = [it for it in results if (dim(it), classes(it), layers(it)) == (4, k, 1)]
        same.sort(key=decay_of, reverse=True)
        if len(same) > 1:
            largest = [float(cosines(it)[best(it)].max()) for it in same]
            falls = all(abs(after) <= abs(before) + 1e-6 for before, after in pairwise(largest))
            measured = ", ".join(f"{value:.2g}" for value in largest)
            text = f"d = 4, K = {k}: the largest cosine comes no farther from 0 as the decay falls"
            made += owned(OURS, Claim(text, "not growing", measured, falls))
    return made


def draw(results: Sequence[Result]) -> "dict[str, Figure]":
    """Sorted cosines of the best seed by K, by the decay at K = 7, and with two layers."""
    done = [result for result in results if result.completed]
    main = [it for it in done if (dim(it), layers(it)) == (4, 1) and it.point.name.startswith("d_")]
    weaker = sorted((it for it in done if (dim(it), classes(it), layers(it)) == (4, 7, 1)), key=decay_of)
    deep = [it for it in done if layers(it) == 2]
    with Sheet(1, 3, title="Cosines between class means in d = 4 dimensions, sorted", alike=True, height=1.2) as sheet:
        by_decay = zip(weaker, style.shades(len(weaker)), style.MARKERS, strict=False)
        named = (
            ([(f"$K = {classes(it)}$", it, LOOKS[classes(it)]) for it in sorted(main, key=classes)], "one layer"),
            ([(rf"$\lambda_W$ = {decay_of(it):g}", it, look) for it, *look in by_decay], "$K = 7$, by decay"),
            ([(f"$K = {classes(it)}$", it, LOOKS[classes(it)]) for it in deep], "two layers"),
        )
        for axes, (runs, tag) in zip(sheet.row(0), named, strict=True):
            sheet.tag(axes, tag)
            _sorted(sheet, axes, runs)
    return {"orthoplex": sheet.figure}


def classes(result: Result) -> int:
    """K."""
    return result.summary["problem"]["num_classes"]


def dim(result: Result) -> int:
    """d, of what enters the last layer."""
    return result.summary["problem"]["widths"][layers(result) - 1]


def layers(result: Result) -> int:
    """L."""
    return result.summary["problem"]["depth"]


def decay_of(result: Result) -> float:
    """Of the weights."""
    return result.summary["problem"]["weight_decay"][0]


def cosines(result: Result) -> list[Tensor]:
    """Between means of two classes of what enters the last layer, pair by pair, a vector for each seed."""
    rows, k = result.tensors["features/1"], classes(result)
    for layer in range(1, layers(result)):
        rows = rows @ result.tensors[f"weights/{layer}"].mT
    units = F.normalize(rows.view(len(rows), k, -1, rows.shape[-1]).mean(dim=2), dim=-1)
    first, second = torch.triu_indices(k, k, 1)
    return list((units @ units.mT)[:, first, second])


def best(result: Result) -> int:
    """Which seed has the least loss."""
    return int(np.argmin(result.losses))


def shares(result: Result) -> tuple[float, float]:
    """Of the best seed, as recorded: opposite and orthogonal pairs of classes."""
    place = (layers(result), "pre")
    return tuple(result.final(name)[place][best(result)] for name in ("opposite_pairs", "orthogonal_pairs"))


def parts(cosines: Tensor, num_classes: int) -> list[int]:
    """Sizes of sets of classes with no cosine of `RELATED` or more, of either sign, to others; largest first.

    Args:
        cosines: of the pairs in the order of `torch.triu_indices`.
    """
    part = list(range(num_classes))
    for first, second, cosine in zip(*torch.triu_indices(num_classes, num_classes, 1).tolist(), cosines, strict=True):
        if abs(float(cosine)) >= RELATED:
            part = [part[first] if it == part[second] else it for it in part]
    return sorted((part.count(it) for it in set(part)), reverse=True)


def _name(result: Result) -> str:
    more = ", two layers" if layers(result) == 2 else ""
    if result.point.name.startswith("decay"):
        more = f", decay {decay_of(result):g}"
    return f"d = {dim(result)}, K = {classes(result)}{more}"


def _sorted(sheet: Sheet, axes: "Axes", runs: Sequence[tuple[str, Result, Sequence[str]]]) -> None:
    if not runs:
        sheet.note(axes, "no such runs")
    for text, result, (color, marker) in runs:
        values = cosines(result)[best(result)].sort().values
        axes.plot(np.linspace(0, 1, len(values)), values, color=color, marker=marker)
        sheet.legend([marks.line(text, color, marker=marker)])
    axes.axhline(0, **style.OPTIMUM)
    axes.set(xlabel="share of pairs", ylabel="cosine of class means")


STUDY = Study(
    name="orthoplex",
    group="beyond",
    title="more classes than dimensions: figures of class means for K from d+2 to 2d",
    versions={FULL: POINTS, CPU: POINTS, QUICK: QUICK_POINTS},
    draw=draw,
    claims=claims,
    reasons=REASONS,
    tables=tables("orthoplex"),
)
