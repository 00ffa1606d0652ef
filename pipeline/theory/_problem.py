"""The problems that theory speaks of, and points of them: what all families of closed forms share."""

import math
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from numbers import Integral, Real
from typing import NamedTuple

import torch
from torch import Tensor

LOSSES = ("mse", "cross_entropy", "supervised_contrastive")
ACTIVATIONS = ("relu", "linear")
CONSTRAINTS = (None, "nonnegative", "sphere", "nonnegative_sphere")
"""Of the features H_1: none; entries >= 0; rows of norm 1; both."""


class Anchor(NamedTuple):
    """What features are drawn to: strength/2 ||H_1 - features||_F^2 is added; features (N, d_1), strength >= 0."""

    features: Tensor
    strength: float


@dataclass(frozen=True, eq=False)
class Problem:
    """A deep unconstrained features model with any of the losses, any class sizes and any targets.

    With N rows H_1 of free features, L = `depth` weight matrices and outputs Z = W_L s(... s(W_1 H_1)) (no activation
    on H_1; Z = H_1 for L = 0) the objective is

        fit(Z) + sum_l weight_decay_l/2 ||W_l||_F^2 + feature_decay/2 ||H_1||_F^2 [+ strength/2 ||H_1 - anchor||_F^2]

    loss: "mse", 1/(2N) ||Z + bias - targets||_F^2; "cross_entropy", its mean over samples; "supervised_contrastive",
        1/N times equation (2) of arXiv 2306.07960, the sum over anchors.
    activation: "relu" or "linear".
    class_sizes: n_1..n_K; samples stand in the order of their classes. None where the rows of `targets` are no classes.
    weight_decay: one number, or one per layer, W_1 first; like `feature_decay` finite and >= 0.
    bias: whether the outputs have one (no contrastive loss has).
    bias_decay: mu >= 0: mu/2 ||bias||^2 is added; 0 without a bias.
    targets: (N, K) for mse, rows are samples; None: the one-hot labels.
    constraint: of the features, see `CONSTRAINTS`.
    temperature: of the contrastive loss, positive; None for the others.
    anchor: `Anchor`, or a pair (features, strength).

    Raises ValueError naming the argument.

    >>> Problem("cross_entropy", "relu", (40, 20, 10, 2), 1, 5e-3, 1e-3, constraint="nonnegative").num_samples
    72
    """

    loss: str
    activation: str
    class_sizes: Sequence[int] | None
    depth: int
    weight_decay: float | Sequence[float]
    feature_decay: float
    bias: bool = False
    targets: Tensor | None = None
    constraint: str | None = None
    temperature: float | None = None
    anchor: Anchor | tuple[Tensor, float] | None = None
    bias_decay: float = 0.0

    def __post_init__(self) -> None:
        one_of("loss", self.loss, LOSSES)
        one_of("activation", self.activation, ACTIVATIONS)
        one_of("constraint", self.constraint, CONSTRAINTS)
        checked = {
            "depth": integer("depth", self.depth, 0),
            "feature_decay": number("feature_decay", self.feature_decay),
            "bias_decay": number("bias_decay", self.bias_decay),
            "targets": self._checked_targets(),
        }
        if checked["bias_decay"] and not self.bias:
            raise ValueError(f"bias_decay is {self.bias_decay!r}, must be 0 without a bias")
        checked["class_sizes"] = self._checked_sizes(checked["targets"])
        checked["weight_decay"] = _per_layer(self.weight_decay, checked["depth"], number)
        checked["anchor"] = self._checked_anchor(sum(checked["class_sizes"]))
        contrastive = self.loss == "supervised_contrastive"
        if contrastive:
            checked["temperature"] = positive("temperature", self.temperature)
        elif self.temperature is not None:
            raise ValueError(f"temperature is {self.temperature!r}, must be None for the loss {self.loss}")
        if contrastive and self.bias:
            raise ValueError(f"bias is {self.bias!r}, must be False for the contrastive loss, which has no outputs")
        if contrastive and min(checked["class_sizes"]) < 2:
            raise ValueError(
                f"class_sizes is {checked['class_sizes']}, must be at least 2 each for the contrastive loss"
            )
        for name, value in checked.items():
            object.__setattr__(self, name, value)

    def _checked_targets(self) -> Tensor | None:
        if self.targets is None:
            return None
        if self.loss != "mse":
            raise ValueError(f"targets are given, must be None for the loss {self.loss}")
        return matrix("targets", self.targets)

    def _checked_sizes(self, targets: Tensor | None) -> tuple[int, ...]:
        if self.class_sizes is None and targets is not None:
            return (len(targets),)
        sizes = class_sizes(self.class_sizes, least=1, classes=2 if targets is None else 1)
        if targets is not None and sum(sizes) != len(targets):
            raise ValueError(f"class_sizes add up to {sum(sizes)}, must be the {len(targets)} rows of targets")
        return sizes

    def _checked_anchor(self, num_samples: int) -> Anchor | None:
        if self.anchor is None:
            return None
        anchor = Anchor(matrix("anchor", self.anchor[0]), number("anchor strength", self.anchor[1]))
        if len(anchor.features) != num_samples:
            raise ValueError(f"anchor has {len(anchor.features)} rows, must have one per sample ({num_samples})")
        return anchor

    @property
    def num_classes(self) -> int:
        """K, the number of outputs."""
        return len(self.class_sizes) if self.targets is None else self.targets.shape[1]

    @property
    def num_samples(self) -> int:
        """N."""
        return sum(self.class_sizes)

    @property
    def samples_per_class(self) -> int | None:
        """n where all classes have as many samples, else None."""
        return self.class_sizes[0] if len(set(self.class_sizes)) == 1 else None

    @property
    def weight_decays(self) -> tuple[float, ...]:
        """The decays of W_1..W_L."""
        return self.weight_decay

    @property
    def decays(self) -> tuple[float, ...]:
        """The decays of all factors, H_1 first."""
        return (self.feature_decay, *self.weight_decay)

    @property
    def is_linear(self) -> bool:
        """Whether the outputs are linear in the features: no activation, or no layer that has one."""
        return self.activation == "linear" or self.depth <= 1

    @cached_property
    def labels(self) -> Tensor:
        """Class of each sample, int64 (N,)."""
        return torch.arange(len(self.class_sizes)).repeat_interleave(torch.tensor(self.class_sizes))

    @property
    def target_matrix(self) -> Tensor:
        """The targets, or the one-hot labels, float64 (N, K)."""
        return torch.eye(self.num_classes, dtype=torch.float64)[self.labels] if self.targets is None else self.targets

    def balanced(self) -> "DufmProblem":
        """The same K, n, L and decays, which must be positive, as a `DufmProblem`; raises ValueError if n differs."""
        if self.samples_per_class is None:
            raise ValueError(f"class_sizes is {self.class_sizes}, must be equal numbers")
        return DufmProblem(self.num_classes, self.samples_per_class, self.depth, self.weight_decay, self.feature_decay)


@dataclass(frozen=True)
class DufmProblem:
    """A balanced DUFM: K classes, n samples per class, L weight matrices and the decay of every factor.

    `weight_decay` is one number for all layers or one per layer, W_1 first; decays are positive and enter the objective
    as decay/2 ||factor||_F^2. Raises ValueError naming the argument.

    >>> DufmProblem(num_classes=2, samples_per_class=50, depth=3, weight_decay=5e-4, feature_decay=1e-3).weight_decays
    (0.0005, 0.0005, 0.0005)
    """

    num_classes: int
    samples_per_class: int
    depth: int
    weight_decay: float | Sequence[float]
    feature_decay: float

    def __post_init__(self) -> None:
        checked = {
            "num_classes": integer("num_classes", self.num_classes, 2),
            "samples_per_class": integer("samples_per_class", self.samples_per_class, 1),
            "depth": integer("depth", self.depth, 1),
            "feature_decay": _decay("feature_decay", self.feature_decay),
        }
        several = isinstance(self.weight_decay, Iterable) and not isinstance(self.weight_decay, str)
        decays = _per_layer(self.weight_decay, checked["depth"], _decay)
        checked["weight_decay"] = decays if several else decays[0]
        for name, value in checked.items():
            object.__setattr__(self, name, value)

    @property
    def weight_decays(self) -> tuple[float, ...]:
        """The decays of W_1..W_L, whether one number or L of them were given."""
        return self.weight_decay if isinstance(self.weight_decay, tuple) else (self.weight_decay,) * self.depth


class DufmFactors(NamedTuple):
    """A point of the DUFM: features (N, d_1), labels int64 (N,) and weights W_l (d_{l+1}, d_l), l = 1..L.

    `bias` (K,) of the outputs, where the problem has one.
    """

    features: Tensor
    labels: Tensor
    weights: tuple[Tensor, ...]
    bias: Tensor | None = None


def integer(name: str, value: object, least: int, most: int | None = None) -> int:
    """`value` as an int, or a ValueError that names it unless it is one from `least` to `most`."""
    allowed = f"an integer >= {least}" if most is None else f"an integer from {least} to {most}"
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least or (most and value > most):
        raise ValueError(f"{name} is {value!r}, must be {allowed}")
    return int(value)


def number(name: str, value: object) -> float:
    """`value` as a float, or a ValueError that names it unless it is finite and not negative."""
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= value <= sys.float_info.max:
        raise ValueError(f"{name} is {value!r}, must be a finite number >= 0")
    return float(value)


def positive(name: str, value: object) -> float:
    """`value` as a float, or a ValueError that names it unless it is finite and positive."""
    return _decay(name, value)


def one_of(name: str, value: object, allowed: tuple) -> None:
    """Raise a ValueError that names `value` and what is allowed, unless it is that."""
    if value not in allowed:
        raise ValueError(f"{name} is {value!r}, must be one of {', '.join(map(str, allowed))}")


def matrix(name: str, value: object) -> Tensor:
    """`value` as a float64 matrix, or a ValueError that names it unless it is one of finite numbers."""
    try:
        table = torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError):  # text, None, rows of several lengths
        raise ValueError(f"{name} is {value!r:.80}, must be a matrix (N, columns) of finite numbers") from None
    if table.ndim != 2 or not table.numel() or table.is_complex() or not table.isfinite().all():
        raise ValueError(f"{name} has the shape {tuple(table.shape)}, must be a matrix (N, columns) of finite numbers")
    return table.detach().to(torch.float64)


def class_sizes(value: object, *, least: int, classes: int = 2) -> tuple[int, ...]:
    """`value` as a tuple of numbers of samples, or a ValueError that names it."""
    if isinstance(value, str) or not isinstance(value, Iterable) or len(sizes := _plain(value)) < classes:
        raise ValueError(f"class_sizes is {value!r}, must be the numbers of samples of at least {classes} classes")
    return tuple(integer("class_sizes", size, least) for size in sizes)


def _plain(values: Iterable) -> tuple:
    return tuple(values.tolist()) if hasattr(values, "tolist") else tuple(values)


def _per_layer(value: object, depth: int, check: Callable[[str, object], float]) -> tuple[float, ...]:
    """One decay for each of the layers, of one number or one per layer."""
    if isinstance(value, str) or not isinstance(value, Iterable):
        return (check("weight_decay", value),) * depth
    decays = tuple(check("weight_decay", decay) for decay in _plain(value))
    if len(decays) != depth:
        raise ValueError(f"weight_decay has {len(decays)} values, must be one number or one per layer ({depth})")
    return decays


def _decay(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, Real) or not math.ulp(0.0) <= value <= sys.float_info.max:
        raise ValueError(f"{name} is {value!r}, must be a positive finite number")
    return float(value)
