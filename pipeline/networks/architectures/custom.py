"""Networks of the user's own, by dotted path (``backbone._target_``).

What is named has to be a class derived from `torch.nn.Module`, or a function whose annotation says that it returns one,
such as torchvision's ``resnet18``; nothing else is called. What is trusted: `pipeline.runtime.dotted`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import FunctionType
from typing import Any, get_type_hints

from torch import nn

from pipeline.networks.errors import check_kwargs
from pipeline.networks.registry import architecture
from pipeline.runtime.dotted import importable_here, named
from pipeline.runtime.settings import knob
from pipeline.runtime.text import first_line

CLASS = "a class derived from torch.nn.Module"


@dataclass(frozen=True)
class Settings:
    """Of a network of the user's own."""

    _target_: str | None = knob(None, "dotted path of any class of nn.Module")
    kwargs: Any = knob(None, "its arguments, {name: value, ...}")


def check(settings: Settings) -> None:
    """Raise ValueError unless the target can be found, which imports its module, and the arguments have names."""
    _find_target(settings._target_)
    check_kwargs(settings.kwargs)


@architecture(
    settings=Settings,
    check=check,
    label=lambda settings: f"backbone._target_={settings._target_}",
    takes=("images", "vectors", "text"),
)
def custom(image_shape: Sequence[int], settings: Settings) -> nn.Module:
    """What the class or function at the dotted path makes with the arguments, which has to be a torch.nn.Module.

    Modules in the working directory can be named, too. The network takes images of this shape or the backbone says no.
    """
    target, kwargs = settings._target_, settings.kwargs or {}
    make = _find_target(target)
    with importable_here():
        try:
            network = make(**kwargs)
        except (Exception, SystemExit) as error:
            reason = f"{type(error).__name__}: {first_line(error)}"
            raise ValueError(
                f"backbone._target_={target} cannot be built with backbone.kwargs={dict(kwargs)} ({reason}); "
                "allowed: the arguments it takes."
            ) from error
    if not isinstance(network, nn.Module):  # a class may make something else than its own
        raise ValueError(f"backbone._target_={target} gives a {type(network).__name__}; allowed: a torch.nn.Module.")
    # As a whole: what the network has in evaluation mode itself stays so.
    return network.float().cpu() if network.training else network.float().cpu().train()


def _find_target(target: str | None) -> Callable[..., nn.Module]:
    """The class or function at a dotted path."""
    if target is None:
        raise ValueError(f"backbone._target_=null names no network; allowed: package.module.Class, {CLASS}.")
    key = f"backbone._target_={target}"
    found = named(target, key, CLASS)
    if not _is_network(found if isinstance(found, type) else _returned(found)):
        kind = f"class not derived from it ({found.__name__})" if isinstance(found, type) else type(found).__name__
        raise ValueError(f"{key} is a {kind}; allowed: {CLASS}, or a function annotated to return one.")
    return found


def _is_network(found: Any) -> bool:
    return isinstance(found, type) and issubclass(found, nn.Module)


def _returned(found: Any) -> Any:
    """What a function's annotation says that it returns; None for whatever says nothing, or is no function."""
    if not isinstance(found, FunctionType):
        return None
    try:
        return get_type_hints(found).get("return")
    except Exception:  # annotations are code of any kind
        return None
