"""Which modules a folder holds: where a file is the registration, nobody keeps a list of them."""

from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from types import ModuleType
from typing import TypeVar

Registered = TypeVar("Registered")


def names_in(package: str) -> tuple[str, ...]:
    """Names of the modules right inside a package, in alphabetical order, without importing them.

    Packages inside it, and names that begin with an underscore, do not count.
    """
    folders = import_module(package).__path__
    found = iter_modules([str(Path(folder)) for folder in folders])
    return tuple(sorted(module.name for module in found if not module.ispkg and not module.name.startswith("_")))


def modules_in(package: str) -> tuple[ModuleType, ...]:
    """The modules themselves, imported, in that order."""
    return tuple(import_module(f"{package}.{name}") for name in names_in(package))


def registered(package: str, kind: type[Registered]) -> dict[str, Registered]:
    """What the modules of a package register, by name: each has one object of `kind`, named like the module.

    Raises:
        TypeError: for a module that has none.
    """
    found = {}
    for module in modules_in(package):
        name = module.__name__.rpartition(".")[2]
        own = [value for value in vars(module).values() if isinstance(value, kind) and value.name == name]
        if not own:
            raise TypeError(
                f"{module.__file__} registers no {kind.__name__} named {name}; a file that is not to register one has "
                "a name that begins with an underscore."
            )
        found[name] = own[0]
    return found
