"""Two-layer ReLU networks from a small start: features collapse in direction, though nothing is regularised.

Paper: arXiv 2510.21078 (neural collapse under gradient flow on shallow ReLU networks for orthogonally separable data).
Shows: mean cosine within classes and largest between them against the epoch; V Phi^+ of classifier and class means; how
    far first-layer rows point along the direction of largest margin of their class.
Expects: cosines go to 1 within and 0 between classes, V Phi^+ is a simplex up to its scale, rows lie along the margins;
    RMSNorm of the pixels makes within-class cosines larger.
Evidence: docs/reproduction/beyond.md and two_layer_flow*.csv there.
    Command: scripts/reproduce two_layer_flow --cpu
    Machine: one of 2 shared cores of an x86-64 processor, no GPU, float32, torch 2.14.1.
    Date: 2026-11-27. Commit of the code: the one that brought this file.
Provenance: claims and settings (MNIST 0, 1, 2 less their mean, width 50, entries N(0, 1e-6), SGD of batch 1000, rate
    .1, 50 epochs) read in a digest of the paper's text. Ours: no biases, cross-entropy, thresholds, the norm at the
    rows of pixels (the paper's deep networks have it before a ReLU head), seeds, the usual start as a control. That the
    margin of a class by itself decides is derived for orthogonally separable rows; a row of the first layer belongs to
    the class with its largest weight in the second, and counts by its squared length.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property, lru_cache
from statistics import mean
from typing import TYPE_CHECKING

import torch
from safetensors.torch import load_file
from torch import Tensor

from pipeline.data import load_images
from pipeline.studies._family import every
from pipeline.studies._measured import CLASSIFIER, COMMON, curve, drawn, end, numbers, start, tables
from pipeline.studies.engine.claims import CONTROL, OURS, READ, Claim, Measurement, owned, reasoned, spread
from pipeline.studies.engine.results import Point, Result
from pipeline.studies.engine.study import CPU, FULL, QUICK, Study
from pipeline.studies.kernels import GROUP
from pipeline.theory import max_margin_directions
from pipeline.views import marks, style
from pipeline.views.sheet import Sheet

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SMALL, NORMED, USUAL = "small_start", "rms_norm", "usual_start"
NAMES = {SMALL: "small start", NORMED: "small start, RMSNorm", USUAL: "usual start"}
SHORT = {SMALL: "small", NORMED: "RMS", USUAL: "usual"}
SETTINGS = {
    SMALL: (),
    NORMED: ("backbone.input_norm=rms",),
    USUAL: ("backbone.init_std=null",),
}
CLOUDS = ("data=mixture", "data.classes=null", "data.num_classes=3", "data.standardize=center", "backbone.epochs=400")
CLOUDS += ("backbone.batch_size=100", *COMMON)
WITHIN, BETWEEN, DUAL, ALONG = 0.1, 0.1, 0.2, 0.9
"""1 - cosine within classes, cosine between them, distance of V Phi^+ to a simplex and cosine with the margin's
direction that count as reached."""
LOOKED_AT = 2000
"""Rows whose inner products are counted."""


def _points(kinds: Sequence[str], seeds: Sequence[int], shrunk: tuple[str, ...] = ()) -> tuple[Point, ...]:
    return tuple(
        Point(f"{kind}-seed_{seed}", (*SETTINGS[kind], f"seed={seed}"), shrunk) for seed in seeds for kind in kinds
    )


POINTS = (*_points((SMALL, NORMED), (0, 1)), *_points((USUAL,), (0,)))
APART = "the pixels are not orthogonally separable (measurements), and cosines turn back after some 20 epochs"
REASONS = {
    "orthogonal": APART,
    "V Phi^+": APART,
    "margins": "pixels that are not orthogonally separable: other classes' rows bind too; margins come late",
    "RMSNorm": "open; after 5 epochs cosines are as large as they ever are without it, then they turn back",
}
"""Why claims do not hold, by a part of their text."""


@lru_cache(maxsize=4)
def _training_rows(name: str, asked: str, seed: int) -> Tensor:
    """Rows (N, d) float64 of a data set, of which ``asked`` is the request in JSON."""
    images = load_images(name, **json.loads(asked), seed=seed)
    return images.train.images.flatten(1).double()


class Network:
    """A trained two-layer network and the rows that it was trained on.

    Attributes:
        first: (width, d), the first layer's rows. second: (K, width). means: (K, width), the classes' mean features.
    """

    def __init__(self, result: Result) -> None:
        tensors, config = result.tensors, result.config
        self.result, self.second = result, tensors["weights/1"].double()
        self.features, self.labels = tensors["features/1"].double(), tensors["labels"]
        self.means = torch.stack([self.features[self.labels == k].mean(0) for k in range(len(self.second))])
        state = load_file(result.folder / "checkpoints" / "backbone.safetensors")
        (self.first,) = (value.double() for name, value in state.items() if name.endswith("hidden1.0.weight"))
        self._norm = config.backbone.input_norm

    @cached_property
    def rows(self) -> Tensor:
        """(N, d), as they enter the first layer."""
        config = self.result.config
        rows = _training_rows(config.data.name, json.dumps(config.data.request), config.seed)
        length = rows.norm(dim=1, keepdim=True)
        return rows if self._norm == "none" else rows * rows.shape[1] ** 0.5 / length.clamp(min=1e-12)

    @property
    def duality(self) -> Tensor:
        """V Phi^+ over its norm, (K, K): the classifier within the span of the class means, in their coordinates."""
        product = self.second @ torch.linalg.pinv(self.means)
        return product / product.norm()

    @property
    def off_simplex(self) -> float:
        """Distance of that to a simplex of norm one."""
        count = len(self.second)
        simplex = torch.eye(count, dtype=torch.float64) - 1 / count
        return float((self.duality - simplex / simplex.norm()).norm())

    def along(self, directions: Tensor) -> list[float]:
        """Cosine of the first layer's rows with the direction (K, d) of their class, by class; NaN without rows."""
        owner, weights = self.second.argmax(0), self.first.square().sum(1)
        cosines = torch.cosine_similarity(self.first, directions[owner], dim=1)
        classes = [owner == label for label in range(len(directions))]
        return [float((cosines * weights)[own].sum() / weights[own].sum()) for own in classes]

    @cached_property
    def along_margins(self) -> list[float]:
        """With the directions of largest margin."""
        return self.along(max_margin_directions(self.rows, self.labels))

    @cached_property
    def along_means(self) -> list[float]:
        """With the classes' mean rows."""
        return self.along(torch.stack([self.rows[self.labels == k].mean(0) for k in range(len(self.second))]))

    @cached_property
    def separability(self) -> tuple[float, float]:
        """Shares of pairs of rows of a class with a positive product, and of two classes with one of at most 0."""
        chosen = torch.arange(0, len(self.rows), max(1, len(self.rows) // LOOKED_AT))
        rows, labels = self.rows[chosen], self.labels[chosen]
        same = labels[:, None] == labels
        products = rows @ rows.T
        return float((products[same] > 0).double().mean()), float((products[~same] <= 0).double().mean())


def networks(results: Sequence[Result], kind: str) -> list[Network]:
    """The finished networks of a kind."""
    return [Network(result) for result in results if kind_of(result) == kind and result.completed]


def kind_of(result: Result) -> str:
    """Which kind of `NAMES` a run is of."""
    return result.point.name.partition("-")[0]


def within(result: Result) -> float:
    """1 - the mean cosine within classes, at the end."""
    return 1 - end(result, CLASSIFIER, "cos_intra_mean")


def claims(results: Sequence[Result]) -> list[Claim]:
    """Directions of features, means and rows from the small start, with a norm before, and from the usual start."""
    made, found = [], networks(results, SMALL)
    if found:
        runs = [network.result for network in found]
        text, values = "1 - mean cosine within classes", [within(result) for result in runs]
        made += owned(READ, _at_most(text, values, WITHIN))
        falls = [
            value < 1 - start(result, CLASSIFIER, "cos_intra_mean") for value, result in zip(values, runs, strict=True)
        ]
        made += owned(READ, every(f"{text}, less than before training", falls, numbers(values)))
        values = [end(result, CLASSIFIER, "cos_inter_max") for result in runs]
        made += owned(READ, _at_most("class means are orthogonal: largest cosine between classes", values, BETWEEN))
        values = [network.off_simplex for network in found]
        made += owned(READ, _at_most("V Phi^+ is a simplex: distance, both of norm one", values, DUAL))
        values = [min(network.along_margins) for network in found]
        text = f"first-layer rows lie along the margins of their classes: least cosine of a class, >= {ALONG:g}"
        made += owned(READ, every(text, [value >= ALONG for value in values], numbers(values)))
    by_seed = {(kind_of(result), result.config.seed): within(result) for result in results if result.completed}
    pairs = [(by_seed[SMALL, seed], value) for (kind, seed), value in by_seed.items() if kind == NORMED]
    if pairs:
        text = "RMSNorm of the pixels: 1 - mean cosine within classes is smaller"
        both = "; ".join(f"{without:.3g} against {normed:.3g}" for without, normed in pairs)
        made += owned(OURS, every(text, [normed < without for without, normed in pairs], both))
    usual = [value for (kind, _), value in by_seed.items() if kind == USUAL]
    if usual and found:
        least = min(within(network.result) for network in found)
        text = "usual start: 1 - mean cosine within classes is larger than from the small one"
        made += owned(CONTROL, Claim(text, f"> {least:.3g}", numbers(usual), min(usual) > least))
    return reasoned(made, REASONS)


def _at_most(text: str, values: Sequence[float], bound: float) -> Claim:
    return every(f"{text}, <= {bound:g}", [value <= bound for value in values], numbers(values))


def measurements(results: Sequence[Result]) -> list[Measurement]:
    """How nearly the rows are orthogonally separable; what else the first layer's rows lie along."""
    made = []
    for kind, name in NAMES.items():
        found = networks(results, kind)
        if not found:
            continue
        positive, negative = found[0].separability
        text = f"{positive:.3f} of pairs of a class > 0, {negative:.3f} of pairs of two classes <= 0"
        note = f"of about {min(len(found[0].rows), LOOKED_AT)} rows; orthogonally separable: both 1"
        made.append(Measurement(f"{name}: inner products of rows", text, note))
        for which, values in (("margin", "along_margins"), ("mean", "along_means")):
            text = "; ".join(numbers(getattr(network, values)) for network in found)
            made.append(
                Measurement(f"{name}: cosine of first-layer rows with the {which} of their class", text, "by class")
            )
        accuracies = [end(network.result, None, "test_accuracy") for network in found]
        made.append(Measurement(f"{name}: test accuracy", spread(accuracies)))
    return made


def draw(results: Sequence[Result]) -> "dict[str, Figure]":
    """Cosines over training; the classifier in coordinates of the means; rows along margins and means."""
    title = "Two-layer ReLU networks without regularisation: collapse of directions"
    with Sheet(1, 4, title=title, width=1.2) as sheet:
        intra, inter, dual, along = sheet.row(0)
        for kind, color, dashes in zip(NAMES, (style.BLUE, style.RED, style.GREY), style.LINES, strict=False):
            runs = [result for result in results if kind_of(result) == kind]
            for result in runs:
                drawn(intra, 1 - curve(result, CLASSIFIER, "cos_intra_mean"), color=color, linestyle=dashes)
                drawn(inter, curve(result, CLASSIFIER, "cos_inter_max"), color=color, linestyle=dashes)
            sheet.legend([marks.line(NAMES[kind], color, dashes)] if runs else [])
        sheet.tag(intra, "within classes, mean")
        sheet.tag(inter, "between classes, largest")
        intra.set(yscale="log", ylabel="1 - cosine")
        inter.set(ylabel="cosine")
        found = networks(results, SMALL)
        if found:
            marks.matrix(sheet, dual, found[0].duality.numpy())
            sheet.tag(dual, r"$V \Phi^+$, " + NAMES[SMALL])
            dual.set(xlabel="class", ylabel="class")
        else:
            sheet.drop(dual)
        sheet.tag(along, "rows of the first layer")
        sheet.legend(_along(along, results))
    return {"two_layer_flow": sheet.figure}


def _along(axes: "Axes", results: Sequence[Result]) -> list:
    """Returns the entries of a legend."""
    kinds = [kind for kind in NAMES if networks(results, kind)]
    for place, kind in enumerate(kinds):
        for network in networks(results, kind):
            marks.dots(axes, [place - 0.12], [mean(network.along_margins)], style.GREEN)
            marks.dots(axes, [place + 0.12], [mean(network.along_means)], style.PURPLE, "s")
    marks.named(axes, [SHORT[kind] for kind in kinds])
    axes.set(xlabel="start", ylabel="cosine", ylim=(0, 1.02))
    return [marks.dot("with the largest margin", style.GREEN), marks.dot("with the mean", style.PURPLE, "s")]


STUDY = Study(
    name="two_layer_flow",
    group=GROUP,
    title="two layers from a small start collapse in direction",
    versions={
        FULL: POINTS,
        CPU: POINTS,
        QUICK: tuple(replace(point, shrunk=CLOUDS) for point in (*POINTS[:2], POINTS[-1])),
    },
    draw=draw,
    claims=claims,
    measurements=measurements,
    tables=tables("two_layer_flow", "cos_intra_mean", "cos_inter_max", "dnc1", "test_dnc1", "test_accuracy"),
)
