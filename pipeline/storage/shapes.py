"""Whether a value read from a file has the shape it should have, and if not, where and why in one sentence.

A shape is a type, a tuple of shapes any of which will do, ``[shape]`` for a list of such values, or a dict. The keys of
a dict are required unless they end in ``?``; `ANY` stands for all keys that are not named, which else may be anything.
"""

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

NULL = type(None)
NUMBER = float
"""Integers and finite floats that arithmetic can take; booleans are no numbers."""
ANY = "*"
NAMES = {NULL: "null", NUMBER: "a number", int: "an integer", str: "a text", bool: "true or false"}

Shape = Any


def fault(value: Any, shape: Shape, where: str = "it") -> str | None:
    """The first thing that is wrong with ``value``, which stands at ``where``; None if its shape is right."""
    return None if _test(shape)(value) else _said(value, shape, where)


def is_closed(shape: Shape) -> bool:
    """Whether nothing in a value of this shape is left open: it is plain, and no deeper than the shape."""
    if isinstance(shape, tuple | list):
        return all(map(is_closed, shape))
    return not isinstance(shape, dict) or (ANY in shape and all(map(is_closed, shape.values())))


def _said(value: Any, shape: Shape, where: str) -> str | None:
    if isinstance(shape, tuple):
        faults = []
        for one in shape:
            if (said := _said(value, one, where)) is None:
                return None
            faults.append(said)
        # If the kind is right, what is wrong lies within it, and that is what there is to say.
        within = [said for said in faults if not said.startswith(f"{where} is ")]
        return within[0] if within else f"{where} is {_told(value)}, not {_name(shape)}"
    if isinstance(shape, list):
        if not isinstance(value, list):
            return f"{where} is {_told(value)}, not {_name(shape)}"
        return next(filter(None, (_said(item, shape[0], f"{where}[{i}]") for i, item in enumerate(value))), None)
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
        if expected is not None and (said := _said(item, expected, key if where == "it" else f"{where}.{key}")):
            return said
    return None


Test = Callable[[Any], bool]
_tests: dict[int, tuple[Shape, Test]] = {}
"""By the shape's identity, with the shape itself, so that nothing else can get its identity."""


def _test(shape: Shape) -> Test:
    """Whether a value has the shape, as a function that is made once: lists of runs ask this of thousands of files,
    and almost always of nothing wrong."""
    if id(shape) not in _tests:
        _tests[id(shape)] = shape, _made(shape)
    return _tests[id(shape)][1]


def _made(shape: Shape) -> Test:
    if isinstance(shape, tuple):
        tests = [_made(one) for one in shape if one is not NULL]
        only = tests[0] if len(tests) == 1 else lambda value: any(test(value) for test in tests)
        return (lambda value: value is None or only(value)) if NULL in shape else only
    if isinstance(shape, list):
        if shape[0] in (NUMBER, (NUMBER, NULL)):
            return partial(_are_numbers, null=shape[0] is not NUMBER)
        of_item = _made(shape[0])
        return lambda value: isinstance(value, list) and all(map(of_item, value))
    if isinstance(shape, dict):
        return _of_mappings(shape)
    if shape is NUMBER:
        return lambda value: math.isfinite(value) if type(value) is float else _is_a(value, NUMBER)
    return (lambda value: _is_a(value, shape)) if shape is int else (lambda value: isinstance(value, shape))


def _are_numbers(value: Any, null: bool) -> bool:
    """Of lists of numbers, of which a summary has hundreds."""
    if not isinstance(value, list):
        return False
    for item in value:
        sound = math.isfinite(item) if type(item) is float else (null and item is None) or _is_a(item, NUMBER)
        if not sound:
            return False
    return True


def _of_mappings(shape: Mapping[str, Shape]) -> Test:
    required = {key for key in shape if key != ANY and not key.endswith("?")}
    known = {key.removesuffix("?"): _made(one) for key, one in shape.items() if key != ANY}
    others = _made(shape[ANY]) if ANY in shape else None

    def test(value: Any) -> bool:
        if not (type(value) is dict or isinstance(value, Mapping)) or not required <= value.keys():
            return False
        if not known and others is None:
            return True
        for key, item in value.items():
            own = known.get(key, others)
            if own is not None and not own(item):
                return False
        return True

    return test


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
