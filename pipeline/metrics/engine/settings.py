"""What is measured, and how: the settings of a measurement."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

PAIRS = ("consecutive", "all")


@dataclass(frozen=True)
class MeasureSettings:
    """The settings of a measurement.

    Attributes:
        families: of metrics, see `registry.families`; "all" is every one whose inputs are given.
        min_samples: classes with fewer samples are left out of all metrics.
        max_samples: those with more; None for no such limit.
        pairs: of places that are compared with each other: consecutive ones, or all.
        probe_ridge: penalty of the linear probe.
        foreign_directions: how many leading directions of the training rows foreign ones are held against; None is
            K - 1.
        jacobian_samples: training images at which Jacobians of blocks are taken.
        coupling_rank: singular triples that couplings of blocks count; in models that are compared the same.
    """

    families: tuple[str, ...] = ("core",)
    min_samples: int = 1
    max_samples: int | None = None
    pairs: str = "consecutive"
    probe_ridge: float = 1e-2
    foreign_directions: int | None = None
    jacobian_samples: int = 16
    coupling_rank: int = 5

    def __post_init__(self) -> None:
        _check_min_samples(self.min_samples)
        _check_max_samples(self.max_samples, self.min_samples)
        if self.pairs not in PAIRS:
            raise ValueError(f"pairs must be one of {', '.join(PAIRS)}, got {self.pairs!r}.")
        is_number = isinstance(self.probe_ridge, int | float) and not isinstance(self.probe_ridge, bool)
        if not is_number or not 0 < self.probe_ridge < math.inf:
            raise ValueError(f"probe_ridge must be a finite number > 0, got {self.probe_ridge!r}.")
        _check_directions(self.foreign_directions)
        for name in ("jacobian_samples", "coupling_rank"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be an int of at least 1, got {value!r}.")

    def counts(self, samples: int) -> bool:
        """Whether a class of so many samples is measured."""
        return self.min_samples <= samples and (self.max_samples is None or samples <= self.max_samples)


def _check_min_samples(min_samples: int) -> None:
    """An int, at least 1: a class without samples has no mean."""
    if isinstance(min_samples, bool) or not isinstance(min_samples, int) or min_samples < 1:
        raise ValueError(f"min_samples must be an int of at least 1, got {min_samples!r}.")


def _check_max_samples(max_samples: int | None, min_samples: int) -> None:
    """An int, at least `min_samples`, or None."""
    if max_samples is None:
        return
    if isinstance(max_samples, bool) or not isinstance(max_samples, int) or max_samples < min_samples:
        raise ValueError(
            f"max_samples must be an int of at least min_samples = {min_samples}, or None, got {max_samples!r}."
        )


def _check_directions(directions: int | None) -> None:
    if directions is not None and (isinstance(directions, bool) or not isinstance(directions, int) or directions < 1):
        raise ValueError(f"foreign_directions must be an int of at least 1 or None, got {directions!r}.")


def listed(families: Iterable[str] | str) -> tuple[str, ...]:
    """Names of families as a tuple; one may stand alone.

    Raises:
        ValueError: for what is no list.
    """
    if not isinstance(families, Iterable):
        raise ValueError(f"families must be a list of names such as 'core', got {families!r}.")
    return (families,) if isinstance(families, str) else tuple(families)


DEFAULT = MeasureSettings()
"""How measuring is done unless something else is asked for."""
