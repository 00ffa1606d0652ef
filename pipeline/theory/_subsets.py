"""Which parts of a state are at zero: parts of one kind cost the same, so only how many of them matters."""

from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from itertools import product

_MOST = 1024


def zeros(kinds: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """How many of each kind are at zero, of kinds with these numbers of parts; nothing at zero comes first.

    All combinations, or where these are more than `_MOST`, those in which one kind differs from all others, and those
    in which all kinds from one on are at zero: in the order of importance given, states that descent passes.
    """
    total = 1
    for parts in kinds:
        total *= parts + 1
    if total <= _MOST:
        yield from product(*(range(parts + 1) for parts in kinds))
        return
    seen = set()
    for chosen in range(len(kinds)):
        for off in range(kinds[chosen] + 1):
            seen.add(tuple(off if kind == chosen else 0 for kind in range(len(kinds))))
        seen.add(tuple(parts if kind >= chosen else 0 for kind, parts in enumerate(kinds)))
    yield from sorted(seen)


def group(keys: Sequence[Hashable]) -> dict[Hashable, int]:
    """How many parts have each key, in the order in which keys first appear."""
    return dict(Counter(keys))


def chosen(keys: Sequence[Hashable], kinds: dict[Hashable, int], off: Sequence[int]) -> tuple[bool, ...]:
    """Whether each part is kept: the last `off` of each kind are at zero."""
    left = {key: kinds[key] - zero for key, zero in zip(kinds, off, strict=True)}
    kept = []
    for key in keys:
        kept.append(left[key] > 0)
        left[key] -= 1
    return tuple(kept)


def describe(what: str, kinds: dict[Hashable, int], off: Sequence[int], said: Callable[[Hashable], str]) -> str:
    """For people: which parts are at zero, e.g. "classes at zero: 1 of 2 of 30 samples"."""
    parts = [
        f"{f'{zero} of {count}' if count > 1 else 'the one'} {said(key)}"
        for (key, count), zero in zip(kinds.items(), off, strict=True)
        if zero
    ]
    return f"{what} at zero: {', '.join(parts)}"
