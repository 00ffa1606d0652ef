"""What a mistyped name may have meant."""

from collections.abc import Iterable
from difflib import get_close_matches

CUTOFF = 0.6
"""Likeness, 0 to 1, from which on a name is suggested."""


def closest(value: object, choices: Iterable[object], *, most: int = 1, cutoff: float = CUTOFF) -> list[str]:
    """Up to ``most`` of the choices that are like ``value``, the likest first; upper and lower case are the same."""
    by_lower_case = {str(choice).lower(): str(choice) for choice in choices}
    found = get_close_matches(str(value).lower(), by_lower_case, n=most, cutoff=cutoff)
    return [by_lower_case[name] for name in found]


def did_you_mean(value: object, choices: Iterable[object], *, most: int = 1, cutoff: float = CUTOFF) -> str:
    """`` (did you mean x?)`` where some of the choices are like ``value``, else nothing."""
    found = closest(value, choices, most=most, cutoff=cutoff)
    return f" (did you mean {' or '.join(found)}?)" if found else ""
