"""Which layers of a module are measured, and how they are read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from pipeline.networks.patterns import SIDES, Pattern, listed, matching, modules_of
from pipeline.networks.reading import Reading
from pipeline.networks.taps import Place, Tap

Read = Mapping[Pattern, Reading | str | Callable[[object], Tensor]]
"""How layers are read, by patterns; the last one that means a layer counts."""


def plain(model: nn.Module) -> nn.Module:
    """The module inside the wrappers of torch.compile, DataParallel and DistributedDataParallel."""
    while True:
        if hasattr(model, "_orig_mod"):
            model = model._orig_mod
        elif isinstance(model, nn.DataParallel | DistributedDataParallel):
            model = model.module
        else:
            return model


def find_places(model: nn.Module, patterns: Sequence[Pattern] | Pattern, read: Read | None = None) -> dict[Place, Tap]:
    """The places that are meant by patterns such as `"fc"`, `"layer*"`, `"blocks.?.mlp:pre"`.

    See `pipeline.networks.patterns`; `:pre` asks for what enters the modules, `:post`, the default, for what leaves
    them. Submodules that are compiled have the names that they have without that.

    Args:
        read: how some of them are read, by patterns that mean both sides unless they say which.

    Raises:
        ValueError: for a pattern that matches nothing, an unknown side or way to read, or no pattern at all.
    """
    patterns = listed(patterns)
    if not patterns:
        raise ValueError('layers must hold at least one pattern such as "layer*" or "fc:pre", got none.')
    names, places = modules_of(model), {}
    for pattern in patterns:
        for layer, side in matching(model, pattern):
            places[layer, side or "post"] = Tap(names[layer], side or "post")
    for pattern, how in (read or {}).items():
        meant = [(layer, each) for layer, side in matching(model, pattern) for each in ([side] if side else SIDES)]
        chosen = [place for place in meant if place in places]
        if not chosen:
            raise ValueError(f"read={{{pattern!r}: ...}} means none of the layers that are measured, {list(places)}.")
        for place in chosen:
            places[place] = replace(places[place], read=Reading.of(how))
    return places
