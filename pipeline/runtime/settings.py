"""Fields of a configuration: each with its default, its meaning and its limits, beside the code that reads it."""

import math
from dataclasses import Field, field
from typing import Any

from pipeline.runtime.errors import ConfigError
from pipeline.runtime.suggestions import did_you_mean

_LIMITS = {
    "gt": (lambda value, bound: value > bound, ">"),
    "ge": (lambda value, bound: value >= bound, ">="),
    "lt": (lambda value, bound: value < bound, "<"),
    "le": (lambda value, bound: value <= bound, "<="),
}
LARGEST_INTEGER = 2**53
"""Nothing that a run counts comes near; beyond it not every integer is a float."""
LARGEST, SMALLEST = 1e30, 1e-30
"""Of a float other than 0: networks are trained in single precision, which ends at 3.4e38; beyond it, or divided by
what is next to nothing, numbers are infinite."""
_KINDS = {"int": "an integer", "float": "a finite number", "Any": "a finite number", "bool": "true or false"}


def knob(default: Any, text: str, **limits: Any) -> Any:
    """A dataclass field with its documentation and its limits.

    Args:
        default: of the field; a list or a mapping is copied for each instance.
        text: what the setting means, as ``--help`` shows it.
        limits: ``ge``, ``gt``, ``le``, ``lt`` for numbers (each number of a list), or ``choices``: the allowed values,
            or a function that returns them; ``keys`` of a mapping; ``path=True`` where text is the name of a file or
            folder, so that an argument may hold any characters.
    """
    metadata = {"help": text, **limits}
    if isinstance(default, list | dict):
        return field(default_factory=lambda: type(default)(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def choices_of(entry: Field) -> tuple[str, ...]:
    """The values a knob may take, () if they are not a closed list."""
    choices = entry.metadata.get("choices", ())
    return tuple(choices() if callable(choices) else choices)


def allowed(entry: Field) -> str:
    """What a knob may be, e.g. ``an integer >= 1``."""
    if choices_of(entry):
        listed = "a list of " if str(entry.type).startswith("list") else ""
        return listed + ", ".join(choices_of(entry))
    kind = getattr(entry.type, "__name__", str(entry.type)) if isinstance(entry.type, type) else str(entry.type)
    name, optional = kind.removesuffix(" | None"), kind.endswith(" | None")
    words = _KINDS.get(name, {"str": "text", "list": "a list"}.get(name.split("[")[0], name))
    if name.startswith("list") or kind.startswith("list"):
        words = "a list"
    bounds = [f"{_LIMITS[limit][1]} {bound}" for limit, bound in entry.metadata.items() if limit in _LIMITS]
    return f"{words} {' and '.join(bounds)}".strip() + (", or null" if optional else "")


def check_value(key: str, value: Any, entry: Field) -> None:
    """Raise ConfigError, in one sentence that begins with `key`, unless a value is within its knob's limits."""
    if value is None:
        return
    if choices_of(entry):
        _check_choice(key, value, entry)
    limits = {limit: bound for limit, bound in entry.metadata.items() if limit in _LIMITS}
    if not limits:
        return
    for item in value if isinstance(value, list | tuple) else [value]:
        if not isinstance(item, int | float) or isinstance(item, bool):
            raise ConfigError(f"{key}={shown(value)} is not a number; allowed: {allowed(entry)}.")
        if isinstance(item, int) and abs(item) > LARGEST_INTEGER:
            raise ConfigError(f"{key}={shown(value)} is out of range; allowed: {allowed(entry)}, at most 2^53.")
        if LARGEST < abs(item) < math.inf:
            raise ConfigError(f"{key}={shown(value)} is out of range; allowed: {allowed(entry)}, at most {LARGEST:g}.")
        if 0 < abs(item) < SMALLEST:
            raise ConfigError(
                f"{key}={shown(value)} is out of range; allowed: {allowed(entry)}, 0 or from {SMALLEST:g}."
            )
        if not math.isfinite(item) or not all(_LIMITS[limit][0](item, bound) for limit, bound in limits.items()):
            raise ConfigError(f"{key}={shown(value)} is out of range; allowed: {allowed(entry)}.")


def _check_choice(key: str, value: Any, entry: Field) -> None:
    """One of the choices; of a list, which holds at least one, each."""
    of_list = isinstance(value, list | tuple)
    if of_list and not value:
        raise ConfigError(f"{key}=[] is empty; allowed: {allowed(entry)}.")
    for item in value if of_list else [value]:
        if item not in choices_of(entry):
            hint = did_you_mean(item, choices_of(entry))
            raise ConfigError(f"{key}={shown(value)} is not known; allowed: {allowed(entry)}{hint}.")


def shown(value: Any) -> str:
    """A value in a message: lists in brackets without spaces."""
    return "[" + ",".join(map(shown, value)) + "]" if isinstance(value, list | tuple) else str(value)


def typed(value: Any) -> str:
    """A value as one types it in an argument: ``null``, ``true``, ``false``, otherwise as `shown`."""
    words = {None: "null", True: "true", False: "false"}
    return words[value] if value is None or isinstance(value, bool) else shown(value)
