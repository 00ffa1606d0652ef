"""Tensors on their way between devices: many of them in one copy, as every copy to the host waits for a GPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

Value, Result = TypeVar("Value"), TypeVar("Result")
Given = ParamSpec("Given")

STAYS = {"stays": True}
"""Metadata of a field of a dataclass: `moved` leaves what it holds where it is."""
WITHOUT_FLOAT64 = {"mps"}
"""Kinds of devices that have no float64."""


def has_float64(device: torch.device) -> bool:
    """Whether tensors on the device may be float64."""
    return device.type not in WITHOUT_FLOAT64


def with_float64(*tensors: Tensor | None) -> list[Tensor | None]:
    """The tensors, on the CPU if their own device has no float64 (Apple's GPUs)."""
    return [each if each is None or has_float64(each.device) else each.cpu() for each in tensors]


def where_float64_is(function: Callable[Given, Result]) -> Callable[Given, Result]:
    """The function, to which tensors of a device that has no float64 (Apple's GPUs) are given on the CPU."""

    @wraps(function)
    def called(*args: Given.args, **named: Given.kwargs) -> Result:
        if not all(has_float64(tensor.device) for tensor in _tensors((args, named))):
            args, named = moved((args, named), "cpu")
        return function(*args, **named)

    return called


def moved(value: Value, device: torch.device | str) -> Value:
    """The same on another device: tensors, also in lists, tuples, dicts and dataclasses, in one copy for each dtype.

    What is there already, and anything that is no tensor, stays as it is.
    """
    target = torch.device(device)
    waiting: dict[tuple[torch.device, torch.dtype], dict[int, Tensor]] = {}
    for tensor in _tensors(value):
        if not _is_on(tensor, target):
            waiting.setdefault((tensor.device, tensor.dtype), {})[id(tensor)] = tensor
    if not waiting:
        return value
    there: dict[int, Tensor] = {}
    for group in waiting.values():
        flat = torch.cat([tensor.detach().reshape(-1) for tensor in group.values()]).to(target)
        pieces = flat.split([tensor.numel() for tensor in group.values()])
        for (name, tensor), piece in zip(group.items(), pieces, strict=True):
            # With memory of its own: pickling a piece of a tensor takes the whole of it along.
            there[name] = (piece.clone() if target.type == "cpu" else piece).view(tensor.shape)
    return _replaced(value, there)


def _is_on(tensor: Tensor, device: torch.device) -> bool:
    return tensor.device.type == device.type and device.index in (None, tensor.device.index)


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _tensors(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _tensors(each)
    elif is_dataclass(value) and not isinstance(value, type):
        for name in _moving(value):
            yield from _tensors(getattr(value, name))


def _replaced(value: Any, there: dict[int, Tensor]) -> Any:
    if isinstance(value, Tensor):
        return there.get(id(value), value)
    if isinstance(value, Mapping):
        return {key: _replaced(each, there) for key, each in value.items()}
    if isinstance(value, list | tuple):
        made = [_replaced(each, there) for each in value]
        return made if isinstance(value, list) else tuple(made)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{name: _replaced(getattr(value, name), there) for name in _moving(value)})
    return value


def _moving(value: Any) -> list[str]:
    return [field.name for field in fields(value) if not field.metadata.get("stays")]
