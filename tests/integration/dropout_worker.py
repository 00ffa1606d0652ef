"""Two ranks that train a network with dropout, for test_dropout_resumes.py: left alone, and killed and begun again.

Arguments: a folder, in which every rank leaves its weights. The ranks are forked from this process.
"""

import os
import signal
import socket
import sys
import traceback
from pathlib import Path

import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from pipeline.config import Config, settings
from pipeline.data import load_images
from pipeline.dufm.objectives import load_objective
from pipeline.networks import Backbone
from pipeline.runs.training.checkpoints import TrainingCheckpoints
from pipeline.runs.training.learners import Classifier
from pipeline.runs.training.training import train
from pipeline.runtime import ranks
from pipeline.storage.record import Record

KILLED_AFTER = 7
"""Batches; of 5 in an epoch."""


class Dropping(nn.Module):
    """Half of the units are dropped, and the process dies when it has been trained on some batches."""

    def __init__(self, last: int | None) -> None:
        super().__init__()
        self.block1 = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Dropout(0.5))
        self._last, self.trained = last, 0

    def forward(self, images: Tensor) -> Tensor:
        self.trained += self.training
        if self.training and self.trained - 1 == self._last:
            os.kill(os.getpid(), signal.SIGKILL)
        return self.block1(images)


def trained(folder: Path, last: int | None) -> dict[str, Tensor]:
    """Weights after three epochs, with a checkpoint after every batch; and how many batches it took."""
    cfg = OmegaConf.structured(Config)
    names = {"data.name": "digits", "backbone.name": "mlp", "optimizer.name": "sgd", "logger.name": "none"}
    names |= {"protocol.name": "frozen_features", "trainer.accelerator": "cpu", "trainer.devices": 2}
    names |= {"backbone.hidden": [8], "backbone.epochs": 3, "backbone.batch_size": 8}
    for key, value in names.items():
        OmegaConf.update(cfg, key, value)
    config, images = settings(cfg), load_images("digits", classes=[0, 1], samples_per_class=20)
    torch.manual_seed(0)
    backbone = Backbone(Dropping(last), images.image_shape, name="dropping")
    learner = Classifier(backbone, 2, load_objective("cross_entropy"), config.optimizer, 3, 0)
    checkpoints = TrainingCheckpoints(folder / "backbone.ckpt", "key", Record(folder), seconds=0)
    train(learner, images, config, [], lambda epoch: "", checkpoints)
    return learner.state_dict() | {"batches": torch.tensor(backbone.network.trained)}


def fork(rank: int, port: int, folder: Path, name: str, last: int | None) -> int:
    pid = os.fork()
    if pid:
        return pid
    try:
        place = {"RANK": rank, "LOCAL_RANK": rank, "NODE_RANK": 0, "WORLD_SIZE": 2, "MASTER_PORT": port}
        os.environ.update({key: str(value) for key, value in place.items()} | {"MASTER_ADDR": "127.0.0.1"})
        ranks.connect("gloo")
        torch.save(trained(folder / name, last), folder / f"{name}-{rank}.pt")
        ranks.disconnect()
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    for name, last in (("alone", None), ("killed", KILLED_AFTER), ("killed", None)):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        codes = [os.waitpid(child, 0)[1] for child in [fork(rank, port, folder, name, last) for rank in range(2)]]
        if any(codes) != (last is not None):
            sys.exit(f"{name}, killed after {last} batches: the ranks ended with {codes}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
