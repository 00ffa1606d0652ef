"""Random crop and flip of whole uint8 batches by indexing, every image with a draw of its own."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from pipeline.data.settings import AUGMENTATIONS


@dataclass(frozen=True)
class Augmentation:
    """Random crop out of an image padded with black, and for `crop_flip` a left-right flip with probability 1/2.

    A flipped digit or letter is another sign, so flipping is the user's choice, never a data set's default. The
    transforms of torchvision are not used because on a batch they draw one crop for all images.

    kind: one of AUGMENTATIONS. padding: pixels added on each side, >= 0. Raises ValueError for anything else.
    """

    kind: str = "none"
    padding: int = 4

    def __post_init__(self) -> None:
        if self.kind not in AUGMENTATIONS:
            raise ValueError(f"data.augment={self.kind} is unknown; allowed: {', '.join(AUGMENTATIONS)}.")
        if self.padding < 0:
            raise ValueError(f"padding={self.padding} is out of range; allowed: an integer >= 0.")

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """One move (top, left, flip) for each of `count` images: (count, 3) int64, uniform and independent."""
        upper = (2 * self.padding + 1, 2 * self.padding + 1, 2 if self.kind == "crop_flip" else 1)
        return torch.stack([torch.randint(high, (count,), generator=generator) for high in upper], dim=1)

    def apply(self, images: Tensor, moves: Tensor) -> Tensor:
        """Move each image of a batch (n, C, H, W) as its row of `moves` (n, 3) says; same shape, dtype and device."""
        if self.kind == "none":
            return images
        batch, channels, height, width = images.shape
        top, left, flip = moves.unsqueeze(2).unbind(1)
        rows = top + torch.arange(height, device=images.device)
        columns = torch.arange(width, device=images.device).expand(batch, width)
        columns = left + torch.where(flip.bool(), columns.flip(1), columns)
        padded = pad(images, (self.padding,) * 4).flatten(2)
        # One flat gather per batch: position = row * padded width + column, the same for every channel.
        position = rows.unsqueeze(2) * (width + 2 * self.padding) + columns.unsqueeze(1)
        position = position.flatten(1).unsqueeze(1).expand(batch, channels, height * width)
        return padded.gather(2, position).view(images.shape)
