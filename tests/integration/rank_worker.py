"""The ranks of the tests in test_ranks_agree.py: each measures, trains and descends, and writes what came out.

Arguments: folder, numbers of processes to do it with, one after another. The processes are forked from this one.
"""

import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from omegaconf import OmegaConf

from pipeline.config import Config, settings
from pipeline.data import load_images
from pipeline.measure import extraction, joining
from pipeline.measure import layers as measuring
from pipeline.measure.feature_cache import FeatureCache
from pipeline.metrics.engine.settings import MeasureSettings
from pipeline.networks import Backbone, build_backbone
from pipeline.runs.inputs import Inputs
from pipeline.runs.protocols import perform
from pipeline.runs.run import Run
from pipeline.runs.training.training import calibrate_norms
from pipeline.runtime import ranks
from pipeline.runtime.interruption import Interrupted, interruption
from pipeline.storage.record import Record

sys.path.insert(0, str(Path(__file__).parents[1] / "running"))

from float64_training import smoothed, trained_in_float64

TRAINED = {"mlp": {"backbone__epochs": 2}, "resnet20": {"optimizer__lr": 1e-3, "backbone__epochs": 1}}
"""Networks that are trained, and their settings."""
OF_RESNET = (1, 3)
"""Numbers of processes for ResNet-20, which takes ten times as long: one, and several whose shares are uneven."""
HIDDEN = {"backbone.hidden": [12, 7]}
"""Of the MLP."""
IMAGES = load_images("digits", classes=[0, 1, 2], samples_per_class=47)


def config(**changes) -> Config:
    names = {"data.name": "digits", "backbone.name": "mlp", "optimizer.name": "sgd", "logger.name": "none"}
    names |= {"trainer.accelerator": "cpu", "trainer.devices": ranks.world_size(), "head.depth": 3, "head.width": 8}
    names |= HIDDEN if changes.get("backbone__name", "mlp") == "mlp" else {}
    names |= {"descent.steps": 60, "descent.seeds": 3, "descent.momentum": 0.5, "descent.records_per_decade": 3}
    names |= {"data.classes": [0, 1, 2], "data.samples_per_class": 47}
    cfg = OmegaConf.structured(Config)
    for key, value in (names | {key.replace("__", "."): value for key, value in changes.items()}).items():
        OmegaConf.update(cfg, key, value)
    return settings(cfg)


def measured(name: str, **options) -> dict[str, torch.Tensor]:
    """Every metric of every place of an untrained network, and its features."""
    network = build_backbone(name, IMAGES.image_shape, seed=1, **options)
    calibrate_norms(network, IMAGES, 32, seed=0)
    # Every family, which groups and foreign rows are given to.
    halves = {split: getattr(IMAGES, split) for split in ("train", "test")}
    grouped = {split: replace(own, groups=torch.arange(len(own)) % 2) for split, own in halves.items()}
    foreign = replace(halves["test"], labels=torch.full_like(halves["test"].labels, -1))
    images = replace(IMAGES, **grouped, groups=("even", "odd"), foreign=foreign)
    everything = MeasureSettings(families=("all",), pairs="all" if name == "mlp" else "consecutive")
    found = measuring.measure_backbone(network, images, lambda features: features[:, :3], settings=everything)
    values = {"train": found.train, "test": found.test}
    for at in found.layers:
        values |= {f"{at.layer}/{at.tap}/{metric}": value for metric, value in at.values.items()}
    return values


def cached(folder: Path) -> dict[str, torch.Tensor]:
    """Features and metrics asked for twice with a cache in a folder, and how often the network was passed each time."""
    network = build_backbone("mlp", IMAGES.image_shape, hidden=[12, 7], seed=1)
    batches = []
    network.register_forward_pre_hook(lambda module, inputs: batches.append(len(inputs[0]) > 2))  # not for the key
    values = {}
    for attempt in ("first", "second"):
        batches.clear()
        found = FeatureCache(str(folder), "average").measurement(network, IMAGES)
        values |= {f"{attempt} batches": torch.tensor(sum(batches)), f"{attempt} train": found.train}
        values |= {f"{attempt} {at.layer}/{at.tap}": at.values["dnc1"] for at in found.layers}
    return values


def training(name: str) -> Config:
    """With batches that cannot be dealt out evenly."""
    small = {"descent__lr": 1e-3, "descent__steps": 3, "backbone__batch_size": 50}
    return config(protocol__name="frozen_features", backbone__name=name, **small, **TRAINED[name])


def smooth(setting: Config) -> Backbone:
    """The network that is trained, without kinks."""
    own = {"hidden": setting.backbone.hidden} if setting.backbone.name == "mlp" else {}
    return smoothed(build_backbone(setting.backbone.name, IMAGES.image_shape, seed=0, **own))


def trained(folder: Path, name: str) -> dict[str, torch.Tensor]:
    """Weights after the training, and the loss before and after every epoch."""
    setting = training(name)
    network = smooth(setting)
    run = Run(setting, Inputs(IMAGES, network), folder / f"train-{name}", Record(folder / f"train-{name}"))
    perform(run)
    losses = {"losses": torch.tensor([row.value for row in run.record.rows if row.metric == "train_loss"])}
    return {key: value.clone() for key, value in network.state_dict().items()} | losses


def in_float64(name: str) -> dict[str, torch.Tensor]:
    """The same of the same training in float64."""
    setting = training(name)
    return trained_in_float64(setting, IMAGES, smooth(setting))


def descended(folder: Path, **changes) -> dict[str, torch.Tensor]:
    """Everything that the DUFM by itself records."""
    setting = config(protocol__name="dufm", protocol__samples_per_class=5, **changes)
    run = Run(setting, Inputs(), folder / "dufm", Record(folder / "dufm"))
    outcome = perform(run)
    values = torch.tensor([row.value for row in run.record.rows], dtype=torch.float64)
    names = [(row.stage, row.step, row.seed, row.layer, row.tap, row.metric) for row in run.record.rows]
    return {"rows": values, "names": names, "last": outcome.section("head").head.weights[-1]}


def sharded(folder: Path) -> dict[str, torch.Tensor]:
    """Everything of a descent on frozen features, of which each rank has its own; stopped on the way, and gone on."""
    more = {"descent__sharded": "true", "descent__precision": "float64", "head__bias": "last", "head__bias_decay": 1e-3}
    more |= {"descent__steps": 20}
    more |= {"descent__records_per_decade": 2, "head__depth": 2, "descent__seeds": 2}
    setting = config(protocol__name="frozen_features", backbone__epochs=0, trainer__checkpoint_seconds=0.0, **more)
    found = {}
    for name, stops in {"whole": False, "stopped": True, "gone on": False}.items():
        place = folder / f"sharded-{'whole' if name == 'whole' else 'stopped'}"
        network = build_backbone("mlp", IMAGES.image_shape, hidden=[12, 7], seed=1)
        run = Run(setting, Inputs(IMAGES, network), place, Record(place))
        if stops and ranks.is_first():  # whom a signal reaches, alone

            def signalled(rows) -> None:
                if any(row.stage == "head" and row.step >= 10 for row in rows):
                    interruption.received = signal.SIGTERM

            run.record.listeners.append(signalled)
        try:
            outcome = perform(run)
        except Interrupted:
            interruption.reset()
            found[f"{name} at"] = max(row.step for row in run.record.rows if row.stage == "head")
            continue
        section = outcome.section("head")
        values = torch.tensor([row.value for row in run.record.rows], dtype=torch.float64)
        names = [(row.stage, row.step, row.seed, row.layer, row.tap, row.metric) for row in run.record.rows]
        accuracy = torch.tensor([section.train_accuracy, section.test_accuracy], dtype=torch.float64)
        head = section.head
        own = {"rows": values, "names": names, "accuracy": accuracy, "bias": head.bias, "last": head.weights[-1]}
        found[name] = own | {"features": len(head.features), "sizes": head.class_sizes, "kept": list(outcome.tensors())}
    return found


def work(folder: Path) -> None:
    """All of it, as one rank of several."""
    extraction.EVAL_BATCH = 16  # so that the few images make uneven numbers of batches
    joining.SENT_BYTES = 2_000  # so that places are sent in several groups, some by themselves
    rank, world_size = ranks.rank(), ranks.world_size()
    runs = folder / f"world-{world_size}"
    results = {
        "mlp": measured("mlp", hidden=[12, 7]),
        "own cache": cached(folder / f"cache-{world_size}"),
        "shared cache": cached(folder / "cache"),
        "sharded": sharded(runs),
        "dufm": descended(runs, head__inputs="free", head__feature_decay=1e-3),
    }
    if world_size in OF_RESNET:
        results["resnet20"] = measured("resnet20")
    networks = [name for name in TRAINED if name == "mlp" or world_size in OF_RESNET]
    results |= {f"trained {name}": trained(runs, name) for name in networks}
    if world_size == 1:
        results |= {f"float64 {name}": in_float64(name) for name in TRAINED}
    torch.save(results, folder / f"{world_size}-{rank}.pt")


def join(rank: int, world_size: int, port: int) -> None:
    place = {"RANK": rank, "LOCAL_RANK": rank, "NODE_RANK": 0, "WORLD_SIZE": world_size, "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in place.items()} | {"MASTER_ADDR": "127.0.0.1"})
    ranks.connect("gloo")


def fork(rank: int, world_size: int, port: int, job: Callable[[], None]) -> int:
    pid = os.fork()
    if pid:
        return pid
    try:
        if world_size > 1:
            join(rank, world_size, port)
        job()
        ranks.disconnect()
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def in_ranks(world_size: int, job: Callable[[], None]) -> None:
    """Have every rank of that many do a job; exit with a sentence if one fails."""
    torch.set_num_threads(1)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    children = [fork(rank, world_size, port, job) for rank in range(world_size)]
    if any(os.waitpid(child, 0)[1] for child in children):
        sys.exit(f"a rank of {world_size} failed")


if __name__ == "__main__":
    for world_size in map(int, sys.argv[2:]):
        in_ranks(world_size, lambda: work(Path(sys.argv[1])))
