"""Values as short text: numbers, settings, ages."""

from collections.abc import Mapping
from typing import Any


def number(value: float | None, digits: int = 3) -> str:
    """A measured number; a dash where there is none."""
    return "-" if value is None else f"{value:.{digits}g}"


def setting(value: Any) -> str:
    """A value of a configuration as one would write it there."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {setting(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(setting(item) for item in value) + "]"
    return f"{value:.12g}" if isinstance(value, float) else str(value)


def flat(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """``{"head": {"depth": 4}}`` as ``{"head.depth": 4}``."""
    pairs: dict[str, Any] = {}
    for key, value in nested.items():
        if value and isinstance(value, dict):  # as files give it
            pairs.update(flat(value, f"{prefix}{key}."))
        else:
            pairs[f"{prefix}{key}"] = value
    return pairs


def age(seconds: float) -> str:
    """A span of time in its largest unit."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


def one_line(text: str, length: int) -> str:
    """The text in one line, cut at ``length`` characters."""
    text = " ".join(text.split())
    return text if len(text) <= length else text[: length - 1] + "…"
