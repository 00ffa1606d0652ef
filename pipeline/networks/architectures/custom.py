"""Networks of the user's own, by dotted path (``backbone._target_``).

What is named has to be a class derived from `torch.nn.Module`, or a function whose annotation says that it returns one,
such as torchvision's ``resnet18``; nothing else is called. To look it up, its module is imported, which runs that
module with the user's rights; so only a module that Python finds under its name (installed, or in the working
directory) is taken, never a path.
"""

import importlib
import pkgutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any, get_type_hints

import torch
from torch import nn

from pipeline.networks.errors import check_kwargs, first_line
from pipeline.networks.registry import architecture
from pipeline.runtime.settings import knob
from pipeline.runtime.suggestions import did_you_mean

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
    with _importable_here():
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
    key = f"backbone._target_={'null' if target is None else target}"
    parts = str(target).split(".")
    if target is None or len(parts) < 2 or not all(part.isidentifier() for part in parts):
        problem = "names no network" if target is None else "is not a dotted path"
        raise ValueError(f"{key} {problem}; allowed: package.module.Class, {CLASS}.")
    # Forked, because a module may draw numbers when it is imported.
    with _importable_here(), torch.random.fork_rng(devices=[]):
        found: Any = _import(parts[0], key, [module.name for module in pkgutil.iter_modules()])
        for place, part in enumerate(parts[1:], start=1):
            path = ".".join(parts[:place])
            try:
                found = getattr(found, part)
                continue
            except AttributeError:
                names = dir(found)
            except Exception as error:  # modules that load their parts when asked for them
                raise _cannot_import(f"{path}.{part}", key, error) from error
            if not hasattr(found, "__path__"):
                raise ValueError(
                    f"{key}: {path} has no {part}{did_you_mean(part, names, most=3)}; allowed: {CLASS} in it."
                )
            names += [module.name for module in pkgutil.iter_modules(found.__path__)]
            found = _import(f"{path}.{part}", key, names)
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


def _import(name: str, key: str, known: Sequence[str]) -> ModuleType:
    """The module called `name`; `known` are the names that its last part could have been."""
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        package, _, last = name.rpartition(".")
        if isinstance(error, ModuleNotFoundError) and error.name == name:
            problem = f"{package} has no {last}" if package else f"there is no module {last}"
            raise ValueError(
                f"{key}: {problem}{did_you_mean(last, known, most=3)}; "
                "allowed: what is installed or in the working directory."
            ) from error
        raise _cannot_import(name, key, error) from error


def _cannot_import(name: str, key: str, error: BaseException) -> ValueError:
    reason = f"{type(error).__name__}: {first_line(error)}"
    return ValueError(f"{key}: {name} cannot be imported ({reason}); allowed: a module that can.")


@contextmanager
def _importable_here() -> Iterator[None]:
    """Modules of the working directory can be imported, from the console script as under `python -m`."""
    here = str(Path.cwd())
    sys.path.insert(0, here)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        with suppress(ValueError):
            sys.path.remove(here)
