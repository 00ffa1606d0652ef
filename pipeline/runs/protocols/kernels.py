"""How collapsed the kernels of wide networks are on some data; and, if asked for, trained networks of two layers.

Source: Kothapalli & Tirer, arXiv 2406.02105 (definitions read; the adaptive kernel's formula derived, see
`pipeline.metrics.functions.adaptive_kernels`).
"""

import math

import torch
from torch import Tensor

from pipeline.config import Config
from pipeline.data import ImageData
from pipeline.metrics.functions.adaptive_kernels import adaptive_kernel
from pipeline.metrics.functions.kernel_matrices import ACTIVATIONS, kernel_dnc1, nngp, ntk
from pipeline.runs.draws import draws, refuse_text, rows_of
from pipeline.runs.inputs import Inputs
from pipeline.runs.outcome import Outcome
from pipeline.runs.protocols import Stage, protocol
from pipeline.runs.run import Run
from pipeline.runs.sections import FactsSection
from pipeline.runs.wide_networks import STARTS, hidden_features
from pipeline.runtime.memory import require_memory
from pipeline.runtime.randomness import generator

MATRICES = 8
"""Of N x N numbers, at once, in the making of a kernel."""
ADAPTED = "erf_adaptive"
DIVERGED = "the network diverged"


def check_rows(config: Config, inputs: Inputs) -> None:
    """Raise ConfigError for texts, and for more rows than kernels of them fit into memory."""
    refuse_text(config, inputs)
    count = len(inputs.images.train)
    require_memory(8 * MATRICES * count**2, f"kernels of {count} training samples", instead="fewer samples")


@protocol(images=True, stages={"kernels": Stage("Kernels", unit="look")}, check_inputs=check_rows)
def kernels(run: Run) -> Outcome:
    """DNC1 of the training rows and of the kernels on them, of every data set drawn."""
    found: dict[str, list[float]] = {}
    for number, (seed, images) in enumerate(draws(run)):
        rows, labels = rows_of(images, images.train), images.train.labels
        values = {"inputs": kernel_dnc1(rows @ rows.mT, labels, images.num_classes)}
        for activation in ACTIVATIONS:
            for name, kernel in (("nngp", nngp), ("ntk", ntk)):
                values[f"{activation}_{name}"] = kernel_dnc1(kernel(rows, activation), labels, images.num_classes)
        reasons: dict[str, dict[str, str]] = {}
        if run.config.protocol.adaptive_width is not None:
            values[ADAPTED], reasons[ADAPTED] = _adapted(run.config, images, rows)
        if run.config.protocol.network_width is not None and number < run.config.protocol.network_draws:
            values |= _networks(run.config, seed, images, rows)
        for name, value in values.items():
            why = reasons.get(name) or ({"dnc1": DIVERGED} if value.isnan() else None)
            run.record.add("kernels", 0, [seed], {"dnc1": [value]}, layer=name, reasons=why)
            found.setdefault(name, []).append(float(value))
    medians = {name: torch.tensor(values, dtype=torch.float64).median().item() for name, values in found.items()}
    trained = run.config.protocol.network_width is not None
    sentence = f"DNC1 of {len(medians) - 1} kernels" + (" and networks" if trained else ", nothing trained")
    return Outcome((FactsSection("kernels", medians, {name: f"DNC1 {name}" for name in medians}, sentence),))


def _adapted(config: Config, images: ImageData, rows: Tensor) -> tuple[Tensor, dict[str, str]]:
    """DNC1 of the adapted kernel, NaN with the reason where its search does not end; targets 1-K, 3-K, .., K-1."""
    settings, classes = config.protocol, images.num_classes
    try:
        made = adaptive_kernel(rows, _targets(images), settings.adaptive_width, ridge=settings.adaptive_ridge)
    except (ValueError, torch.linalg.LinAlgError) as error:
        return torch.tensor(math.nan, dtype=torch.float64), {"dnc1": str(error)}
    return kernel_dnc1(made.kernel, images.train.labels, classes), {}


def _networks(config: Config, seed: int, images: ImageData, rows: Tensor) -> dict[str, Tensor]:
    """DNC1 of the hidden features of networks from each start, and of where the lazy one begins; targets as above."""
    settings, found = config.protocol, {}
    for activation in ACTIVATIONS:
        for name, start in STARTS.items():
            before, after = hidden_features(
                rows,
                _targets(images),
                activation,
                generator(seed, f"networks/{activation}"),
                width=settings.network_width,
                start=start,
                lr=settings.network_lr,
                epochs=settings.network_epochs,
            )
            found[f"{activation}_start"] = _dnc1(before, images)
            found[f"{activation}_{name}"] = _dnc1(after, images)
    return found


def _dnc1(features: Tensor, images: ImageData) -> Tensor:
    if not features.isfinite().all():
        return torch.tensor(math.nan, dtype=torch.float64)
    return kernel_dnc1(features @ features.mT, images.train.labels, images.num_classes)


def _targets(images: ImageData) -> Tensor:
    return (2 * images.train.labels - (images.num_classes - 1)).double()
