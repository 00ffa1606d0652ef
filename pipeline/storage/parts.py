"""Files of many runs, taken apart where their first keys begin: a part seen before is not parsed and checked again.

The runs of a sweep share nearly all of what is written in their folders. Whatever is unusual, or wrong, is read as a
whole by `pipeline.storage.reading`, which alone refuses.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pipeline.storage.plain_yaml import parts_of, shared_yaml
from pipeline.storage.reading import json_of, not_plain, refuse_constant, text_of, yaml_of
from pipeline.storage.shapes import fault, is_closed

REMEMBERED = 4096
"""Parts of files of one kind; then all are forgotten, and those that are common soon known again."""
LONGEST_PART = 2**13
"""Characters of a part that is remembered."""
SPACE = " \t\r\n"
"""Of JSON, which knows no other."""


class Parts:
    """What stands in files of one name, of many runs.

    Args:
        shape: a dict.
        keep: what becomes of the value of a key, given both.
    """

    def __init__(self, shape: Mapping[str, Any], keep: Callable[[str, Any], Any], *, is_json: bool = False) -> None:
        self._shape, self._keep, self._is_json = shape, keep, is_json
        self._closed = {key.removesuffix("?") for key, one in shape.items() if is_closed(one)}
        how = (_members, _object, json_of) if is_json else (parts_of, shared_yaml, yaml_of)
        self._cut, self._parse, self._read = how
        self._known: dict[str, dict[str, Any]] = {}

    def of(self, path: Path) -> dict[str, Any] | None:
        """By key what has become of the values in a file; None where there is no file.

        Raises:
            Unreadable: it cannot be used.
        """
        try:
            text = text_of(path)
        except FileNotFoundError:
            return None
        found: dict[str, Any] = {}
        try:
            for part in self._cut(text):
                known = self._known.get(part)
                found |= self._new(part) if known is None else known
        except Exception:  # parsers raise whatever comes
            return {key: self._keep(key, value) for key, value in self._read(path, self._shape).items()}
        return found

    def _new(self, part: str) -> dict[str, Any]:
        value = self._parse(part)
        if not isinstance(value, dict) or fault(value, self._shape):
            raise ValueError(part)
        for key, item in value.items() if self._is_json else ():  # YAML by parts is plain
            if key not in self._closed and not_plain({key: item}):
                raise ValueError(key)
        kept = {key: self._keep(key, item) for key, item in value.items()}
        if len(part) <= LONGEST_PART:
            if len(self._known) >= REMEMBERED:
                self._known.clear()
            self._known[part] = kept
        return kept


def _members(text: str) -> Iterator[str]:
    """The members of a JSON object that `json.dumps` has written with an indentation of 2.

    No text of JSON goes over lines, so a line is never within one; a part that is an object between braces leaves
    nothing open, and all of them, with commas between, are the object.
    """
    first, *parts = text.rstrip(SPACE).split('\n  "')
    if first != "{" or not parts or parts[-1][-2:] != "\n}":
        yield text
        return
    parts[-1] = f"{parts[-1][:-2]},"
    for part in parts:
        if part[-1:] != ",":
            raise ValueError(part)
        yield f'{{"{part[:-1]}}}'


def _object(text: str) -> Any:
    return json.loads(text, parse_constant=refuse_constant)
