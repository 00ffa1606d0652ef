"""Which modules of a network are meant: patterns over their names, their types, or the modules themselves."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from torch import nn

from pipeline.runtime.suggestions import closest

SIDES = ("pre", "post")
SHOWN = 12
"""Names that an error lists."""

Pattern = str | type[nn.Module] | nn.Module | tuple["str | type[nn.Module] | nn.Module", str]
"""A name, type or module, or a pair of one of these and a side."""


def listed(patterns: Sequence[Pattern] | Pattern) -> list[Pattern]:
    """Several patterns, or one, as a list."""
    if isinstance(patterns, str | type | nn.Module) or (isinstance(patterns, tuple) and patterns[1:] in _SIDES):
        return [patterns]
    return list(patterns)


def modules_of(model: nn.Module) -> dict[str, str]:
    """Names without what compilation adds to them -> names in `named_modules`; without the model itself and lists."""
    # Of a compiled submodule the last of its two entries counts, which is the module itself and not the wrapper.
    named = {name.replace("._orig_mod", ""): name for name, _ in model.named_modules(remove_duplicate=False) if name}
    return {name: full for name, full in named.items() if _runs(model.get_submodule(full))}


def matching(model: nn.Module, pattern: Pattern) -> list[tuple[str, str | None]]:
    """Layers that a pattern means, as (name, side), None where it leaves the side open; in the order of the modules.

    In a string every part between dots may hold the wildcards `*`, `?` and `[...]`, `**` stands for any number of
    parts, and `:pre` or `:post` may end it. A string that is no name is taken for the name of a class.

    Raises:
        ValueError: it matches nothing, or names an unknown side.
    """
    wanted, side = pattern if isinstance(pattern, tuple) else (pattern, None)
    if isinstance(wanted, str) and side is None:
        wanted, colon, given = wanted.partition(":")
        side = given if colon else None
    if side is not None and side not in SIDES:
        raise ValueError(f"layer pattern {pattern!r} must end in :pre, :post or neither, got :{side}.")
    names = modules_of(model)
    if isinstance(wanted, str):
        found = [name for name in names if _matches(name.split("."), wanted.split("."))]
        found = found or [name for name, full in names.items() if type(model.get_submodule(full)).__name__ == wanted]
    elif isinstance(wanted, type):
        found = [name for name, full in names.items() if isinstance(model.get_submodule(full), wanted)]
    else:
        found = [name for name, full in names.items() if model.get_submodule(full) is wanted][:1]
    if not found:
        raise ValueError(_unknown(pattern, wanted, list(names), model))
    return [(name, side) for name in found]


_SIDES = tuple((side,) for side in SIDES)


def _runs(module: nn.Module) -> bool:
    return not isinstance(module, nn.ModuleList | nn.ModuleDict) or type(module).forward is not nn.Module.forward


def _matches(layer: list[str], wanted: list[str]) -> bool:
    if not layer or not wanted:
        return not layer and not wanted
    if wanted[0] != "**":
        return fnmatchcase(layer[0], wanted[0]) and _matches(layer[1:], wanted[1:])
    if len(wanted) == 1:
        return True
    return _matches(layer, wanted[1:]) or _matches(layer[1:], wanted)


def _unknown(pattern: Pattern, wanted: str | type | nn.Module, names: list[str], model: nn.Module) -> str:
    shown = repr(pattern) if isinstance(pattern, str) else getattr(wanted, "__name__", type(wanted).__name__)
    close = closest(wanted, names, most=3) if isinstance(wanted, str) else []
    if close:
        hint = f"did you mean {' or '.join(map(repr, close))}?"
    else:
        listing = ", ".join(names[:SHOWN]) + (f", ... ({len(names)} in all)" if len(names) > SHOWN else "")
        hint = f"which has: {listing}."
    return f"layer pattern {shown} matches no module of this {type(model).__name__}, {hint}"
