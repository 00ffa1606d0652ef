"""YAML as plain values, of files that may be a stranger's: no aliases, no objects, limited in depth and number.

What Hydra keeps of the runs of a sweep is nearly the same text each time, so a file is taken apart where its keys begin
and a part that was seen before is not parsed again. Whatever is unusual, or too much, goes through PyYAML's own loader,
which alone refuses; both ways give the same values.
"""

import re
from collections.abc import Iterator
from functools import lru_cache
from itertools import pairwise
from typing import Any

import yaml

DEEPEST = 50
"""Lists and mappings within one another; those who show them call themselves for each."""
MOST_NODES = 100_000
"""Values in a YAML file; a configuration has some hundred."""
LONGEST_PART = 2**13
"""Characters of a part that is remembered, of `PARTS`."""
PARTS = 2048
KEY = r"[A-Za-z_]\w*:(?= |$)"
DEEPEST_CUT = 6
"""Spaces before the keys of a mapping that is still taken apart."""
EVERY = range(0, DEEPEST_CUT + 1, 2)
KEYS = {at: re.compile(rf"\n(?={' ' * at}{KEY})", re.MULTILINE) for at in EVERY}
HEADERS = {at: re.compile(rf" {{{at}}}([A-Za-z_]\w*):\n(?= {{{at + 2}}}{KEY})", re.MULTILINE) for at in EVERY[:-1]}
ITEMS = re.compile(r"\n(?=- )")
PLAIN = r"(?:([A-Za-z0-9_./][A-Za-z0-9_./=,+-]*)|'([ -&(-~]*)')\n?"
"""A scalar without quotes, whatever it means, or a text in them; it ends with its line."""
LINE, ITEM = re.compile(rf" *([A-Za-z_]\w*): {PLAIN}"), re.compile(rf"- {PLAIN}")
LISTED = re.compile(r"( *)([A-Za-z_]\w*):\n((?:\1- [A-Za-z0-9_./][A-Za-z0-9_./=,+-]*\n)+)")
"""A key, and a list of such scalars."""
INT, LONGEST_INT = "tag:yaml.org,2002:int", 200
PLAIN_TAGS = frozenset(f"tag:yaml.org,2002:{kind}" for kind in ("null", "bool", "int", "float", "str"))


def plain_yaml(text: str) -> Any:
    """YAML as plain values.

    Raises:
        ValueError: it holds aliases, or too much.
        Exception: whatever PyYAML makes of what is no YAML.
    """
    try:
        return copied(shared_yaml(text))
    except Exception:  # unusual, or wrong: PyYAML says what of the whole
        return _by_pyyaml(text)


class _Unusual(Exception):
    """What is left to PyYAML's own loader."""


def shared_yaml(text: str) -> Any:
    """The same for those who change nothing in it: parts that are equal in several files are one object. What it gives
    is plain (`pipeline.storage.reading.not_plain`).

    Raises:
        Exception: what stands there is unusual, or wrong; `plain_yaml` says which.
    """
    value, nodes = _joined(list(parts_of(text)), 0)
    if nodes > MOST_NODES:
        raise _Unusual
    return value


def parts_of(text: str, indent: int = 0) -> Iterator[str]:
    """The text, cut where keys begin that stand so far in, or the items of a list; whole if it does not begin so.

    A part that is whole by itself leaves nothing open (a quote, a bracket, a longer indentation), so that what follows
    it means the same as at the beginning of a file.
    """
    begin = ITEMS if not indent and text.startswith("- ") else KEYS[indent]
    starts = [match.start() for match in begin.finditer(f"\n{text}")]
    if not starts or starts[0]:
        yield text
        return
    for start, end in pairwise([*starts, len(text)]):
        yield text[start:end]


def _joined(parts: list[str], indent: int) -> tuple[Any, int]:
    """The value of a text that was cut into these parts, and how many values it has."""
    if len(parts) == 1:
        return _part(parts[0], indent)
    found: Any = [] if parts[0].startswith("- ") else {}
    add, nodes = (found.extend if isinstance(found, list) else found.update), 1
    for part in parts:
        value, count = _part(part, indent)
        if type(value) is not type(found):
            raise _Unusual
        add(value)
        nodes += count
    return found, nodes


def _part(text: str, indent: int) -> tuple[Any, int]:
    """The value of a part, which nobody may change, and how many values it has."""
    return _remembered(text, indent) if len(text) <= LONGEST_PART else _taken_apart(text, indent)


@lru_cache(PARTS)
def _remembered(text: str, indent: int) -> tuple[Any, int]:
    return _taken_apart(text, indent)


def _taken_apart(text: str, indent: int) -> tuple[Any, int]:
    """The value of a part: what is below its only key is cut again, as far as that goes."""
    if line := LINE.fullmatch(text):
        return {_scalar(line[1]): _scalar(line[2]) if line[3] is None else line[3]}, 3
    if item := ITEM.fullmatch(text):
        return [_scalar(item[1]) if item[2] is None else item[2]], 2
    if listed := LISTED.fullmatch(text):
        items = [_scalar(line.lstrip(" ")[2:]) for line in listed[3].splitlines()]
        return {_scalar(listed[2]): items}, len(items) + 3
    header = HEADERS[indent].match(text) if indent in HEADERS else None
    if not header:
        return _built(text)
    within, nodes = _joined(list(parts_of(text[header.end() :], indent + 2)), indent + 2)
    return {_scalar(header[1]): within}, nodes + 2


def _built(text: str) -> tuple[Any, int]:
    """The value of a YAML text in one pass over its events, and how many values it has.

    Raises:
        _Unusual: it holds an alias, a tag, a key that is none, or too much; or no document, or several.
    """
    root: list[Any] = []
    stack: list[tuple[Any, list[Any]]] = [(list, root)]  # what is being filled: its kind, and what stands in it so far
    nodes = 0
    for event in yaml.parse(text, Loader=PlainLoader):
        kind = type(event)
        if kind is yaml.ScalarEvent:
            if event.tag is not None:
                raise _Unusual
            stack[-1][1].append(_scalar(event.value) if event.implicit[0] else event.value)
        elif kind is yaml.MappingStartEvent or kind is yaml.SequenceStartEvent:
            if event.tag is not None or len(stack) > DEEPEST - 2 - len(EVERY):
                raise _Unusual
            stack.append((dict if kind is yaml.MappingStartEvent else list, []))
        elif kind is yaml.MappingEndEvent or kind is yaml.SequenceEndEvent:
            made, items = stack.pop()
            stack[-1][1].append(dict(zip(items[::2], items[1::2], strict=True)) if made is dict else items)
        elif kind is yaml.AliasEvent:
            raise _Unusual
        nodes += isinstance(event, yaml.NodeEvent)
        if nodes > MOST_NODES:
            raise _Unusual
    if len(root) != 1:
        raise _Unusual
    return root[0], nodes


def _scalar(text: str) -> Any:
    """What a scalar without quotes means."""
    return _short_scalar(text) if len(text) <= 64 else _meaning(text)


@lru_cache(2**14)
def _short_scalar(text: str) -> Any:
    return _meaning(text)


def _meaning(text: str) -> Any:
    tag = _RESOLVER.resolve(yaml.ScalarNode, text, (True, False))
    if tag not in PLAIN_TAGS:
        raise _Unusual  # a key that merges, say
    if tag == INT and len(text) > LONGEST_INT:
        raise _Unusual
    return PlainLoader.yaml_constructors[tag](_RESOLVER, yaml.ScalarNode(tag, text))


def copied(value: Any) -> Any:
    """A copy, which its owner may change."""
    if isinstance(value, dict):
        return {key: copied(item) for key, item in value.items()}
    return [copied(item) for item in value] if isinstance(value, list) else value


def _by_pyyaml(text: str) -> Any:
    depth = nodes = 0
    for event in yaml.parse(text, Loader=PlainLoader):  # one by one: nothing is built before all is known to be small
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        nodes += isinstance(event, yaml.NodeEvent)
        if isinstance(event, yaml.AliasEvent):
            raise ValueError("it holds aliases (*name)")
        if depth > DEEPEST:
            raise ValueError(f"it nests deeper than {DEEPEST}")
        if nodes > MOST_NODES:
            raise ValueError(f"it holds more than {MOST_NODES} values")
    loader = PlainLoader(text)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


class PlainLoader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """PyYAML's safe loader, for which 1e-3 is a number and 2024-01-01 a text, as for OmegaConf."""


PlainLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
PlainLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d[\d_]*\.?[\d_]*|\.\d[\d_]*)[eE][-+]?\d+$"), list("-+0123456789.")
)
_RESOLVER = PlainLoader("")
