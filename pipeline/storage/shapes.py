"""Whether a value read from a file has the shape it should have, and if not, where and why in one sentence.

A shape is a type, a tuple of shapes any of which will do, ``[shape]`` for a list of such values, or a dict. The keys of
a dict are required unless they end in ``?``; `ANY` stands for all keys that are not named, which else may be anything.
"""

import math
from collections.abc import Mapping
from typing import Any

NULL = type(None)
NUMBER = float
"""Integers and finite floats that arithmetic can take; booleans are no numbers."""
ANY = "*"
NAMES = {NULL: "null", NUMBER: "a number", int: "an integer", str: "a text", bool: "true or false"}

Shape = Any


def fault(value: Any, shape: Shape, where: str = "it") -> str | None:
    """The first thing that is wrong with ``value``, which stands at ``where``; None if its shape is right."""
    if isinstance(shape, tuple):
        faults = []
        for one in shape:
            if (said := fault(value, one, where)) is None:
                return None
            faults.append(said)
        # If the kind is right, what is wrong lies within it, and that is what there is to say.
        within = [said for said in faults if not said.startswith(f"{where} is ")]
        return within[0] if within else f"{where} is {_told(value)}, not {_name(shape)}"
    if isinstance(shape, list):
        if not isinstance(value, list):
            return f"{where} is {_told(value)}, not {_name(shape)}"
        return next(filter(None, (fault(item, shape[0], f"{where}[{i}]") for i, item in enumerate(value))), None)
    if isinstance(shape, dict):
        return _fault_of_mapping(value, shape, where)
    return None if _is_a(value, shape) else f"{where} is {_told(value)}, not {_name(shape)}"


def _fault_of_mapping(value: Any, shape: Mapping[str, Shape], where: str) -> str | None:
    if not isinstance(value, Mapping):
        return f"{where} is {_told(value)}, not {_name(shape)}"
    known = {key.removesuffix("?"): one for key, one in shape.items() if key != ANY}
    for key in shape:
        if key != ANY and not key.endswith("?") and key not in value:
            return f"{where} lacks {key}"
    for key, item in value.items():
        expected = known.get(key, shape.get(ANY))
        if expected is not None and (said := fault(item, expected, key if where == "it" else f"{where}.{key}")):
            return said
    return None


def _is_a(value: Any, kind: type) -> bool:
    if kind in (NUMBER, int):
        if isinstance(value, bool) or not isinstance(value, int | kind):
            return False
        return abs(value) < 1e300 if isinstance(value, int) else math.isfinite(value)
    return isinstance(value, kind)


def _name(shape: Shape) -> str:
    if isinstance(shape, tuple):
        return " or ".join(map(_name, shape))
    if isinstance(shape, list):
        return "a list"
    return "a mapping" if isinstance(shape, dict) else NAMES[shape]


def _told(value: Any) -> str:
    """A value in a few words, whatever it is."""
    if isinstance(value, Mapping | list):
        return _name({}) if isinstance(value, Mapping) else _name([])
    if isinstance(value, int) and abs(value) >= 1e300:
        return "an integer of more than 300 digits"
    shown = "null" if value is None else repr(value)
    return shown if len(shown) <= 40 else shown[:39] + "…"
