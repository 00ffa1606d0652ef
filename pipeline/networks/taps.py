"""Taps: read the inputs and outputs of any layers of a module while it runs, by module name.

    with Taps(model, {"hidden": Tap("head.act1", "pre"), "block": Tap("blocks.0")}) as taps:
        model(images)
    taps["hidden"], taps["block"]  # (N, d) each

A tap reads a layer as features `(N, d)`, one row per sample: activations `(N, d)` as they are, maps averaged over
space, tokens over those that what follows reads (`Tap(..., read=...)` says otherwise, see `Reading`). Which axis holds
the channels is found out by trying the module on a few samples of the first pass (see `pipeline.networks.layouts`).

Hooks see what a module really gets and gives only where it is not compiled or fused, so while taps are open everything
that torch.compile made runs eagerly, and transformer layers run part by part; a module compiled by wrapping keeps its
own name, and what it holds has `_orig_mod` in theirs.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Hashable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from types import TracebackType
from typing import Literal

import torch
from torch import Tensor, nn

from pipeline.networks.layouts import find_layouts
from pipeline.networks.patterns import SIDES
from pipeline.networks.probing import Inputs, plain_attention
from pipeline.networks.reading import AUTO, Mask, Reading, Unreadable, mask_of
from pipeline.networks.rows import Layout, Rows, Unclear
from pipeline.runtime.devices import with_float64
from pipeline.runtime.suggestions import closest

Place = tuple[str, str]
"""(layer, tap): the name of a module or block, and "pre" or "post"."""

Listener = Callable[[Hashable, Rows], None]


@dataclass(frozen=True)
class Tap:
    """A place to read: what enters (`pre`) or leaves (`post`) the module called `module`.

    The two sides of an activation module are its pre- and post-activation. `read` is a `Reading`, or how to read in
    short (`"cls"`). With `repeats` the module may run several times in a pass: every run is told to the listener, and
    the last one is kept. `layout` is that of the activation where it is known. Raises ValueError for another side or
    reading.
    """

    module: str
    side: Literal["pre", "post"] = "post"
    read: Reading | str | Callable[[object], Tensor] = AUTO
    repeats: bool = False
    layout: Layout | Unclear | None = None

    def __post_init__(self) -> None:
        if self.side not in SIDES:
            raise ValueError(f"side must be one of {', '.join(SIDES)}, got {self.side!r}.")
        object.__setattr__(self, "read", Reading.of(self.read))

    def description(self, shape: tuple[int, ...]) -> str:
        """What is read of an activation of this shape, in words."""
        return self.read.description(shape, self.layout)


NOT_TRIED = Unclear("and the module around it was not called, so that its axes could not be found out")
"""The layout of what is read outside a pass of the module that the taps are on."""


class Taps:
    """Context in which the taps on a module are open; leaving it removes every hook.

    Args:
        module: any `nn.Module`; names are those of its `named_modules()`, "" being the module itself.
        taps: the places to read, by a key of your choice; a bare list of module names reads their outputs, with the
            names as keys.
        listener: called as `listener(key, rows)` the moment a tapped value appears, with detached `Rows` that a later
            in-place operation may overwrite: use or copy them at once. Without a listener the features of the latest
            pass are kept, as `taps[key]`.
        num_samples: N of the first pass, if that is not the length of the first tensor that the module gets.
        units: count the units that are not zero, too, before positions are pooled (`Rows.units`).

    Attributes:
        taps: the places, after the first pass with their layouts.
        shapes: of the values read last, by key.

    Raises:
        ValueError: for an unknown module name, and for a value that cannot be read as features.
        RuntimeError: on leaving, if a tap never fired (and nothing else went wrong); during a pass, if a module that
            is used at several places of the network fires twice without `repeats`, as its taps would mix them up.
    """

    def __init__(
        self,
        module: nn.Module,
        taps: Mapping[Hashable, Tap] | Iterable[str],
        listener: Listener | None = None,
        num_samples: int | None = None,
        units: bool = False,
    ) -> None:
        self.taps = dict(taps) if isinstance(taps, Mapping) else {name: Tap(name) for name in taps}
        self._module = module
        self._targets = {key: _find(module, tap.module) for key, tap in self.taps.items()}
        self._listener = listener or self._keep
        self._num_samples, self._counts_units = num_samples, units
        self._kept: dict[Hashable, Tensor] = {}
        self.shapes: dict[Hashable, tuple[int, ...]] = {}
        self._masks: dict[Mask | None, Tensor | None] = {}
        self._is_trying = False
        self._fired: set[Hashable] = set()
        self._fired_in_pass: set[Hashable] | None = None
        self._hooks = ExitStack()

    def __enter__(self) -> Taps:
        self._fired.clear()
        self._kept.clear()
        if "torch._dynamo" in sys.modules:  # a heavy import, which nothing can have been compiled without
            self._hooks.enter_context(torch.compiler.set_stance("force_eager"))
        self._hooks.enter_context(plain_attention())
        # First, so that it runs before a tap on the module's own input.
        self._hooks.callback(self._module.register_forward_pre_hook(self._start_pass, with_kwargs=True).remove)
        for key, target in self._targets.items():
            if self.taps[key].side == "pre":
                handle = target.register_forward_pre_hook(partial(self._read_input, key), with_kwargs=True)
            else:
                handle = target.register_forward_hook(partial(self._read_output, key))
            self._hooks.callback(handle.remove)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._hooks.close()
        self._fired_in_pass = None
        silent = [tap for key, tap in self.taps.items() if key not in self._fired]
        if silent and kind is None:
            names = ", ".join(f"{tap.module!r} ({tap.side})" for tap in silent)
            raise RuntimeError(f"These taps never fired, their modules were not called in the pass: {names}.")

    def __getitem__(self, key: Hashable) -> Tensor:
        """Features `(N, d)` that the tap read in the latest pass, in the dtype of the network (at least float32)."""
        return self._kept[key]

    def _start_pass(self, module: nn.Module, inputs: tuple, named_inputs: dict) -> None:
        if self._is_trying:
            return
        masks = dict.fromkeys(tap.read.mask for tap in self.taps.values())
        self._masks = {mask: mask_of(mask, module, inputs, named_inputs) for mask in masks}
        unknown = {key: tap for key, tap in self.taps.items() if tap.layout is None and tap.read.needs_layout}
        if unknown:
            self._is_trying = True
            try:
                spots = {key: (tap.module, tap.side) for key, tap in unknown.items()}
                tokens = {key: self._masks[tap.read.mask] for key, tap in unknown.items()}
                found = find_layouts(module, spots, Inputs.of(inputs, named_inputs, self._num_samples), tokens)
            finally:
                self._is_trying = False
            self.taps |= {key: replace(self.taps[key], layout=layout) for key, layout in found.items()}
        self._fired_in_pass = set()

    def _read_input(self, key: Hashable, module: nn.Module, inputs: tuple, named_inputs: dict) -> None:
        self._read(key, next(iter([*inputs, *named_inputs.values()]), None))

    def _read_output(self, key: Hashable, module: nn.Module, inputs: tuple, output: object) -> None:
        self._read(key, output)

    def _read(self, key: Hashable, value: object) -> None:
        if self._is_trying:
            return
        tap = self.taps[key]
        if self._fired_in_pass is not None:
            if key in self._fired_in_pass and not tap.repeats:
                raise RuntimeError(
                    f"module {tap.module!r} ran more than once in one pass, so what it reads is ambiguous: "
                    "tap a module that is used once, such as the block around it."
                )
            self._fired_in_pass.add(key)
        self._fired.add(key)
        if isinstance(value, Tensor):
            self.shapes[key] = tuple(value.shape)
        mask = self._masks.get(tap.read.mask)
        if isinstance(value, Tensor):
            value, mask = with_float64(value, mask)  # what is counted of it is float64
        try:
            rows = tap.read.rows(value, tap.layout or NOT_TRIED, mask)
            if self._counts_units:
                rows = replace(rows, units=tap.read.units(value, tap.layout, mask))
        except ValueError as error:
            raise Unreadable(tap.module, tap.side, str(error)) from None
        self._listener(key, rows)

    def _keep(self, key: Hashable, rows: Rows) -> None:
        self._kept[key] = rows.values.clone()


def _find(module: nn.Module, name: str) -> nn.Module:
    """The submodule called `name`."""
    modules = dict(module.named_modules(remove_duplicate=False))
    if name not in modules:
        close = closest(name, filter(None, modules), most=3, cutoff=0.4)
        hint = f"did you mean {' or '.join(map(repr, close))}?" if close else "see its named_modules()."
        raise ValueError(f"module name {name!r} is not in this {type(module).__name__}, {hint}")
    return modules[name]
