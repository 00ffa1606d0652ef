"""What a network is fitted to that regresses on images: numbers of each image instead of its class.

Both kinds are functions of an image alone, so they are known on the test split as well. Which numbers is ours: the
paper's data (arXiv 2409.04180: robots, driving, ages of faces) are not here.
"""

from dataclasses import replace

import torch
from torch import Tensor

from pipeline.config import Config
from pipeline.data import ImageData
from pipeline.runtime.errors import ConfigError
from pipeline.runtime.randomness import generator

LABELS, STATISTICS, TEACHER = "labels", "statistics", "teacher"
KINDS = (LABELS, STATISTICS, TEACHER)
"""``protocol.targets`` where there are images."""
OUTPUTS = 3
"""Numbers of each image."""
HIDDEN = 64
"""Units of the teacher."""
PART = 4096
"""Images that are looked at together."""


def fitted_to(config: Config, images: ImageData) -> ImageData:
    """The images, with the numbers that ``protocol.targets`` says beside their labels.

    Every number has mean 0 and variance 1 over the training split.

    Raises:
        ConfigError: they are of texts, or one is the same for all training images.
    """
    kind = config.protocol.targets
    if kind == LABELS:
        return images
    if images.kind == "text" or (kind == STATISTICS and images.kind != "images"):
        fit = "labels" if images.kind == "text" else "labels, teacher"
        raise ConfigError(
            f"protocol.targets={kind} is of images, and data={images.name} holds {images.kind}; allowed: {fit}."
        )
    numbers = {"train": None, "test": None}
    for name in numbers:
        split = getattr(images, name)
        parts = [images.standardise(split.read(rows)) for rows in torch.arange(len(split)).split(PART)]
        numbers[name] = torch.cat([_NUMBERS[kind](part, config.seed) for part in parts])
    mean, spread = numbers["train"].mean(dim=0), numbers["train"].std(dim=0, correction=0)
    if not bool((spread > 1e-9 * (1 + mean.abs())).all()):
        raise ConfigError(
            f"protocol.targets={kind} is the same for all {len(images.train)} training images in one of its "
            f"{OUTPUTS} numbers; allowed: images that differ, or protocol.targets=labels."
        )
    goals = {name: (found - mean) / spread for name, found in numbers.items()}
    return replace(images, **{name: replace(getattr(images, name), goals=goals[name]) for name in goals})


def statistics(images: Tensor, seed: int = 0) -> Tensor:
    """Mean brightness, and mean absolute difference of pixels side by side and one above the other, ``(N, 3)`` float64.

    Args:
        images: ``(N, C, H, W)``; of colours the mean.
    """
    grey = images.double().mean(dim=1)
    differences = (grey.diff(dim=axis).abs().mean(dim=(1, 2)) if grey.shape[axis] > 1 else None for axis in (2, 1))
    beside = [grey.new_zeros(len(grey)) if found is None else found for found in differences]
    return torch.stack([grey.mean(dim=(1, 2)), *beside], dim=1)


def teacher(images: Tensor, seed: int) -> Tensor:
    """Outputs ``(N, 3)`` float64 of a random network of 64 tanh units, drawn with the seed."""
    rows, source = images.double().flatten(1), generator(seed, "teacher of images")
    first = torch.randn(rows.shape[1], HIDDEN, generator=source, dtype=torch.float64) / rows.shape[1] ** 0.5
    last = torch.randn(HIDDEN, OUTPUTS, generator=source, dtype=torch.float64) / HIDDEN**0.5
    return torch.tanh(rows @ first) @ last


_NUMBERS = {STATISTICS: statistics, TEACHER: teacher}
