"""What a dotted path names, ``package.module.Class``, in installed packages or in the working directory.

To look it up, its module is imported, which runs that module with the user's rights; so only a module that Python finds
under its name is taken, never a path.
"""

import importlib
import pkgutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any

from pipeline.runtime.suggestions import did_you_mean
from pipeline.runtime.text import first_line


def named(target: str, key: str, what: str) -> Any:
    """What stands at a dotted path.

    Args:
        key: begins each message, ``backbone._target_=package.Class``.
        what: may stand there, in words.

    Raises:
        ValueError: it is no such path, or nothing can be found or imported there.
    """
    parts = target.split(".")
    if len(parts) < 2 or not all(part.isidentifier() for part in parts):
        raise ValueError(f"{key} is not a dotted path; allowed: package.module.Class, {what}.")
    with importable_here(), _numbers_undrawn():
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
                    f"{key}: {path} has no {part}{did_you_mean(part, names, most=3)}; allowed: {what} in it."
                )
            names += [module.name for module in pkgutil.iter_modules(found.__path__)]
            found = _import(f"{path}.{part}", key, names)
    return found


@contextmanager
def importable_here() -> Iterator[None]:
    """Modules of the working directory can be imported, from the console script as under `python -m`."""
    here = str(Path.cwd())
    sys.path.insert(0, here)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        with suppress(ValueError):
            sys.path.remove(here)


@contextmanager
def _numbers_undrawn() -> Iterator[None]:
    """Afterwards PyTorch's generator is as it was: a module may draw numbers when it is imported."""
    import torch

    with torch.random.fork_rng(devices=[]):
        yield


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
