"""What a study says before looking, and what came out: claim | owner | expected | measured | holds | why.

What nobody promised or ruled out is no claim: it is a `Measurement`, and has no verdict.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median

THEOREM = "theorem"
RECALLED = "recalled from the paper (not read)"
READ, ABSTRACT, FIGURE = "the paper (read)", "the paper's abstract (read)", "the paper's figure (read)"
OURS, LATER = "ours", "ours, after a first run"
CONTROL = "control"
OWNERS = {
    THEOREM: "proven in the paper or derived in pipeline/theory; it speaks of the optimum, and the claim is that a run "
    "ends there, within thresholds of ours",
    READ: "what the paper says of its own experiments",
    ABSTRACT: "the same, of a paper of which the abstract alone was read",
    FIGURE: "what a figure of the paper shows, or its caption says",
    RECALLED: "what the paper is remembered to say; nobody has looked it up",
    OURS: "our own expectation, written down before the runs",
    LATER: "our own, written down when a first run had been seen",
    CONTROL: "the same questions where the opposite is expected, because what should bring it about is missing",
}
"""Whose a claim may be, and what that means."""
OPEN = "open"
"""The reason of a claim that does not hold, where the study knows none."""


@dataclass(frozen=True)
class Claim:
    """One line of the table.

    Attributes:
        holds: None where runs of this size cannot decide.
        owner: whose it is, one of `OWNERS`.
        why: the reason where it does not hold.
    """

    claim: str
    expected: str
    measured: str
    holds: bool | None
    owner: str = OURS
    why: str = ""

    def __post_init__(self) -> None:
        if self.owner not in OWNERS:
            raise ValueError(f"owner={self.owner!r} is not known; allowed: {', '.join(OWNERS)}")


@dataclass(frozen=True)
class Measurement:
    """What was measured where nothing is promised and nothing ruled out; ``note`` says what is to be known of it."""

    quantity: str
    measured: str
    note: str = ""


def owned(owner: str, *claims: Claim) -> list[Claim]:
    """The claims, with their owner."""
    return [replace(claim, owner=owner) for claim in claims]


def reasoned(claims: Iterable[Claim], reasons: Mapping[str, str]) -> list[Claim]:
    """The claims; those that do not hold with the reason of the first part of their text that has one, or open."""

    def why(claim: Claim) -> str:
        return next((reason for part, reason in reasons.items() if part in claim.claim), OPEN)

    return [replace(claim, why=claim.why or why(claim)) if claim.holds is False else claim for claim in claims]


def at_most(claim: str, values: Sequence[float], bound: float) -> Claim:
    """Every seed's value is at most ``bound``; NaN is not."""
    passed = sum(value <= bound for value in values)
    measured = f"at most {largest(values):.3g}; {passed} of {len(values)} seeds"
    return Claim(claim, f"<= {bound:g}, every seed", measured, passed == len(values))


def above(claim: str, values: Sequence[float], bound: float) -> Claim:
    """The median seed's value has not converged below ``bound``."""
    return Claim(claim, f"median > {bound:g}", spread(values), median(values) > bound)


def spread(values: Sequence[float]) -> str:
    """``median 1.94 (1.79 to 2.43)``."""
    return f"median {median(values):.3g} ({min(values):.3g} to {max(values):.3g})"


def counted(names: Sequence[str]) -> str:
    """``8 x global optimum, 2 x zero solution``."""
    counts = {name: names.count(name) for name in dict.fromkeys(names)}
    return ", ".join(f"{count} x {name}" for name, count in sorted(counts.items(), key=lambda item: -item[1]))


def largest(values: Iterable[float]) -> float:
    """Maximum; NaN as soon as one value is (an undefined metric is not a small one)."""
    values = list(values)
    return math.nan if any(math.isnan(value) for value in values) else max(values)
