"""What is trained by mini-batches: a backbone with something on top, and the loss of a batch."""

from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.config import OptimizerConfig
from pipeline.errors import RunError
from pipeline.randomness import generator

# Steps between checks for a non-finite loss: reading the loss synchronises with the device.
CHECK_EVERY = 20


class Classifier(pl.LightningModule):
    """A backbone and a linear classifier, trained with MSE on one-hot targets or with cross-entropy."""

    def __init__(
        self, backbone: nn.Module, num_classes: int, loss: str, optimizer: OptimizerConfig, epochs: int, seed: int
    ) -> None:
        super().__init__()
        self.backbone = backbone
        with torch.random.fork_rng(devices=[]):
            torch.set_rng_state(generator(seed, "classifier").get_state())
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
