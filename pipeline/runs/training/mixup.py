"""Training on mixed images (`backbone.mixup`): each with another one of its batch, and the loss with that one's label.

Mixup as in arXiv 1710.09412, whose weight of a batch is drawn from Beta(alpha, alpha) [recalled, M].
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pipeline.runtime.randomness import generator


@dataclass(frozen=True)
class Mixed:
    """A batch whose image i is share x_i + (1 - share) x_{others[i]}."""

    images: Tensor
    share: float
    others: Tensor


def mixed(images: Tensor, alpha: float, seed: int, epoch: int, batch: int) -> Mixed:
    """The images ``(n, ...)`` of a batch, mixed by the weight and the order that belong to seed, epoch and batch.

    So a training that goes on from a checkpoint mixes as one that was never interrupted, and all ranks mix by the same
    weight, each within its own part.
    """
    source = generator(seed, f"mixup/epoch_{epoch}/batch_{batch}")
    share = float(np.random.default_rng(source.initial_seed() % 2**63).beta(alpha, alpha))
    others = torch.randperm(len(images), generator=source).to(images.device)
    return Mixed(share * images + (1 - share) * images[others], share, others)
