"""Train mean-field networks of three layers, and measure how collapsed and how balanced they are.

Source: Wu & Mondelli, arXiv 2501.19104. Rows are divided by sqrt(d) (ours).
"""

import logging
import math
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from pipeline.config import Config
from pipeline.data import ImageData
from pipeline.dufm.descent import log_schedule
from pipeline.metrics import dnc1, mean_field_balancedness, mean_field_features, nc1_wm
from pipeline.runs.draws import draws, refuse_text, rows_of
from pipeline.runs.inputs import Inputs
from pipeline.runs.outcome import Outcome
from pipeline.runs.protocols import Stage, protocol
from pipeline.runs.run import TRAINING, Run
from pipeline.runs.sections import FactsSection
from pipeline.runs.training.mean_field import Descent, MeanFieldNetwork
from pipeline.runtime.errors import ConfigError, RunError
from pipeline.runtime.memory import require_memory
from pipeline.runtime.progress import Progress
from pipeline.storage.stages import STAGES

log = logging.getLogger(__name__)

MOST_SOLVED = 4000
"""Rows up to which the exact features of a stationary point are computed, by an eigendecomposition of their kernel."""
SHOWN = {"nc1_wm": "NC1", "train_loss": "loss", "gradient_norm": "gradient", "balancedness": "unbalanced"}


def check(config: Config) -> None:
    """Raise ConfigError for another optimizer, and for noise beside momentum, which is no Langevin step."""
    optimizer, temperature = config.optimizer, config.protocol.temperature
    if optimizer.name != "sgd":
        raise ConfigError(
            f"optimizer={optimizer.name} does not go with protocol=mean_field, which descends by itself; allowed: sgd."
        )
    if optimizer.schedule == "one_cycle":
        raise ConfigError(
            "optimizer.schedule=one_cycle does not go with protocol=mean_field; allowed: cosine, constant, drop."
        )
    if temperature and optimizer.momentum:
        raise ConfigError(
            f"protocol.temperature={temperature:g} does not go with optimizer.momentum={optimizer.momentum:g}; "
            "allowed: optimizer.momentum=0, or no temperature."
        )


def check_rows(config: Config, inputs: Inputs) -> None:
    """Raise ConfigError for texts, for fewer features than classes, and for more numbers than fit into memory."""
    refuse_text(config, inputs)
    settings, images = config.protocol, inputs.images
    if settings.num_features < images.num_classes:
        raise ConfigError(
            f"protocol.num_features={settings.num_features} is out of range; allowed: an integer >= "
            f"{images.num_classes}, the number of classes, so that W^T W = I can be."
        )
    numbers = 4 * settings.neurons * (settings.num_features + math.prod(images.image_shape))
    require_memory(4 * numbers, f"protocol.neurons={settings.neurons}", instead="fewer")


@protocol(images=True, stages={"mean_field": Stage("Mean-field network")}, check=check, check_inputs=check_rows)
def mean_field(run: Run) -> Outcome:
    """A network for each of ``protocol.repeats`` seeds, which draw images and weights."""
    run.planned_steps["mean_field"] = run.config.backbone.epochs
    kept = {}
    with run.stopwatch.time("train_network"):
        for seed, images in draws(run):
            file, key = f"{STAGES}/mean_field_{seed}.safetensors", f"{run.key(*TRAINING)}/{seed}"
            kept[seed] = run.stage_cache.load_or_run(file, key, partial(_trained, run, seed, images))
    ends = {name: [] for name in SHOWN}
    for row in run.record.rows:
        if row.step == run.config.backbone.epochs and row.metric in ends:
            ends[row.metric].append(row.value)
    medians = {name: torch.tensor(values, dtype=torch.float64).median().item() for name, values in ends.items()}
    what = "W frozen" if run.config.protocol.last_layer == "frozen" else "W trained"
    sentence = f"NC1 {medians['nc1_wm']:.3g}, loss {medians['train_loss']:.3g}, {what}"
    arrays = {name: torch.stack([found[name] for found in kept.values()]) for name in next(iter(kept.values()))}
    return Outcome((FactsSection("mean_field", medians, SHOWN, sentence, arrays),))


def _trained(run: Run, seed: int, images: ImageData) -> dict[str, Tensor]:
    """The network of a seed: neurons, directions, weight."""
    config, settings, optimizer = run.config, run.config.protocol, run.config.optimizer
    splits = {name: _of_split(images, name, config.device) for name in ("train", "test")}
    rows, targets = splits["train"]
    network = MeanFieldNetwork.drawn(
        seed,
        *(settings.neurons, rows.shape[1], settings.num_features, images.num_classes),
        gamma=settings.gamma,
        decay=optimizer.weight_decay,
        neuron_decay=optimizer.weight_decay if settings.neuron_decay is None else settings.neuron_decay,
        phi=settings.phi,
        frozen=settings.last_layer == "frozen",
    ).to(config.device)
    epochs, every = config.backbone.epochs, settings.every
    descent = Descent(
        optimizer.lr,
        epochs,
        config.backbone.batch_of(len(rows)),
        optimizer.momentum,
        settings.temperature,
        optimizer.schedule,
    )
    schedule = (
        {*log_schedule(epochs, config.descent.records_per_decade)} if every is None else {*range(0, epochs, every)}
    )
    with Progress(f"seed {seed}", epochs, "epoch") as progress:
        for epoch in descent.train(network, rows, targets, seed):
            if epoch in schedule or epoch == epochs:
                progress.headline(_measure(run, seed, epoch, network, splits, images.num_classes))
            progress.advance_to(epoch)
    return {"neurons": network.neurons, "directions": network.directions, "weight": network.weight}


def _of_split(images: ImageData, name: str, device: torch.device) -> tuple[Tensor, Tensor]:
    """Rows over sqrt(d), and labels as rows of the identity, float32."""
    split = getattr(images, name)
    rows = rows_of(images, split)
    targets = one_hot(split.targets, images.num_classes)
    return (rows / math.sqrt(rows.shape[1])).float().to(device), targets.float().to(device)


def _measure(run: Run, seed: int, epoch: int, network: MeanFieldNetwork, splits: dict, classes: int) -> str:
    """Record the network after an epoch; returns the headline."""
    found, collapse, reasons = {}, {}, {}
    for name, (rows, targets) in splits.items():
        features, labels, prefix = network.features(rows), targets.argmax(1), "" if name == "train" else "test_"
        if not torch.isfinite(features).all():
            raise RunError(
                f"training diverged: features of epoch {epoch} are not finite; a smaller optimizer.lr (now "
                f"{run.config.optimizer.lr:g}) usually helps."
            )
        outputs = network.outputs(features)
        found[f"{name}_loss"] = float((outputs - targets).double().square().sum() / (2 * len(rows)))
        found[f"{name}_accuracy"] = float((outputs.argmax(1) == labels).double().mean())
        collapse[f"{prefix}nc1_wm"] = nc1_wm(features, labels, classes)
        collapse[f"{prefix}dnc1"] = dnc1(features, labels, classes)
    rows, targets = splits["train"]
    found |= {"penalty": network.penalty(), "gradient_norm": network.gradient_norm(rows, targets)}
    found["balancedness"] = mean_field_balancedness(network.neurons, network.weight)
    if epoch == run.config.backbone.epochs:
        exact, reasons = _stationary(network, rows, targets)
        collapse["stationary_nc1_wm"] = math.nan if exact is None else nc1_wm(exact, targets.argmax(1), classes)
    run.record.add("mean_field", epoch, [seed], {name: [value] for name, value in found.items()})
    of_features = {name: [value] for name, value in collapse.items()}
    run.record.add("mean_field", epoch, [seed], of_features, layer="features", reasons=reasons)
    told = f"loss {found['train_loss']:.4g}  NC1 {float(collapse['nc1_wm']):.3g}"
    told += f"  {100 * found['test_accuracy']:.2f} % test"
    log.info("seed %d  epoch %d/%d  %s", seed, epoch, run.config.backbone.epochs, told)
    return told


def _stationary(network: MeanFieldNetwork, rows: Tensor, targets: Tensor) -> tuple[Tensor | None, dict[str, str]]:
    """Features that the u_j and W at hand would have at a point stationary in a, or None and why."""
    reason = None
    if network.neuron_decay == 0:
        reason = "without protocol.neuron_decay no point is the only one that is stationary in a"
    elif len(rows) > MOST_SOLVED:
        reason = f"{len(rows)} training samples are more than the {MOST_SOLVED} whose kernel is solved"
    if reason:
        return None, {"stationary_nc1_wm": reason}
    hidden = network.hidden(rows).double()
    return mean_field_features(hidden, targets, network.weight, network.neuron_decay, network.gamma), {}
