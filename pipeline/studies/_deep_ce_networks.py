"""The networks of the study `deep_ce`: what is trained, and what is claimed of it."""

from collections.abc import Mapping, Sequence

from pipeline.studies._family import reference, undecidable
from pipeline.studies._family_networks import MLP, MNIST, RTOL, network_points, of_networks, ranks, shape
from pipeline.studies._settings import decay_times
from pipeline.studies.engine.claims import FIGURE, LATER, Claim, owned
from pipeline.studies.engine.results import Result

LINEAR = ("head=linear", "head.loss=cross_entropy", "head.depth=3", "head.feature_decay=1e-6")
RELU = ("head.loss=cross_entropy", "head.depth=4", "head.feature_decay=1e-6")
STANDARD = (*LINEAR, "protocol.regularization=standard", "optimizer.weight_decay=1e-2", "optimizer.lr=1e-3")
RESNET = ("backbone=resnet20", "backbone.batch_size=10000", "backbone.epochs=2000")
NETWORKS = {
    "mlp_mnist_linear": (MNIST, MLP, *LINEAR),
    "mlp_mnist_relu": (MNIST, MLP, *RELU),
    "mlp_mnist_standard": (MNIST, MLP, *STANDARD),
    "resnet20_cifar10_linear": (*RESNET, *LINEAR),
    "resnet20_cifar10_relu": (*RESNET, *RELU),
    "resnet20_cifar10_standard": (*RESNET, *STANDARD),
    "resnet20_mnist_linear": (MNIST, *RESNET, *LINEAR),
    "resnet20_mnist_relu": (MNIST, *RESNET, *RELU, "optimizer.lr=1e-3"),
    "resnet20_mnist_standard": (MNIST, *RESNET, *STANDARD),
}
TRAINED = network_points(NETWORKS)
PARTS = {"mlp": "MLP", "resnet20": "ResNet-20", "mnist": "MNIST", "cifar10": "CIFAR-10", "relu": "ReLU head"}
PARTS |= {"linear": "linear head", "standard": "linear head, standard decay"}
NAMES = {kind: ", ".join(PARTS[part] for part in kind.split("_")) for kind in NETWORKS}
MLP_SIZE = (
    "data.samples_per_class=500",
    "head.feature_decay=1e-5",
    "backbone.batch_size=50",
    "backbone.epochs=60",
)
CPU_SIZES = {
    "mlp_mnist_linear": MLP_SIZE,
    "mlp_mnist_relu": MLP_SIZE,
    "mlp_mnist_standard": (
        "data.samples_per_class=200",
        "backbone.batch_size=100",
        "backbone.epochs=1600",
        "optimizer.schedule=constant",
    ),
    "resnet20_cifar10_linear": (
        "data.samples_per_class=32",
        "head.feature_decay=1.5625e-4",
        "backbone.batch_size=16",
        "backbone.epochs=120",
    ),
}
LINE = {"linear": ("collapsed solution", "collapse"), "relu": ("linear bound of collapsed solutions", "bound")}
"""What the loss of a network is compared with, by its head, and what it is called in the figure."""
LAST_VALUES, ENOUGH, NO_SIMPLEX = {"mnist": 4, "cifar10": 3}, 15.0, 0.1
"""Singular values of the logits above 1e-6; time constants in which what dies falls so far; Gram distance."""


def network_claims(kinds: Mapping[str, list[Result]]) -> list[Claim]:
    """Under the model's penalties a loss below collapse, few singular values; under the standard decay no simplex.

    What the paper's figures show of ResNet-20 is theirs; the rest was written after single networks had been tried.
    """
    made = []
    for kind, own in kinds.items():
        network, data, head = kind.split("_")
        owner = FIGURE if network == "resnet20" else LATER
        outputs = (own[0].config.head.depth + 1, "pre")
        found = [ranks(result, [outputs])[0] for result in own]
        low, measured = [value < 9 for value in found], f"ranks {found} at {RTOL:g} of the largest value"
        made += owned(LATER, of_networks(f"{kind}: rank of the logits below 9, that of collapse", own, low, measured))
        if head == "standard":
            away = [float(shape(result)[-1].gram.simplex[0]) for result in own]
            text = f"{kind}: the logits are no simplex, Gram distance above {NO_SIMPLEX:g}"
            apart = [value > NO_SIMPLEX for value in away]
            made += owned(owner, of_networks(text, own, apart, f"{min(away):.3g} to {max(away):.3g}"))
            continue
        line, losses = reference(own[0], LINE[head][0]), [result.losses[0] for result in own]
        text = f"{kind}: loss below the {LINE[head][0]}, {line:.4g}"
        below = [loss < line for loss in losses]
        made += owned(owner, of_networks(text, own, below, f"{min(losses):.4g} to {max(losses):.4g}"))
        if head == "linear":
            made += owned(owner, _last_values(kind, own, LAST_VALUES[data]))
    return made


def _last_values(kind: str, results: Sequence[Result], wanted: int) -> Claim:
    """What dies falls by a factor e in a time constant or slower, so short trainings decide nothing."""
    found = [int((shape(result)[-1].spectrum.values[0] > 1e-6).sum()) for result in results]
    text = f"{kind}: {wanted} singular values of the class means of the logits above 1e-6"
    claim = of_networks(text, results, [count == wanted for count in found], f"{found}")
    return undecidable(claim, claim.holds is True or min(map(decay_times, results)) >= ENOUGH)
