"""YAML as plain values, of files that may be a stranger's: no aliases, no objects, limited in depth and number.

What Hydra keeps of the runs of a sweep is nearly the same text each time, so a file is taken apart where its keys begin
and a part that was seen before is not parsed again. Whatever is unusual, or too much, goes through PyYAML's own loader,
which alone refuses; both ways give the same values.
"""

import re
from collections.abc import Iterator
from functools import lru_cache
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
TOP, BELOW = (re.compile(rf"^(?={indent}{KEY})", re.MULTILINE) for indent in ("", "  "))
HEADER = re.compile(r"([A-Za-z_]\w*):\n(?=  [A-Za-z_])")
PLAIN_TAGS = frozenset(f"tag:yaml.org,2002:{kind}" for kind in ("null", "bool", "int", "float", "str"))


def plain_yaml(text: str) -> Any:
    """YAML as plain values.

    Raises:
        ValueError: it holds aliases, or too much.
        Exception: whatever PyYAML makes of what is no YAML.
    """
    try:
        return _by_parts(text)
    except Exception:  # unusual, or wrong: PyYAML says what of the whole
        return _by_pyyaml(text)


class _Unusual(Exception):
    """What is left to PyYAML's own loader."""


def _by_parts(text: str) -> Any:
    """The values of a file whose parts can be read one by one.

    A part that is whole by itself leaves nothing open (a quote, a bracket, a longer indentation), so that what follows
    it means the same as at the beginning of a file.
    """
    found, nodes = {}, 1
    for part in _parts(text, TOP):
        header = HEADER.match(part) if len(part) > LONGEST_PART // 8 else None
        inner = list(_parts(part[header.end() :], BELOW)) if header else []
        if len(inner) < 2:
            value, count = _part(part)
            if not isinstance(value, dict):
                if part == text:
                    return _copied(value)
                raise _Unusual
        else:
            within, count = {}, 2
            for one in inner:
                below, more = _part(one)
                within.update(below)
                count += more
            value = {_scalar(header[1]): within}
        found.update(value)
        nodes += count
    if nodes > MOST_NODES:
        raise _Unusual
    return _copied(found)


def _parts(text: str, begin: re.Pattern[str]) -> Iterator[str]:
    """The text, cut where keys begin; whole if it does not begin with one."""
    starts = [match.start() for match in begin.finditer(text)]
    if not starts or starts[0]:
        yield text
        return
    for start, end in zip(starts, [*starts[1:], len(text)], strict=True):
        yield text[start:end]


def _part(text: str) -> tuple[Any, int]:
    """The value of a part, which nobody may change, and how many values it has."""
    return _remembered(text) if len(text) <= LONGEST_PART else _built(text)


@lru_cache(PARTS)
def _remembered(text: str) -> tuple[Any, int]:
    return _built(text)


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
            if event.tag is not None or len(stack) > DEEPEST - 2:
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
    return PlainLoader.yaml_constructors[tag](_RESOLVER, yaml.ScalarNode(tag, text))


def _copied(value: Any) -> Any:
    """A copy, which its owner may change."""
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    return [_copied(item) for item in value] if isinstance(value, list) else value


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
