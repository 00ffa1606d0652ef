"""Which layers of a module are meant: patterns over the names of its submodules."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from torch import nn
from torch.nn.parallel import DistributedDataParallel

from pipeline.networks.taps import SIDES, Place, Tap
from pipeline.runtime.suggestions import closest

SHOWN = 12
"""Names that an error lists."""


def plain(model: nn.Module) -> nn.Module:
    """The module inside the wrappers of torch.compile and DistributedDataParallel."""
    while True:
        if hasattr(model, "_orig_mod"):
            model = model._orig_mod
        elif isinstance(model, DistributedDataParallel):
            model = model.module
        else:
            return model


def find_places(model: nn.Module, patterns: Sequence[str] | str) -> dict[Place, Tap]:
    """The places that are meant by patterns such as `"fc"`, `"layer*"`, `"blocks.?.mlp:pre"`.

    A pattern is a module's name in which every part between dots may hold the wildcards `*`, `?` and `[...]`; `:pre`
    asks for what enters the modules, `:post`, the default, for what leaves them. Submodules that are compiled have the
    names that they have without that.

    Raises:
        ValueError: for a pattern that matches nothing, an unknown side, or no pattern at all.
    """
    patterns = [patterns] if isinstance(patterns, str) else list(patterns)
    if not patterns:
        raise ValueError('layers must hold at least one pattern such as "layer*" or "fc:pre", got none.')
    # Of a compiled submodule the last of its two entries counts, which is the module itself and not the wrapper.
    names = {name.replace("._orig_mod", ""): name for name, _ in model.named_modules(remove_duplicate=False) if name}
    places = {}
    for pattern in patterns:
        layer_pattern, _, side = pattern.partition(":")
        side = side or "post"
        if side not in SIDES:
            raise ValueError(f"layer pattern {pattern!r} must end in :pre, :post or neither, got :{side}.")
        layers = [layer for layer in names if _matches(layer, layer_pattern)]
        if not layers:
            raise ValueError(_unknown(pattern, layer_pattern, list(names), model))
        places |= {(layer, side): Tap(names[layer], side) for layer in layers}
    return places


def _matches(layer: str, pattern: str) -> bool:
    parts, wanted = layer.split("."), pattern.split(".")
    return len(parts) == len(wanted) and all(map(fnmatchcase, parts, wanted))


def _unknown(pattern: str, layer_pattern: str, names: list[str], model: nn.Module) -> str:
    close = closest(layer_pattern, names, most=3)
    if close:
        hint = f"did you mean {' or '.join(map(repr, close))}?"
    else:
        shown = ", ".join(names[:SHOWN]) + (f", ... ({len(names)} in all)" if len(names) > SHOWN else "")
        hint = f"which has: {shown}."
    return f"layer pattern {pattern!r} matches no module of this {type(model).__name__}, {hint}"
