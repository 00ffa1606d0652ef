"""Trying a network on a few samples to see what its parts do: `Trial` is one pass, `Inputs` makes variants of it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_map

from pipeline.runtime.modes import evaluating

LARGE_IMAGE = 128
"""Images of so many pixels a side are tried at half their size first, smaller ones at twice."""


@contextmanager
def leaving_no_trace(model: nn.Module) -> Iterator[None]:
    """Eval mode without gradients; afterwards modes, buffers and torch's random states are what they were."""
    devices = {parameter.device for parameter in model.parameters() if parameter.device.type == "cuda"}
    with (
        torch.no_grad(),
        torch.random.fork_rng(devices=list(devices)),
        evaluating(model),
        buffers_kept(model),
        plain_attention(),
        warnings.catch_warnings(action="ignore"),
    ):
        yield


@contextmanager
def buffers_kept(model: nn.Module) -> Iterator[None]:
    """Afterwards the buffers of the model hold what they held."""
    held = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in held:
                if not torch.equal(buffer, value):
                    buffer.copy_(value)


@contextmanager
def plain_attention() -> Iterator[None]:
    """Within, transformer layers call their parts instead of one fused kernel that no hook sees into."""
    enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(enabled)


@dataclass(frozen=True)
class Inputs:
    """Arguments of a network for `count` samples."""

    args: tuple
    kwargs: Mapping[str, Any]
    count: int

    @classmethod
    def of(cls, args: tuple, kwargs: Mapping[str, Any], count: int | None = None) -> Inputs | None:
        """Those of a call; without ``count`` the samples are along the first axis of the first tensor."""
        tensors = [leaf for leaf in tree_flatten((args, dict(kwargs)))[0] if isinstance(leaf, Tensor) and leaf.ndim]
        if not tensors:
            return None
        if count is None or not any(count in tensor.shape for tensor in tensors):
            count = len(tensors[0])
        return cls(args, dict(kwargs), count) if count else None

    def _batch_axis(self, value: object) -> int | None:
        if not isinstance(value, Tensor):
            return None
        return next((axis for axis, size in enumerate(value.shape) if size == self.count), None)

    def _mapped(self, change: Callable[[Tensor, int], Tensor], count: int) -> Inputs:
        def changed(value: object) -> object:
            axis = self._batch_axis(value)
            return value if axis is None else change(value, axis)

        args, kwargs = tree_map(changed, (self.args, self.kwargs))
        return Inputs(args, kwargs, count)

    def chosen(self, samples: Iterable[int]) -> Inputs:
        """Those of these samples, counted from the first again where there are too few."""
        index = torch.tensor([sample % self.count for sample in samples])
        return self._mapped(lambda value, axis: value.index_select(axis, index.to(value.device)), len(index))

    def of_other_sizes(self) -> list[list[Inputs]]:
        """Inputs of more or fewer positions, for each way of telling the positions of an input from its channels.

        The last axes of an image are its positions, or, should the network not take that, those before the last. Of a
        sequence of vectors either can be.
        """
        tensors = [leaf for leaf in tree_flatten((self.args, self.kwargs))[0] if self._batch_axis(leaf) is not None]
        if not tensors:
            return []
        main = tensors[0]
        others = [axis for axis in range(main.ndim) if axis != self._batch_axis(main)]
        ways = [others[1:], others[:-1]] if len(others) > 1 else [others][: not main.is_floating_point()]
        return [self._of_sizes(main, axes) for axes in ways if axes]

    def _of_sizes(self, main: Tensor, axes: list[int]) -> list[Inputs]:
        sizes = [main.shape[axis] for axis in axes]
        factors = (0.5, 2) if max(sizes) >= LARGE_IMAGE else (2, 0.5)
        return [self._resized(main, axes, factor) for factor in factors if min(sizes) * factor >= 1]

    def _resized(self, main: Tensor, axes: list[int], factor: float) -> Inputs:
        def resize(value: Tensor, batch: int) -> Tensor:
            alike = value.ndim == main.ndim and all(value.shape[axis] == main.shape[axis] for axis in axes)
            if not alike or batch in axes:
                return value
            if factor > 1:
                return value.repeat([int(factor) if axis in axes else 1 for axis in range(value.ndim)])
            return value[tuple(slice(int(n * factor)) if a in axes else slice(None) for a, n in enumerate(value.shape))]

        return self._mapped(resize, self.count)


@dataclass
class Run:
    """One run of a module in a pass: when it began and ended, the shapes of what it got and gave, of several values
    those of the first, and whether it gave a tensor."""

    name: str
    began: int
    ended: int = -1
    given: tuple[int, ...] | None = None
    gave: tuple[int, ...] | None = None
    is_tensor: bool = False


@dataclass
class Trial:
    """What the modules of a network did in one pass.

    Attributes:
        runs: of all modules, by name, in the order in which they began.
        outputs: the tensors that the network returned.
    """

    runs: dict[str, list[Run]] = field(default_factory=dict)
    outputs: list[Tensor] = field(default_factory=list)

    @property
    def in_order(self) -> list[Run]:
        """All runs in the order in which they ended."""
        return sorted((run for runs in self.runs.values() for run in runs), key=lambda run: run.ended)


def tried(
    model: nn.Module, inputs: Inputs, names: Mapping[nn.Module, str], change: tuple[str, Callable] | None = None
) -> Trial:
    """A pass of a network; without gradients and traces if within `leaving_no_trace`.

    Args:
        names: the modules to watch.
        change: a module's name and a function of its output that gives what the network gets instead.
    """
    trial, clock, open_runs = Trial(), iter(range(2**62)), []

    def begins(name: str, module: nn.Module, args: tuple, kwargs: dict) -> None:
        first = next(iter([*args, *kwargs.values()]), None)
        run = Run(name, next(clock), given=_shape(first))
        trial.runs.setdefault(name, []).append(run)
        open_runs.append(run)

    def ends(name: str, module: nn.Module, args: tuple, output: object) -> object:
        run = open_runs.pop()
        run.ended, run.gave, run.is_tensor = next(clock), _shape(output), isinstance(output, Tensor)
        return change[1](output) if change is not None and change[0] == name else None

    with ExitStack() as hooks:
        for module, name in names.items():
            begin = module.register_forward_pre_hook(partial(begins, name), with_kwargs=True)
            hooks.callback(begin.remove)
            hooks.callback(module.register_forward_hook(partial(ends, name)).remove)
        outputs = model(*inputs.args, **inputs.kwargs)
    trial.outputs = [leaf for leaf in _leaves(outputs) if isinstance(leaf, Tensor)]
    return trial


def _leaves(value: object) -> list[object]:
    """All values within tuples, dicts and objects that act like dicts."""
    if isinstance(value, Mapping):
        return [leaf for inner in value.values() for leaf in _leaves(inner)]
    if isinstance(value, list | tuple):
        return [leaf for inner in value for leaf in _leaves(inner)]
    return [value]


def _shape(value: object) -> tuple[int, ...] | None:
    """Of floating-point numbers, the first of several."""
    if isinstance(value, tuple | list) and value:
        value = value[0]
    return tuple(value.shape) if isinstance(value, Tensor) and value.is_floating_point() else None


def is_activation(module: nn.Module) -> bool:
    """Whether a module (in evaluation mode) bends every number by itself, as ReLU does.

    Decided by what it does to numbers on a straight line, not by its class, so that timm's and the user's own count:
    Identity, Dropout and Flatten leave the line straight; pooling, norms and Softmax look at more than one number. Of
    modules with weights only PReLU is an activation.
    """
    if isinstance(module, nn.PReLU):
        return True
    if any(True for tensors in (module.parameters(), module.buffers()) for _ in tensors):
        return False
    line = torch.linspace(-20, 20, 42).reshape(6, 7)
    try:
        with warnings.catch_warnings(action="ignore"):
            values, alone = (module.forward(numbers.clone()) for numbers in (line, line[:1, :1]))
        bend = values.flatten().diff(n=2).abs().max() > 1e-4 * values.abs().max()
        return values.shape == line.shape and bool(bend) and torch.allclose(values[:1, :1], alone)
    except Exception:
        return False  # it takes something else than numbers of any shape
