"""The one reader of what a run folder keeps as text: every failure is an `Unreadable` that says why.

A folder may be a stranger's. Only ordinary files of a limited size are opened; YAML has no aliases (seven levels of
them are gigabytes), no objects and no interpolations that are resolved; values are plain, not nested deeper than
`DEEPEST`, and have the shape that is asked for (`pipeline.storage.shapes`).
"""

import json
import math
import stat
from pathlib import Path
from typing import Any, NoReturn

from pipeline.runtime.text import printable
from pipeline.storage.plain_yaml import DEEPEST, plain_yaml
from pipeline.storage.shapes import Shape, fault

MOST_BYTES = {".yaml": 2**20, ".json": 2**26, ".csv": 2**30, ".index": 2**28}
LONGEST = 300
"""Characters of a reason."""
PLAIN = frozenset({dict, list, str, float, bool, type(None)})
"""What can be shown whatever its value is."""
CONTAINERS = frozenset({dict, list})


class Unreadable(ValueError):
    """A kept file that cannot be used; the message names it and says why, in one line."""

    def __init__(self, path: Path, why: str) -> None:
        said = printable(" ".join(why.split()))
        self.why = said if len(said) <= LONGEST else f"{said[:LONGEST]}…"
        super().__init__(f"{printable(path.name)} is unreadable: {self.why}")


def text_of(path: Path) -> str:
    """The text of an ordinary file.

    Raises:
        FileNotFoundError: there is nothing.
        Unreadable: it cannot be read.
    """
    check_file(path, MOST_BYTES.get(path.suffix, 2**20))
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise Unreadable(path, "it is no text") from error
    except OSError as error:
        raise Unreadable(path, error.strerror or str(error)) from error


def check_file(path: Path, most_bytes: float = math.inf) -> None:
    """Raise FileNotFoundError if there is nothing at ``path``, Unreadable if it is anything but a file of this size."""
    try:
        found = path.stat()
    except FileNotFoundError:
        raise
    except NotADirectoryError as error:
        raise FileNotFoundError(*error.args) from error
    except (OSError, ValueError) as error:
        raise Unreadable(path, getattr(error, "strerror", None) or str(error)) from error
    if not stat.S_ISREG(found.st_mode):
        raise Unreadable(path, "it is no file")
    if found.st_size > most_bytes:
        raise Unreadable(path, f"it has {found.st_size} bytes, more than {most_bytes}")


def json_of(path: Path, shape: Shape) -> Any:
    """What stands in a JSON file.

    Raises:
        FileNotFoundError: there is nothing.
        Unreadable: it cannot be read, or has another shape.
    """
    text = text_of(path)
    try:
        value = json.loads(text, parse_constant=refuse_constant)
    except (ValueError, RecursionError) as error:  # also numbers of thousands of digits
        raise Unreadable(path, f"it is no JSON ({str(error).splitlines()[0]})") from error
    return _checked(path, value, shape)


def yaml_of(path: Path, shape: Shape) -> Any:
    """What stands in a YAML file, interpolations as they are written.

    Raises:
        FileNotFoundError: there is nothing.
        Unreadable: it cannot be read, or has another shape.
    """
    text = text_of(path)
    try:
        value = plain_yaml(text)
    except Exception as error:  # constructors of tags raise whatever comes
        raise Unreadable(path, f"it is no plain YAML ({error})") from error
    return _checked(path, value, shape)


def _checked(path: Path, value: Any, shape: Shape) -> Any:
    why = fault(value, shape) or not_plain(value)
    if why:
        raise Unreadable(path, why)
    return value


def not_plain(value: Any) -> str | None:
    """What makes a value something that nobody can show; None if nothing does."""
    level, depth = [value], 0
    while level:
        if depth > DEEPEST:
            return f"it nests deeper than {DEEPEST}"
        kinds = set(map(type, level))
        for item in level if kinds - PLAIN else ():
            if type(item) not in PLAIN and (why := _not_plain_scalar(item)):
                return why
        below: list[Any] = []
        for item in level if kinds & CONTAINERS else ():
            kind = type(item)
            if kind is dict:
                below += item
                below += item.values()
            elif kind is list:
                below += item
        level, depth = below, depth + 1
    return None


def _not_plain_scalar(value: Any) -> str | None:
    if isinstance(value, bool) or value is None or isinstance(value, float):
        return None
    if isinstance(value, int):
        return None if abs(value) < 10**300 else "it holds an integer of more than 300 digits"
    return None if isinstance(value, str) else f"it holds a {type(value).__name__}"


def refuse_constant(name: str) -> NoReturn:
    """For JSON's parser, of NaN and infinities."""
    raise ValueError(f"{name} is no number of JSON")
