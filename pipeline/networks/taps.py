"""Taps: read the inputs and outputs of any layers of a module while it runs, by module name.

    with Taps(model, {"hidden": Tap("head.act1", "pre"), "block": Tap("blocks.0")}) as taps:
        model(images)
    taps["hidden"], taps["block"]  # (N, d) each

A tap reads a layer as features `(N, d)`, one row per sample: activations `(N, d)` as they are, conv maps
`(N, C, H, W)` averaged over H and W, token sequences `(N, T, d)` averaged over T; with `pooling="flatten"` conv maps
and sequences become `(N, C H W)` and `(N, T d)` instead.

Hooks see what a module really gets and gives only where it is not compiled, so while taps are open everything that
torch.compile made runs eagerly; a module compiled by wrapping keeps its own name, and what it holds has `_orig_mod` in
theirs.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Hashable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Literal

import torch
from torch import Tensor, nn

from pipeline.runtime.suggestions import closest

SIDES = ("pre", "post")
POOLINGS = ("average", "flatten")

Place = tuple[str, str]
"""(layer, tap): the name of a module or block, and "pre" or "post"."""

Listener = Callable[[Hashable, Tensor], None]


@dataclass(frozen=True)
class Tap:
    """A place to read: what enters (`pre`) or leaves (`post`) the module called `module`.

    The two sides of an activation module are its pre- and post-activation. With `repeats` the module may run several
    times in a pass: every run is told to the listener, and the last one is kept. Raises ValueError for another side or
    pooling.
    """

    module: str
    side: Literal["pre", "post"] = "post"
    pooling: Literal["average", "flatten"] = "average"
    repeats: bool = False

    def __post_init__(self) -> None:
        if self.side not in SIDES:
            raise ValueError(f"side must be one of {', '.join(SIDES)}, got {self.side!r}.")
        if self.pooling not in POOLINGS:
            raise ValueError(f"pooling must be one of {', '.join(POOLINGS)}, got {self.pooling!r}.")


class Taps:
    """Context in which the taps on a module are open; leaving it removes every hook.

    Args:
        module: any `nn.Module`; names are those of its `named_modules()`, "" being the module itself.
        taps: the places to read, by a key of your choice; a bare list of module names reads their outputs, with the
            names as keys.
        listener: called as `listener(key, features)` the moment a tapped value appears, with detached features
            `(N, d)` that a later in-place operation may overwrite: use or copy them at once. Without a listener the
            features of the latest pass are kept, as `taps[key]`.

    Raises:
        ValueError: for an unknown module name, and for a value that cannot be read as features.
        RuntimeError: on leaving, if a tap never fired (and nothing else went wrong); during a pass, if a module that
            is used at several places of the network fires twice without `repeats`, as its taps would mix them up.
    """

    def __init__(
        self, module: nn.Module, taps: Mapping[Hashable, Tap] | Iterable[str], listener: Listener | None = None
    ) -> None:
        self._taps = dict(taps) if isinstance(taps, Mapping) else {name: Tap(name) for name in taps}
        self._module = module
        self._targets = {key: _find(module, tap.module) for key, tap in self._taps.items()}
        self._listener = listener or self._keep
        self._kept: dict[Hashable, Tensor] = {}
        self._fired: set[Hashable] = set()
        self._fired_in_pass: set[Hashable] | None = None
        self._hooks = ExitStack()

    def __enter__(self) -> Taps:
        self._fired.clear()
        self._kept.clear()
        if "torch._dynamo" in sys.modules:  # a heavy import, which nothing can have been compiled without
            self._hooks.enter_context(torch.compiler.set_stance("force_eager"))
        # First, so that it runs before a tap on the module's own input.
        self._hooks.callback(self._module.register_forward_pre_hook(self._start_pass).remove)
        for key, target in self._targets.items():
            if self._taps[key].side == "pre":
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
        silent = [tap for key, tap in self._taps.items() if key not in self._fired]
        if silent and kind is None:
            names = ", ".join(f"{tap.module!r} ({tap.side})" for tap in silent)
            raise RuntimeError(f"These taps never fired, their modules were not called in the pass: {names}.")

    def __getitem__(self, key: Hashable) -> Tensor:
        """Features `(N, d)` that the tap read in the latest pass, in the dtype of the network (at least float32)."""
        return self._kept[key]

    def _start_pass(self, module: nn.Module, inputs: tuple) -> None:
        self._fired_in_pass = set()

    def _read_input(self, key: Hashable, module: nn.Module, inputs: tuple, named_inputs: dict) -> None:
        self._read(key, next(iter([*inputs, *named_inputs.values()]), None))

    def _read_output(self, key: Hashable, module: nn.Module, inputs: tuple, output: object) -> None:
        self._read(key, output)

    def _read(self, key: Hashable, value: object) -> None:
        tap = self._taps[key]
        if self._fired_in_pass is not None:
            if key in self._fired_in_pass and not tap.repeats:
                raise RuntimeError(
                    f"module {tap.module!r} ran more than once in one pass, so what it reads is ambiguous: "
                    "tap a module that is used once, such as the block around it."
                )
            self._fired_in_pass.add(key)
        self._fired.add(key)
        self._listener(key, _as_features(value, tap))

    def _keep(self, key: Hashable, features: Tensor) -> None:
        self._kept[key] = features.clone()


def _find(module: nn.Module, name: str) -> nn.Module:
    """The submodule called `name`."""
    modules = dict(module.named_modules(remove_duplicate=False))
    if name not in modules:
        close = closest(name, filter(None, modules), most=3, cutoff=0.4)
        hint = f"did you mean {' or '.join(map(repr, close))}?" if close else "see its named_modules()."
        raise ValueError(f"module name {name!r} is not in this {type(module).__name__}, {hint}")
    return modules[name]


def _as_features(value: object, tap: Tap) -> Tensor:
    """One row of features per sample, by the rules stated at the top; half precision is averaged in float32."""
    if not isinstance(value, Tensor) or value.ndim not in (2, 3, 4) or not value.is_floating_point():
        got = (
            f"a {value.dtype} tensor of shape {tuple(value.shape)}"
            if isinstance(value, Tensor)
            else type(value).__name__
        )
        raise ValueError(
            f"tap on module {tap.module!r} ({tap.side}) reads (N, d), (N, T, d) or (N, C, H, W) features, got {got}."
        )
    value = value.detach()
    if value.ndim == 2:
        return value
    if tap.pooling == "flatten":
        return value.flatten(1)
    dims = (2, 3) if value.ndim == 4 else 1
    return value.mean(dims, dtype=torch.promote_types(value.dtype, torch.float32))
