"""The networks of the study `imbalanced_ce`: what is trained, what is claimed of it, and how it is drawn."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from pipeline.metrics import class_geometry
from pipeline.studies._family import every, known, sizes, weights
from pipeline.studies._family_networks import MLP, MNIST, last_dnc1, network_points
from pipeline.studies._networks import value_at
from pipeline.studies._networks_drawing import count_of_networks, record_of
from pipeline.studies.engine.claims import LATER, RECALLED, Claim, at_most, owned
from pipeline.studies.engine.results import Result
from pipeline.views import marks, style
from pipeline.views.sheet import Sheet

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from pipeline.theory import ImbalancedCrossEntropy

Numbers = Mapping[str, np.ndarray]
"""Margins, squared norms of features and of weights by name: (S, K) measured, (K,) by the closed form."""
TAIL = (
    "data.imbalance=0.01",
    "head.loss=cross_entropy",
    "head.depth=1",
    "features.constraint=nonnegative",
    "measure.families=[core,cosine]",
)
ADAM = ("optimizer=adam", "optimizer.lr=1e-4", "optimizer.schedule=constant", "backbone.epochs=4000")
PAPER = (*TAIL, *ADAM, "head.weight_decay=1e-4", "head.feature_decay=1e-5")
STRONG = (*TAIL, *ADAM, "head.weight_decay=6e-3", "head.feature_decay=1e-4")
"""Decays at which the two smallest classes are too small."""
WIDE = "backbone.hidden=[1024,1024,1024,1024,1024,1024]"
NETWORKS = {
    "mlp_mnist": (MNIST, MLP, WIDE, *PAPER),
    "mlp_mnist_strong": (MNIST, MLP, WIDE, *STRONG),
    "resnet20_cifar10": ("backbone=resnet20", *PAPER),
    "resnet18_cifar10": ("backbone=resnet18", *PAPER),
}
TRAINED = network_points(NETWORKS)
NAMES = {
    "mlp_mnist": "MLP, MNIST",
    "mlp_mnist_strong": "MLP, MNIST, strong decay",
    "resnet20_cifar10": "ResNet-20, CIFAR-10",
    "resnet18_cifar10": "ResNet-18, CIFAR-10",
}
SMALL = ("optimizer.lr=1e-3", "head.weight_decay=5e-3", "head.feature_decay=1e-4")
SIZE_MLP = (
    "data.samples_per_class=200",
    "data.imbalance=0.05",
    "backbone.hidden=[256,64]",
    "backbone.batch_size=64",
    "backbone.epochs=300",
)
CPU_SIZES = {
    "mlp_mnist": (*SIZE_MLP, *SMALL),
    "mlp_mnist_strong": (*SIZE_MLP, "optimizer.lr=1e-3", "head.weight_decay=1e-2", "head.feature_decay=3.2e-3"),
    "resnet20_cifar10": (
        *SMALL,
        "data.samples_per_class=100",
        "data.imbalance=0.1",
        "backbone.batch_size=32",
        "backbone.epochs=80",
    ),
}
NEAR, SCATTER, ANGLE, AT_ZERO = 0.1, 1e-1, 0.1, 0.05
"""Relative to the largest of margins and norms; DNC1; cosine of features of two classes; of a margin."""
FEATURES = ("head", "1", "pre")


def network_claims(
    kinds: Mapping[str, list[Result]],
    measured: Callable[[Result], Numbers],
    expected: Callable[[Result], Numbers],
    theory: "Callable[[Result], ImbalancedCrossEntropy]",
) -> list[Claim]:
    """Whether networks have the margins, norms and angles of the model; ours: after single networks had been tried."""
    made = []
    for kind, own in kinds.items():
        gone = np.array(theory(own[0]).collapsed)
        scatter = [last_dnc1(result) for result in own]
        made += owned(RECALLED, at_most(f"{kind}: DNC1 of the features", scatter, SCATTER))
        if gone.any():
            margins = np.concatenate([measured(result)["margin"] for result in own])
            right = [bool(((abs(row) < AT_ZERO) == gone).all()) for row in margins]
            text = f"{kind}: margins are zero for the {gone.sum()} classes below {theory(own[0]).threshold:.1f} samples"
            made += owned(LATER, every(f"{text}, and for no other", right, f"{np.round(margins[0], 2).tolist()}"))
            continue
        angles = [value_at(result, FEATURES, "cos_inter_max") for result in own]
        made += owned(RECALLED, at_most(f"{kind}: largest mean cosine of features of two classes", angles, ANGLE))
        away = [_deviation(measured(result), expected(result)) for result in own]
        made += owned(LATER, at_most(f"{kind}: margins and norms, deviation from the closed form", away, NEAR))
        made += owned(LATER, _order(kind, [measured(result) for result in own]))
    return made


def _deviation(found: Numbers, wanted: Numbers) -> float:
    return max(float(abs(found[name] - values).max() / values.max()) for name, values in wanted.items())


def _order(kind: str, found: Sequence[Numbers]) -> Claim:
    """Spearman's rank correlation with the size, which falls along the classes."""
    signs = {"margin": -1, "feature": 1, "row": -1}
    values = [
        [sign * _rank_correlation(each[name][0]) for name, sign in signs.items()] for each in found if len(each["row"])
    ]
    measured = "rank correlations " + "; ".join(", ".join(f"{value:.2f}" for value in each) for each in values)
    text = f"{kind}: margins and weights grow with the size of the class, features shrink (rank correlation above .9)"
    return every(text, [min(each) > 0.9 for each in values], measured)


def _rank_correlation(values: np.ndarray) -> float:
    return float(np.corrcoef(values.argsort().argsort(), np.arange(len(values)))[0, 1])


def networks_figure(
    kinds: Mapping[str, list[Result]],
    measured: Callable[[Result], Numbers],
    expected: Callable[[Result], Numbers],
) -> "Figure":
    """A row for each kind: loss, DNC1 and the largest cosine over epochs; margins and norms against n_k."""
    all_of_them = [result for own in kinds.values() for result in own]
    title = "Networks with features >= 0 on long tails (lines: closed form of the model, dots: "
    with Sheet(len(kinds), 3, title=f"{title}{count_of_networks(all_of_them)})", width=1.4) as sheet:
        for row, (kind, own) in enumerate(kinds.items()):
            sheet.tag(sheet[row, 1], NAMES[kind])
            _over_epochs(sheet[row, 0], own)
            _against_sizes(sheet[row, 1], sheet[row, 2], own, measured, expected)
        sheet.legend([marks.line(text, color) for text, color in CURVES.values()])
        sheet.legend([marks.line("loss at the model's optimum", **style.OPTIMUM)])
        sheet.legend([marks.dot(text, color, marker) for text, color, marker in DOTS.values()])
    return sheet.figure


CURVES = {
    "loss": ("loss", style.BLACK),
    "dnc1": ("DNC1 of the features", style.BLUE),
    "cos_inter_max": ("largest cosine of features of two classes", style.BROWN),
}
DOTS = {
    "margin": ("margins", style.PURPLE, "D"),
    "feature": ("features", style.GREEN, "o"),
    "row": ("weights", style.RED, "^"),
}


def _over_epochs(axes: "Axes", results: Sequence[Result]) -> None:
    frame = record_of(results)
    frame = frame[(frame.stage == "head") & (frame.step > 0)]
    for metric, (_, color) in CURVES.items():
        marks.spread(frame[frame.metric == metric], axes, color=color)
    for value in [value for name, value in known(results[0]).items() if name.startswith("global optimum")]:
        axes.axhline(value, **style.OPTIMUM)
    axes.set(xscale="log", yscale="log", xlabel="epoch", ylabel="loss, DNC1, cosine")


def _against_sizes(
    margins: "Axes",
    norms: "Axes",
    results: Sequence[Result],
    measured: Callable[[Result], Numbers],
    expected: Callable[[Result], Numbers],
) -> None:
    counts, wanted = np.array(sizes(results[0])), expected(results[0])
    for name, (_, color, marker) in DOTS.items():
        axes = margins if name == "margin" else norms
        axes.plot(counts, wanted[name], color=color)
        for result in results:
            marks.dots(axes, counts, measured(result)[name][0], color, marker)
    margins.set(xscale="log", xlabel="images of the class", ylabel="margin")
    norms.set(xscale="log", yscale="log", xlabel="images of the class", ylabel="squared norm")


def geometry(result: Result) -> Numbers:
    """Margins and squared norms of features and weights, (S, K) each."""
    tensors, classes = result.tensors, len(sizes(result))
    rows, weight = tensors["features/1"].double(), weights(result)[0].double()
    rows = rows.expand(len(weight), -1, -1)  # those of a network have no members
    found = class_geometry(rows, weight, tensors["labels"], classes)
    return {"margin": found.margin.numpy(), "feature": found.feature_norm.numpy(), "row": found.row_norm.numpy()}
