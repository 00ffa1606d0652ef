"""Mini-batch training of a backbone with a linear classifier on top, under Lightning."""

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
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.config import Config, OptimizerConfig
from pipeline.data import ImageData, ResidentLoader
from pipeline.errors import RunError
from pipeline.randomness import generator
from pipeline.record import atomic

log = logging.getLogger(__name__)

# Steps between checks for a non-finite loss: reading the loss synchronises with the device.
CHECK_EVERY = 20


class Classifier(pl.LightningModule):
    """A backbone and a linear classifier, trained with MSE on one-hot targets or with cross-entropy."""

    def __init__(
        self, backbone: nn.Module, num_classes: int, loss: str, optimizer: OptimizerConfig, epochs: int
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.classifier = nn.Linear(backbone.num_features, num_classes)
        self.num_classes, self.loss, self.optimizer, self.epochs = num_classes, loss, optimizer, epochs

    def forward(self, images: Tensor) -> Tensor:
        """Standardised images ``(B, C, H, W)`` to outputs ``(B, K)``."""
        return self.classifier(self.backbone(images))

    def objective(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Mean loss over the batch: 1/2 ||z - y||^2, or cross-entropy."""
        if self.loss == "cross_entropy":
            return F.cross_entropy(outputs, labels)
        targets = F.one_hot(labels, self.num_classes).to(outputs.dtype)
        return (outputs - targets).square().sum(dim=1).mean() / 2

    @torch.inference_mode()
    def score(self, features: Tensor, labels: Tensor) -> tuple[float, float]:
        """Loss and accuracy on features ``(N, d)`` of the backbone."""
        outputs = self.classifier(features.to(self.classifier.weight))
        return self.objective(outputs, labels).item(), (outputs.argmax(dim=1) == labels).double().mean().item()

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        images, labels = batch
        loss = self.objective(self(images), labels)
        if batch_idx % CHECK_EVERY == 0 and not torch.isfinite(loss):
            raise RunError(
                f"backbone training diverged: the loss is {loss.item()} in epoch {self.current_epoch + 1}, batch "
                f"{batch_idx + 1}; a smaller optimizer.lr (now {self.optimizer.lr:g}) usually helps."
            )
        return loss

    def configure_optimizers(self) -> Any:
        settings = self.optimizer
        if settings.name == "sgd":
            optimizer: torch.optim.Optimizer = torch.optim.SGD(
                self.parameters(), settings.lr, momentum=settings.momentum, weight_decay=settings.weight_decay
            )
        else:
            optimizer = torch.optim.AdamW(self.parameters(), settings.lr, weight_decay=settings.weight_decay)
        if settings.schedule == "constant":
            return optimizer
        return [optimizer], [torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=self.epochs)]


class EveryScheduledEpoch(pl.Callback):
    """Call ``measure(module, epoch)`` before training and after each epoch of the schedule."""

    def __init__(self, schedule: list[int], measure: Callable[[Classifier, int], None]) -> None:
        self.schedule, self.measure = frozenset(schedule), measure

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._measure(pl_module, trainer.current_epoch)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._measure(pl_module, trainer.current_epoch + 1)

    def _measure(self, module: pl.LightningModule, epoch: int) -> None:
        if epoch in self.schedule:
            self.measure(module, epoch)  # type: ignore[arg-type]


class AtomicCheckpoints(TorchCheckpointIO):
    """Checkpoints that are whole or absent: Lightning's own save is not atomic across file systems."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        with atomic(Path(path)) as temporary:
            torch.save(checkpoint, temporary)


def train(
    backbone: nn.Module,
    images: ImageData,
    config: Config,
    folder: Path,
    schedule: list[int],
    measure: Callable[[Classifier, int], None],
) -> Classifier:
    """Train ``backbone`` in place on the training split; checkpoints go to ``folder/checkpoints``.

    Args:
        schedule: epochs (0 = before training) after which ``measure(module, epoch)`` is called.

    Raises:
        RunError: the loss became NaN or infinite.
        KeyboardInterrupt: the user interrupted the training.
    """
    settings, images = config.backbone, images.to(config.device)
    with torch.random.fork_rng(devices=[]):
        # nn.Linear draws from the global generator; so does dropout, if a backbone has any.
        torch.set_rng_state(generator(config.seed, "classifier").get_state())
        module = Classifier(backbone, images.num_classes, settings.loss, config.optimizer, settings.epochs)
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
                trainer.fit(module, loader)
        except SystemExit as error:
            # Lightning turns Ctrl-C into exit(1); the caller's exit code is decided by the caller.
            if trainer.interrupted:
                raise KeyboardInterrupt from error
            raise
    _check_finite(module, config)
    return module


def _trainer(config: Config, folder: Path, schedule: list[int], measure: Callable[..., None]) -> pl.Trainer:
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


def _check_finite(module: Classifier, config: Config) -> None:
    for name, parameter in module.named_parameters():
        if not torch.isfinite(parameter).all():
            raise RunError(
                f"backbone training diverged: {name} holds NaN or infinity after {config.backbone.epochs} epochs; "
                f"a smaller optimizer.lr (now {config.optimizer.lr:g}) usually helps."
            )
