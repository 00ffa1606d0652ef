"""Can a network of two layers collapse on some data at the least cost: linear programmes; and networks, if asked for.

Source: derived from the model of Hong & Ling, arXiv 2409.01832; see `pipeline.theory.shallow`.
"""

import math

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from pipeline.config import Config
from pipeline.data import ImageData
from pipeline.metrics import layer_metrics
from pipeline.runs.draws import draws, refuse_text, rows_of
from pipeline.runs.inputs import Inputs
from pipeline.runs.outcome import Outcome
from pipeline.runs.protocols import Stage, protocol
from pipeline.runs.run import Run
from pipeline.runs.sections import FactsSection
from pipeline.runs.shallow_networks import trained
from pipeline.runtime.errors import ConfigError
from pipeline.runtime.randomness import generator
from pipeline.runtime.settings import shown
from pipeline.theory import attainability, ufm_nonnegative

TOLERANCE = 1e-9
"""Of the linear programmes: t* up to it counts as zero."""
FITTED = 1e-6
"""Largest error of outputs that count as fitted."""
NOT_FITTED = "the training rows are not linearly independent: no first layer maps them to their labels"


REACHED = 1e-3
"""Largest relative gap to the bound at which a network counts as having reached it."""
UNEQUAL = "the classes differ in size, and the bound is of equal ones"


def check_rows(config: Config, inputs: Inputs) -> None:
    """Raise ConfigError for texts, and for widths that are none."""
    refuse_text(config, inputs)
    hidden = config.protocol.hidden
    numbers = isinstance(hidden, list | tuple) and all(type(width) is int and width >= 1 for width in hidden)
    if hidden is not None and not (numbers and hidden):
        raise ConfigError(
            f"protocol.hidden={shown(hidden)} are no widths of layers; allowed: whole numbers from 1, such as [16] for "
            "networks of two layers and [64,16] for three, or null."
        )
    if hidden is not None and not (all(config.weight_decays) and config.head.feature_decay):
        raise ConfigError(
            f"protocol.hidden={shown(hidden)} trains networks against a bound that needs decays > 0, and "
            f"head.weight_decay={shown(config.head.weight_decay)}, head.feature_decay={config.head.feature_decay}; "
            "allowed: decays > 0."
        )
    if hidden is not None and config.head.loss not in ("mse", "cross_entropy"):
        raise ConfigError(
            f"head.loss={config.head.loss} has no bound for shallow networks; allowed: mse, cross_entropy."
        )


@protocol(images=True, stages={"shallow": Stage("Linear programmes", unit="look")}, check_inputs=check_rows)
def shallow(run: Run) -> Outcome:
    """t* of every class, whether collapse is attainable, and how well the collapsed minimum-norm network generalises.

    The record has ``excess`` (t*) and ``attainable`` of each class, ``attainable`` of all of them, and ``accuracy``: on
    the test rows, of W_1 = Y X^+, which collapses training rows that are linearly independent; ``rank`` of the training
    rows. Of the best of some trained networks: ``gap`` to the bound, ``dnc1`` of what enters the last layer,
    ``accuracy`` on the test rows, and ``reached``, the share of starts with a gap of at most `REACHED`.
    """
    everywhere = []
    for seed, images in draws(run):
        rows = rows_of(images, images.train)
        levels = attainability(rows, images.train.labels)
        for label, level in enumerate(levels):
            values = {"excess": [level], "attainable": [level <= TOLERANCE]}
            run.record.add("shallow", 0, [seed], values, layer=f"class_{label}")
        everywhere.append(bool((levels <= TOLERANCE).all()))
        accuracy = _accuracy(images, rows)
        reasons = {"accuracy": NOT_FITTED} if math.isnan(accuracy) else None
        values = {
            "attainable": [everywhere[-1]],
            "accuracy": [accuracy],
            "rank": [float(torch.linalg.matrix_rank(rows))],
        }
        run.record.add("shallow", 0, [seed], values, reasons=reasons)
        if run.config.protocol.hidden is not None:
            measured, reasons = _networks(run.config, seed, images, rows)
            run.record.add("shallow", 0, [seed], measured, layer="network", reasons=reasons)
    share = sum(everywhere) / len(everywhere)
    sentence = f"collapse is attainable on {sum(everywhere)} of {len(everywhere)} data sets"
    return Outcome((FactsSection("shallow", {"attainable": share}, {"attainable": "attainable"}, sentence),))


def _accuracy(images: ImageData, rows: Tensor) -> float:
    """On the test rows, by the largest entry of W_1 x, W_1 = Y X^+; NaN where that does not map X to Y.

    Taken before the ReLU, so that a sample that is on no class's side is no tie.
    """
    targets = one_hot(images.train.labels, images.num_classes).double()
    weight = torch.linalg.pinv(rows) @ targets
    if (rows @ weight - targets).abs().max() > FITTED:
        return math.nan
    predicted = (rows_of(images, images.test) @ weight).argmax(1)
    return (predicted == images.test.labels).double().mean().item()


def _networks(config: Config, seed: int, images: ImageData, rows: Tensor) -> tuple[dict[str, list], dict[str, str]]:
    """What the record says of the best network, and why a value is undefined."""
    settings, labels, classes = config.protocol, images.train.labels, images.num_classes
    decays = (config.weight_decays[0], config.head.feature_decay)
    sources = [generator(seed, f"shallow networks/{start}") for start in range(settings.starts)]
    found = trained(rows, labels, classes, settings.hidden, config.objective, decays, sources, settings.iterations)
    best = int(found.objective.argmin())
    test = rows_of(images, images.test)
    for weight in found.weights[:-1]:
        test = torch.relu(test @ weight[best].T)
    right = (test @ found.weights[-1][best].T).argmax(1) == images.test.labels
    values = {
        "objective": [found.objective[best]],
        "dnc1": [layer_metrics(found.features[best], labels, classes)["dnc1"]],
        "accuracy": [right.double().mean()],
    }
    counts = labels.bincount(minlength=classes)
    if counts.min() != counts.max():
        return values | {"gap": [math.nan], "reached": [math.nan]}, {"gap": UNEQUAL, "reached": UNEQUAL}
    gaps = found.objective / ufm_nonnegative(classes, int(counts[0]), *decays, config.head.loss).loss - 1
    return values | {"gap": [gaps[best]], "reached": [(gaps <= REACHED).double().mean()]}, {}
