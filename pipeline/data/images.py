"""The typed value every other room receives: resident images, labels, and how to standardise them."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor


class DataError(ValueError):
    """A data setting or a data file that cannot be used: one sentence naming the key, the value and what is allowed."""


@dataclass(frozen=True, eq=False)
class Split:
    """Images of one split, kept whole in memory.

    images: (N, C, H, W), grey levels as uint8, or numbers of any kind as float32 (vectors are (N, d, 1, 1)).
    labels: (N,) int64 in 0..K-1.
    Raises ValueError for any other shape or dtype, and for numbers that are NaN or infinite.
    """

    images: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        if self.images.ndim != 4 or self.images.dtype not in (torch.uint8, torch.float32):
            raise ValueError(
                "images must be a uint8 tensor (N, C, H, W), or a float32 one, "
                f"not {self.images.dtype} {tuple(self.images.shape)}"
            )
        if self.images.is_floating_point() and not self.images.isfinite().all():
            raise ValueError("images must be finite, not NaN or infinite")
        if self.labels.shape != self.images.shape[:1] or self.labels.dtype != torch.int64:
            raise ValueError(
                f"labels must be an int64 tensor ({len(self.images)},), "
                f"not {self.labels.dtype} {tuple(self.labels.shape)}"
            )

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device | str) -> "Split":
        """The same split on `device`."""
        return replace(self, images=self.images.to(device), labels=self.labels.to(device))


@dataclass(frozen=True, eq=False)
class ImageData:
    """A data set ready for training: two splits, the class names in label order, and the training statistics.

    mean, std: (C,) float32 of the training images scaled to [0, 1], population std over all pixels; 0 and 1 where the
        images are float32, because such numbers are used as they are.
    """

    name: str
    train: Split
    test: Split
    classes: tuple[str, ...]
    mean: Tensor
    std: Tensor

    def __post_init__(self) -> None:
        for split, labels in (("train", self.train.labels), ("test", self.test.labels)):
            if len(labels) and not (labels.min() >= 0 and labels.max() < self.num_classes):
                raise ValueError(
                    f"{split} labels must lie in 0..{self.num_classes - 1}, "
                    f"not in {labels.min().item()}..{labels.max().item()}"
                )

    @classmethod
    def from_splits(cls, name: str, train: Split, test: Split, classes: tuple[str, ...]) -> "ImageData":
        """Compute mean and std of `train` and put the pieces together."""
        mean, std = channel_statistics(train.images)
        return cls(name, train, test, classes, mean, std)

    def to(self, device: torch.device | str) -> "ImageData":
        """The same data set with every tensor on `device`."""
        return replace(
            self,
            train=self.train.to(device),
            test=self.test.to(device),
            mean=self.mean.to(device),
            std=self.std.to(device),
        )

    @property
    def num_classes(self) -> int:
        """K."""
        return len(self.classes)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        channels, height, width = self.train.images.shape[1:]
        return channels, height, width

    def class_counts(self, split: str) -> dict[str, int]:
        """Images per class of the split ``train`` or ``test``, by class name in label order."""
        counts = torch.bincount(getattr(self, split).labels.cpu(), minlength=self.num_classes).tolist()
        return dict(zip(self.classes, counts, strict=True))

    @property
    def imbalance(self) -> float | None:
        """Training images of the largest class over those of the smallest; None if a class has none."""
        counts = self.class_counts("train").values()
        return max(counts) / min(counts) if min(counts) else None

    def standardise(self, images: Tensor) -> Tensor:
        """(x / 255 - mean) / std of a uint8 batch (n, C, H, W), as float32 on the batch's device.

        Numbers that are float32 already come back as they are.

        A channel whose std is below one grey level (1/255) is divided by one grey level, so that a constant channel
        becomes zeros instead of NaN.
        """
        if images.is_floating_point():
            return images
        # In units of grey levels: one subtraction and one division, in place, on the freshly converted batch.
        shift = (255 * self.mean).view(-1, 1, 1).to(images.device)
        scale = (255 * self.std).clamp_min(1).view(-1, 1, 1).to(images.device)
        return images.to(torch.float32).sub_(shift).div_(scale)


def channel_statistics(images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and population std, (C,) float32 each, of uint8 images (N, C, H, W) scaled to [0, 1]; of float32: 0 and 1.

    Summed over a 256-bin histogram: exact whatever N is, and no float copy of the images.
    """
    if images.is_floating_point():
        return torch.zeros(images.shape[1]), torch.ones(images.shape[1])
    levels = torch.arange(256, dtype=torch.float64) / 255
    moments = []
    for channel in images.unbind(1):
        share = torch.bincount(channel.flatten(), minlength=256).double() / channel.numel()
        mean = (share * levels).sum()
        moments.append(torch.stack([mean, (share * (levels - mean).square()).sum().sqrt()]))
    mean, std = torch.stack(moments, dim=1).float()
    return mean, std
