"""Mini-batch training under Lightning: what is trained is a learner's business, how it runs is decided here."""

import logging
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint, TQDMProgressBar
from pytorch_lightning.plugins.io import TorchCheckpointIO

from pipeline.config import Config
from pipeline.data import ImageData, ResidentLoader
from pipeline.errors import RunError
from pipeline.randomness import generator
from pipeline.record import atomic

log = logging.getLogger(__name__)


class EveryScheduledEpoch(pl.Callback):
    """Call ``measure(epoch)`` before training and after each epoch of the schedule."""

    def __init__(self, schedule: list[int], measure: Callable[[int], None]) -> None:
        self.schedule, self.measure = frozenset(schedule), measure

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._measure(trainer.current_epoch)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._measure(trainer.current_epoch + 1)

    def _measure(self, epoch: int) -> None:
        if epoch in self.schedule:
            self.measure(epoch)


class AtomicCheckpoints(TorchCheckpointIO):
    """Checkpoints that are whole or absent: Lightning's own save is not atomic across file systems."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        with atomic(Path(path)) as temporary:
            torch.save(checkpoint, temporary)


def train(
    learner: pl.LightningModule,
    images: ImageData,
    config: Config,
    folder: Path,
    schedule: list[int],
    measure: Callable[[int], None],
) -> None:
    """Train ``learner`` in place on the training split; checkpoints go to ``folder/checkpoints``.

    Args:
        schedule: epochs (0 = before training) after which ``measure(epoch)`` is called.

    Raises:
        RunError: the loss became NaN or infinite.
        KeyboardInterrupt: the user interrupted the training.
    """
    settings, images = config.backbone, images.to(config.device)
    with torch.random.fork_rng(devices=[]):
        # Dropout, if a backbone has any, draws from the global generator.
        torch.set_rng_state(generator(config.seed, "training").get_state())
        loader = ResidentLoader(
            images.train,
            min(settings.batch_size, len(images.train.labels)),
            seed=config.seed,
            shuffle=True,
            augment=config.data.augment,
            standardise=images.standardise,
            device=config.device,
        )
        trainer = _trainer(config, folder, schedule, measure)
        try:
            with warnings.catch_warnings():
                # True of every loader that is not a DataLoader; ours needs no workers, its images are in memory.
                warnings.filterwarnings("ignore", message=".*does not have many workers.*")
                warnings.filterwarnings("ignore", message=".*Checkpoint directory .* exists and is not empty.*")
                trainer.fit(learner, loader)
        except SystemExit as error:
            # Lightning turns Ctrl-C into exit(1); the caller's exit code is decided by the caller.
            if trainer.interrupted:
                raise KeyboardInterrupt from error
            raise
    _check_finite(learner, config)


def _trainer(config: Config, folder: Path, schedule: list[int], measure: Callable[[int], None]) -> pl.Trainer:
    interactive = sys.stderr.isatty()
    callbacks: list[pl.Callback] = [
        EveryScheduledEpoch(schedule, measure),
        ModelCheckpoint(folder / "checkpoints", filename="backbone", save_top_k=1, enable_version_counter=False),
    ]
    if interactive:
        callbacks.append(TQDMProgressBar())
    return pl.Trainer(
        accelerator="gpu" if config.device.type == "cuda" else "cpu",
        devices=config.trainer.devices,
        max_epochs=config.backbone.epochs,
        default_root_dir=folder,
        logger=False,
        callbacks=callbacks,
        plugins=[AtomicCheckpoints()],
        enable_progress_bar=interactive,
        enable_model_summary=False,
    )


def _check_finite(learner: pl.LightningModule, config: Config) -> None:
    for name, parameter in learner.named_parameters():
        if not torch.isfinite(parameter).all():
            raise RunError(
                f"backbone training diverged: {name} holds NaN or infinity after {config.backbone.epochs} epochs; "
                f"a smaller optimizer.lr (now {config.optimizer.lr:g}) usually helps."
            )
