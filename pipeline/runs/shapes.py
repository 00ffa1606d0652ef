"""What a head without images is fitted to: classes of any size, or a matrix of targets."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pipeline.config import Config, ProtocolConfig
from pipeline.runs.matrices import read_matrix, teacher
from pipeline.runtime.errors import ConfigError
from pipeline.runtime.settings import LARGEST_INTEGER, shown
from pipeline.runtime.suggestions import did_you_mean

FORMULAS = {"step": ("largest", "ratio", "share"), "long_tail": ("largest", "ratio")}
ALLOWED_SIZES = (
    "[40,20,10,2], {step: {largest: 100, ratio: 10, share: 0.5}}, {long_tail: {largest: 100, ratio: 0.01}}, or null"
)
NO_CLASSES = "the targets are a matrix and protocol.class_sizes says no classes"


@dataclass(frozen=True)
class Shape:
    """Samples and what they are fitted to.

    labels: int64 ``(N,)``, in the order of classes; all 0 where there are no classes.
    num_classes: of the metrics (at least 2, of which all but one may be empty).
    num_outputs: K, columns of the targets.
    targets: ``(N, K)`` float64; None: the labels.
    has_classes: whether the labels mean anything.
    """

    labels: Tensor
    num_classes: int
    num_outputs: int
    targets: Tensor | None = None
    has_classes: bool = True

    @property
    def num_samples(self) -> int:
        """N."""
        return len(self.labels)


def class_sizes(protocol: ProtocolConfig) -> tuple[int, ...]:
    """Samples of each class, as ``protocol.class_sizes`` says or else ``num_classes`` and ``samples_per_class``.

    step: the first classes have ``largest`` samples, a ``share`` of them at the end largest/ratio (STEP imbalance of
    arXiv 2306.07960; which share is meant is recalled). long_tail: n_c = floor(largest ratio^(c/(K-1))), c = 0..K-1.

    Raises:
        ConfigError: it says something else, or a class is empty.
    """
    given = protocol.class_sizes
    if given is None:
        return (protocol.samples_per_class,) * protocol.num_classes
    key = "protocol.class_sizes"
    if isinstance(given, list):
        sizes = tuple(given)
        if len(sizes) < 2 or not all(isinstance(size, int) and not isinstance(size, bool) for size in sizes):
            raise ConfigError(f"{key}={shown(given)} are no sizes of two or more classes; allowed: {ALLOWED_SIZES}.")
        if protocol.num_classes not in (ProtocolConfig.num_classes, len(sizes)):
            raise ConfigError(
                f"{key}={shown(given)} is of {len(sizes)} classes, and protocol.num_classes={protocol.num_classes}; "
                f"allowed: protocol.num_classes={len(sizes)}, or without it."
            )
    elif isinstance(given, dict) and len(given) == 1 and next(iter(given)) in FORMULAS:
        ((formula, numbers),) = given.items()
        sizes = _by_formula(formula, _checked_numbers(formula, numbers), protocol.num_classes)
    else:
        hint = did_you_mean(next(iter(given)), FORMULAS) if isinstance(given, dict) and given else ""
        raise ConfigError(f"{key}={_plain(given)} is not known; allowed: {ALLOWED_SIZES}{hint}.")
    if min(sizes) < 1 or sum(sizes) > LARGEST_INTEGER:
        raise ConfigError(
            f"{key}={_plain(given)} makes classes of {shown(sizes)} samples; allowed: at least 1 in each."
        )
    return sizes


def shape_of(config: Config) -> Shape:
    """What the head is fitted to in ``protocol=dufm``.

    Raises:
        ConfigError: a setting cannot be used.
    """
    protocol = config.protocol
    if protocol.targets == "labels":
        sizes = class_sizes(protocol)
        return Shape(_labels(sizes), len(sizes), len(sizes))
    given = protocol.class_sizes is not None
    if protocol.targets == "teacher":
        targets = teacher(sum(class_sizes(protocol)), protocol.num_classes, config.seed)
    else:
        targets = read_matrix("protocol.targets", protocol.targets, "targets")
    _check_targets(config, targets)
    if not given:
        return Shape(torch.zeros(len(targets), dtype=torch.int64), 2, targets.shape[1], targets, has_classes=False)
    sizes = class_sizes(protocol)
    if sum(sizes) != len(targets):
        raise ConfigError(
            f"protocol.class_sizes={_plain(protocol.class_sizes)} are {sum(sizes)} samples, and "
            f"protocol.targets={protocol.targets} has {len(targets)} rows; allowed: as many, or null."
        )
    return Shape(_labels(sizes), len(sizes), targets.shape[1], targets)


def _check_targets(config: Config, targets: Tensor) -> None:
    said, objective = f"protocol.targets={config.protocol.targets}", config.objective
    if objective.needs_labels:
        raise ConfigError(
            f"{said} is a matrix, and head.loss={config.head.loss} compares labels; allowed: protocol.targets=labels, "
            "or head.loss=mse."
        )
    if (reason := objective.refuses_targets(targets)) is not None:
        raise ConfigError(f"{said} {reason}.")


def _labels(sizes: tuple[int, ...]) -> Tensor:
    return torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))


def _checked_numbers(formula: str, numbers: Any) -> Mapping[str, float]:
    key = f"protocol.class_sizes={{{formula}: {_plain(numbers)}}}"
    needed = FORMULAS[formula]
    if not isinstance(numbers, dict) or set(numbers) != set(needed):
        raise ConfigError(f"{key} is no {formula}; allowed: numbers for {', '.join(needed)}.")
    limits = {"largest": (1, 1e9), "share": (0, 1), "ratio": (1, 1e9) if formula == "step" else (1e-9, 1)}
    for name, (least, most) in limits.items():
        value = numbers.get(name, least)
        if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
            raise ConfigError(f"{key}: {name} is out of range; allowed: a number from {least:g} to {most:g}.")
    return numbers


def _by_formula(formula: str, numbers: Mapping[str, float], num_classes: int) -> tuple[int, ...]:
    # The last digits of a product are rounding: 100 * 0.01 ** 0.5 is to be 10.
    largest, ratio = numbers["largest"], numbers["ratio"]
    if formula == "long_tail":
        return tuple(math.floor(largest * ratio ** (c / (num_classes - 1)) + 1e-9) for c in range(num_classes))
    small = math.floor(numbers["share"] * num_classes + 1e-9)
    large, least = math.floor(largest + 1e-9), math.floor(largest / ratio + 1e-9)
    return (large,) * (num_classes - small) + (least,) * small


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_plain(item)}" for key, item in value.items()) + "}"
    return shown(value)
