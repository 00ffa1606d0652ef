"""Can a network of two layers collapse on some data at the least cost: linear programmes, nothing is trained.

Source: derived from the model of Hong & Ling, arXiv 2409.01832; see `pipeline.theory.shallow`.
"""

import math

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from pipeline.data import ImageData
from pipeline.runs.draws import draws, refuse_text, rows_of
from pipeline.runs.outcome import Outcome
from pipeline.runs.protocols import Stage, protocol
from pipeline.runs.run import Run
from pipeline.runs.sections import FactsSection
from pipeline.theory import attainability

TOLERANCE = 1e-9
"""Of the linear programmes: t* up to it counts as zero."""
FITTED = 1e-6
"""Largest error of outputs that count as fitted."""
NOT_FITTED = "the training rows are not linearly independent: no first layer maps them to their labels"


@protocol(images=True, stages={"shallow": Stage("Linear programmes", unit="look")}, check_inputs=refuse_text)
def shallow(run: Run) -> Outcome:
    """t* of every class, whether collapse is attainable, and how well the collapsed minimum-norm network generalises.

    The record has ``excess`` (t*) and ``attainable`` of each class, ``attainable`` of all of them, and ``accuracy``: on
    the test rows, of W_1 = Y X^+, which collapses training rows that are linearly independent.
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
        values = {"attainable": [everywhere[-1]], "accuracy": [accuracy]}
        run.record.add("shallow", 0, [seed], values, reasons=reasons)
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
