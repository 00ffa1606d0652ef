"""What can be done to the labels and images of any labelled data set: long tails, groups, label noise.

Everything is drawn from generators that belong to the run's seed and to one purpose each. The test split keeps its
sizes and its labels; only groups are made in it, too.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pipeline.data.images import DataError
from pipeline.data.selection import in_short
from pipeline.data.settings import GROUPS, NO_FLIP
from pipeline.runtime.randomness import generator
from pipeline.runtime.suggestions import did_you_mean

MADE_GROUPS = ("0", "1")


@dataclass(frozen=True)
class Flip:
    """Which labels are given wrongly: a share `rate` of the training samples of a group and a class, as class `to`."""

    rate: float
    group: int | str | None
    source: int | str | None
    target: int | str | None

    @classmethod
    def of(cls, given: Mapping[str, Any] | None) -> "Flip | None":
        """What the keys ``rate, group, from, to`` say; None where nothing is flipped.

        Raises DataError for other keys, a rate outside [0, 1], and other keys without a rate.
        """
        if given is None:
            return None
        if not isinstance(given, Mapping):
            raise DataError(f"data.flip={given} is no mapping; allowed: {{rate: 0.25, group: 1, from: 1, to: 0}}.")
        for key in given:
            if key not in NO_FLIP:
                hint = did_you_mean(key, NO_FLIP)
                raise DataError(
                    f"data.flip.{key} is not a known key; allowed in data.flip: {', '.join(NO_FLIP)}{hint}."
                )
        rate, group, source, target = (given.get(key, default) for key, default in NO_FLIP.items())
        number = isinstance(rate, int | float) and not isinstance(rate, bool)
        if not number or not 0 <= rate <= 1:
            raise DataError(f"data.flip.rate={rate} is out of range; allowed: a number from 0 to 1.")
        if source is not None and source == target:
            raise DataError(f"data.flip.from={source} is data.flip.to={target}; allowed: another class.")
        return cls(float(rate), group, source, target) if rate else None


def tail_counts(largest: int, tau: float, num_classes: int) -> list[int]:
    """Samples of each class of a long tail: n_c = floor(n_max tau^{c/(K-1)} + 1e-9), c = 0 .. K-1."""
    return [math.floor(largest * tau ** (label / (num_classes - 1)) + 1e-9) for label in range(num_classes)]


def long_tail(available: Sequence[int], tau: float, largest: int | None, names: Sequence[str]) -> list[int]:
    """The counts of a long tail over classes of so many samples, in the order of the class list.

    Args:
        largest: n_max; None takes the most for which every class has enough, which is that of the first class where
            all are equally large.

    Raises DataError where a class would have no sample, or more than there are.
    """
    if largest is None:
        largest = max(available)
        while any(
            wanted > there for wanted, there in zip(tail_counts(largest, tau, len(names)), available, strict=True)
        ):
            largest -= 1
    counts = tail_counts(largest, tau, len(names))
    for name, wanted, there in zip(names, counts, available, strict=True):
        if wanted > there:
            raise DataError(
                f"data.samples_per_class={largest} with data.imbalance={tau:g} asks for {wanted} samples of class "
                f"{name!r}, which has {there}; allowed: fewer."
            )
    if not min(counts):
        raise DataError(
            f"data.imbalance={tau:g} leaves no sample of class {names[counts.index(0)]!r}: the largest class has "
            f"{largest}; allowed: at least {1 / largest:.3g}."
        )
    return counts


def draw_groups(labels: Tensor, names: Sequence[str], share: float, seed: int, split: str) -> Tensor:
    """Groups (N,) int64: of each class round(share n_c) samples are in group 1, the others in 0."""
    groups = torch.zeros_like(labels)
    for label, name in enumerate(names):
        rows = (labels == label).nonzero().squeeze(1)
        order = torch.randperm(len(rows), generator=generator(seed, f"data/group/{split}/{name}"))
        groups[rows[order[: round(share * len(rows))]]] = 1
    return groups


def mark(images: Tensor, groups: Tensor, how: str) -> Tensor:
    """Images in which those of group 1 are marked: grey levels inverted (numbers: negated), or a patch drawn.

    The patch is white, in the upper left corner, a quarter of the height and of the width (at least one pixel).
    """
    images, marked = images.clone(), groups == 1
    if how == "invert":
        images[marked] = 255 - images[marked] if images.dtype == torch.uint8 else -images[marked]
    else:
        height, width = (max(1, side // 4) for side in images.shape[-2:])
        images[marked, :, :height, :width] = 255 if images.dtype == torch.uint8 else 1.0
    return images


def flipped(
    labels: Tensor, groups: Tensor | None, flip: Flip, names: Sequence[str], group_names: Sequence[str], seed: int
) -> Tensor:
    """The labels that training is told, (N,) int64: round(rate n) of the n samples that are meant, as another class.

    A larger rate flips the same samples and more. Without `to` it is any other class, each equally likely.
    Raises DataError for a class or a group that there is not.
    """
    meant = torch.ones(len(labels), dtype=torch.bool)
    if flip.group is not None:
        if groups is None:
            raise DataError(
                f"data.flip.group={flip.group}, but there are no groups; allowed: data.group={' or '.join(GROUPS)}, "
                "a groups.csv, or data.flip.group=null."
            )
        meant &= groups == member("data.flip.group", flip.group, group_names, "group")
    if flip.source is not None:
        meant &= labels == member("data.flip.from", flip.source, names, "class")
    rows = meant.nonzero().squeeze(1)
    order = torch.randperm(len(rows), generator=generator(seed, "data/flip"))
    rows = rows[order[: round(flip.rate * len(rows))]]
    given = labels.clone()
    if flip.target is not None:
        given[rows] = member("data.flip.to", flip.target, names, "class")
    else:
        steps = torch.randint(1, len(names), (len(labels),), generator=generator(seed, "data/flip/to"))
        given[rows] = (labels[rows] + steps[rows]) % len(names)
    return given


def shuffled_labels(labels: Tensor, seed: int) -> Tensor:
    """The labels in random order, so that each class keeps its size and nothing else."""
    return labels[torch.randperm(len(labels), generator=generator(seed, "data/random_labels"))]


def member(key: str, entry: int | str, names: Sequence[str], what: str) -> int:
    """The index of a class or group that is told by name, or else by its index; DataError if there is none."""
    if str(entry) in names and not isinstance(entry, bool):
        return list(names).index(str(entry))
    numeric = all(name.isdecimal() for name in names)
    number = not isinstance(entry, bool) and str(entry).isdecimal()
    if number and not numeric and int(entry) < len(names):
        return int(entry)
    raise DataError(f"{key}={entry} is no {what}; allowed: a name of {in_short(names)}.")
