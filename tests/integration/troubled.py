"""Networks that get into trouble at a known place: ``backbone=custom backbone._target_=troubled.<class>``."""

import time

import torch
from torch import Tensor, nn


class Troubled(nn.Module):
    """A small MLP that counts the batches it has been trained on."""

    def __init__(self) -> None:
        super().__init__()
        self.block1 = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU())
        self.register_buffer("batches", torch.tensor(0))

    def forward(self, images: Tensor) -> Tensor:
        features = self.block1(images)
        if self.training:
            self.batches += 1
            return self.trained(features, int(self.batches))
        return self.measured(features)

    def trained(self, features: Tensor, batch: int) -> Tensor:
        """Features of a batch of the training, which is the ``batch``-th."""
        return features

    def measured(self, features: Tensor) -> Tensor:
        """Features of a batch that is not trained on."""
        return features


class Sleeper(Troubled):
    """Falls asleep in batch 27."""

    def trained(self, features: Tensor, batch: int) -> Tensor:
        if batch == 27:
            time.sleep(3600)
        return features


class Glutton(Troubled):
    """Asks for more memory than any machine has in batch 27."""

    def trained(self, features: Tensor, batch: int) -> Tensor:
        return features + torch.ones(len(features), 2**44 if batch == 27 else 1).mean()


class Nan(Troubled):
    """Gives NaN in batch 27: with 10 batches in an epoch the 7th of epoch 3."""

    def trained(self, features: Tensor, batch: int) -> Tensor:
        return features * (float("nan") if batch == 27 else 1.0)


class Blind(Troubled):
    """Gives NaN for the last image of every large batch that is not trained on."""

    def measured(self, features: Tensor) -> Tensor:
        features = features.clone()
        features[10:][-1:] = float("nan")
        return features
