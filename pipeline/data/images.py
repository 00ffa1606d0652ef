"""The typed value every other room receives: resident samples, labels, and how to standardise them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pipeline.data.mapped import MappedRows

PART_BYTES = 2**24
"""What is read at once of images that lie on disk."""


class DataError(ValueError):
    """A data setting or a data file that cannot be used: one sentence naming the key, the value and what is allowed."""


@dataclass(frozen=True, eq=False)
class Split:
    """Samples of one split, kept whole in memory.

    images: (N, C, H, W), grey levels as uint8, or numbers of any kind as float32 (vectors are (N, d, 1, 1)); or
        tokens of a text, (N, T) int64.
    labels: (N,) int64 in 0..K-1, the true classes; of tokens (N, T), one for each position. A label of -1 is none: a
        position that is not counted, a row of foreign data.
    groups: (N,) int64 in 0..G-1, to which group a sample belongs whatever its class; None where there are no groups.
    given: the labels that training is told, shaped like `labels`; None where these are the true ones.
    mapped: the file that images are rows of, where they lie on disk.
    goals: (N, n) float64, numbers that outputs are fitted to instead of the labels; None: to these.
    Raises ValueError for any other shape or dtype, and for numbers that are NaN or infinite.
    """

    images: Tensor
    labels: Tensor
    groups: Tensor | None = None
    given: Tensor | None = None
    mapped: MappedRows | None = None
    goals: Tensor | None = None

    def __post_init__(self) -> None:
        if not self.is_text and (self.images.ndim != 4 or self.images.dtype not in (torch.uint8, torch.float32)):
            raise ValueError(
                "images must be a uint8 tensor (N, C, H, W), or a float32 one, "
                f"not {self.images.dtype} {tuple(self.images.shape)}"
            )
        if self.images.is_floating_point() and not self.images.isfinite().all():
            raise ValueError("images must be finite, not NaN or infinite")
        expected = self.images.shape[:2] if self.is_text else self.images.shape[:1]
        for name, tensor, shape in (
            ("labels", self.labels, expected),
            ("groups", self.groups, self.images.shape[:1]),
            ("given labels", self.given, expected),
        ):
            if tensor is not None and (tensor.shape != shape or tensor.dtype != torch.int64):
                raise ValueError(
                    f"{name} must be an int64 tensor {tuple(shape)}, not {tensor.dtype} {tuple(tensor.shape)}"
                )
        if self.goals is not None and (self.goals.ndim != 2 or len(self.goals) != len(self.images)):
            raise ValueError(f"goals must be a matrix of {len(self.images)} rows, not {tuple(self.goals.shape)}")

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, rows: slice | Tensor) -> "Split":
        """The split of these rows."""
        if isinstance(rows, slice):  # a view
            return self._each(lambda tensor: tensor[rows], self.images[rows], self.mapped)
        return self._each(lambda tensor: tensor[rows], self.read(rows), None)

    @property
    def is_text(self) -> bool:
        """Whether a sample is a window of tokens."""
        return self.images.ndim == 2 and self.images.dtype == torch.int64

    @property
    def targets(self) -> Tensor:
        """The labels that training is told, (N,); of tokens (N, T)."""
        return self.labels if self.given is None else self.given

    @property
    def told(self) -> Tensor:
        """What outputs are fitted to: `goals` where there are such, else `targets`."""
        return self.targets if self.goals is None else self.goals

    def to(self, device: torch.device | str) -> "Split":
        """The same split on `device`; images that lie on disk stay there."""
        images = self.images.to(device) if self.mapped is None else self.images
        return self._each(lambda tensor: tensor.to(device), images, self.mapped)

    def read(self, rows: Tensor) -> Tensor:
        """The images of these rows; where they lie on disk no memory but their own is taken."""
        return self.images[rows] if self.mapped is None else self.mapped.read(self.images, rows.cpu())

    def in_parts(self, size: int) -> Iterator[Tensor]:
        """The images; where they lie on disk about so many bytes at a time."""
        if self.mapped is None:
            yield self.images
            return
        for rows in torch.arange(len(self)).split(max(1, size // self.images[:1].nbytes)):
            yield self.read(rows)

    def _each(self, change: Callable[[Tensor], Tensor], images: Tensor, mapped: MappedRows | None) -> "Split":
        rest = (self.labels, self.groups, self.given, self.goals)
        labels, groups, given, goals = (None if tensor is None else change(tensor) for tensor in rest)
        return Split(images, labels, groups, given, mapped, goals)


@dataclass(frozen=True, eq=False)
class ImageData:
    """A data set ready for training: two splits, the class names in label order, and the training statistics.

    mean, std: (C,) float32 of the training images scaled to [0, 1], population std over all pixels; 0 and 1 where the
        images are float32, because such numbers are used as they are. Of tokens there are none: (0,).
    groups: names of the groups that the samples of both splits belong to, () where there are none.
    foreign: rows of another data set, made like those of the test split; their labels are -1.
    sha256: of what was read, for the record, where the name does not say what that is (a text).
    """

    name: str
    train: Split
    test: Split
    classes: tuple[str, ...]
    mean: Tensor
    std: Tensor
    groups: tuple[str, ...] = ()
    foreign: Split | None = None
    sha256: str | None = None

    def __post_init__(self) -> None:
        least = -1 if self.train.is_text else 0
        for name, split in (("train", self.train), ("test", self.test)):
            for labels in (split.labels, split.targets):
                if labels.numel() and not (labels.min() >= least and labels.max() < self.num_classes):
                    raise ValueError(
                        f"{name} labels must lie in {least}..{self.num_classes - 1}, "
                        f"not in {labels.min().item()}..{labels.max().item()}"
                    )

    @classmethod
    def from_splits(
        cls,
        name: str,
        train: Split,
        test: Split,
        classes: tuple[str, ...],
        groups: tuple[str, ...] = (),
        foreign: Split | None = None,
        sha256: str | None = None,
    ) -> "ImageData":
        """Compute mean and std of `train` and put the pieces together."""
        mean, std = channel_statistics(train)
        return cls(name, train, test, classes, mean, std, groups, foreign, sha256)

    def to(self, device: torch.device | str) -> "ImageData":
        """The same data set with every tensor on `device`."""
        return replace(
            self,
            train=self.train.to(device),
            test=self.test.to(device),
            mean=self.mean.to(device),
            std=self.std.to(device),
            foreign=None if self.foreign is None else self.foreign.to(device),
        )

    @property
    def num_classes(self) -> int:
        """K."""
        return len(self.classes)

    @property
    def image_shape(self) -> tuple[int, ...]:
        """(C, H, W); of tokens (T,)."""
        return tuple(self.train.images.shape[1:])

    @property
    def kind(self) -> str:
        """What a sample is: ``images``, ``vectors`` (float32 of one pixel) or ``text`` (tokens, a class for each)."""
        if self.train.is_text:
            return "text"
        return "vectors" if self.train.images.is_floating_point() and self.image_shape[1:] == (1, 1) else "images"

    def class_counts(self, split: str) -> dict[str, int]:
        """Samples per class of the split ``train`` or ``test``, by class name in label order; of tokens positions."""
        labels = getattr(self, split).labels.cpu().flatten()
        counts = torch.bincount(labels[labels >= 0], minlength=self.num_classes).tolist()
        return dict(zip(self.classes, counts, strict=True))

    @property
    def imbalance(self) -> float | None:
        """Training images of the largest class over those of the smallest; None if a class has none."""
        counts = self.class_counts("train").values()
        return max(counts) / min(counts) if min(counts) else None

    def standardise(self, images: Tensor) -> Tensor:
        """(x / 255 - mean) / std of a uint8 batch (n, C, H, W), as float32 on the batch's device.

        Numbers that are float32 already, and tokens, come back as they are.

        A channel whose std is below one grey level (1/255) is divided by one grey level, so that a constant channel
        becomes zeros instead of NaN.
        """
        if images.dtype != torch.uint8:
            return images
        # In units of grey levels: one subtraction and one division, in place, on the freshly converted batch.
        shift = (255 * self.mean).view(-1, 1, 1).to(images.device)
        scale = (255 * self.std).clamp_min(1).view(-1, 1, 1).to(images.device)
        return images.to(torch.float32).sub_(shift).div_(scale)


def channel_statistics(split: Split) -> tuple[Tensor, Tensor]:
    """Mean and population std, (C,) float32 each, of the uint8 images (N, C, H, W) of a split, scaled to [0, 1].

    Of float32 images 0 and 1; of tokens (N, T) nothing, (0,).

    Summed over a 256-bin histogram: exact whatever N is, and no float copy of the images. Those on disk are
    read in parts.
    """
    images = split.images
    if images.ndim == 2:
        return torch.zeros(0), torch.ones(0)
    if images.is_floating_point():
        return torch.zeros(images.shape[1]), torch.ones(images.shape[1])
    counts = torch.zeros(images.shape[1], 256, dtype=torch.int64)
    for part in split.in_parts(PART_BYTES):
        counts += torch.stack([torch.bincount(channel.flatten(), minlength=256) for channel in part.unbind(1)])
    levels = torch.arange(256, dtype=torch.float64) / 255
    moments = []
    for count in counts:
        share = count.double() / images[:, 0].numel()
        mean = (share * levels).sum()
        moments.append(torch.stack([mean, (share * (levels - mean).square()).sum().sqrt()]))
    mean, std = torch.stack(moments, dim=1).float()
    return mean, std
