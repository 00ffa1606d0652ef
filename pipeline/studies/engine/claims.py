"""What a study says before looking, and what came out: claim | expected | measured | holds."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True)
class Claim:
    """One line of the table; ``holds`` is None where runs of this size cannot decide."""

    claim: str
    expected: str
    measured: str
    holds: bool | None


def at_most(claim: str, values: Sequence[float], bound: float) -> Claim:
    """Every seed's value is at most ``bound``; NaN is not."""
    passed = sum(value <= bound for value in values)
    measured = f"at most {largest(values):.3g}; {passed} of {len(values)} seeds"
    return Claim(claim, f"<= {bound:g}, every seed", measured, passed == len(values))


def above(claim: str, values: Sequence[float], bound: float) -> Claim:
    """The median seed's value has not converged below ``bound``."""
    middle = median(values)
    measured = f"median {middle:.3g} ({min(values):.3g} to {max(values):.3g})"
    return Claim(claim, f"median > {bound:g}", measured, middle > bound)


def counted(names: Sequence[str]) -> str:
    """``8 x global optimum, 2 x zero solution``."""
    counts = {name: names.count(name) for name in dict.fromkeys(names)}
    return ", ".join(f"{count} x {name}" for name, count in sorted(counts.items(), key=lambda item: -item[1]))


def largest(values: Iterable[float]) -> float:
    """Maximum; NaN as soon as one value is (an undefined metric is not a small one)."""
    values = list(values)
    return math.nan if any(math.isnan(value) for value in values) else max(values)
