"""Sections of the configuration that are put together from many files.

Where a file is the registration (of a data set, of an architecture), it may own settings: a dataclass of `knob` fields.
A section of the configuration is what all choices share, and beside it what each choice owns.
"""

from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, field, fields, make_dataclass, replace
from typing import Any, TypeVar, get_type_hints

from pipeline.runtime.errors import ConfigError
from pipeline.runtime.settings import check_value, typed
from pipeline.runtime.suggestions import did_you_mean

Common = TypeVar("Common")
Owners = Mapping[str, type | None]
"""Choice -> the dataclass of its own settings, None if it has none."""


@dataclass(frozen=True)
class _Owned:
    """A setting that belongs to some of a section's choices."""

    kind: Any
    default: Any
    limits: dict[str, Any]
    texts: tuple[str, ...]
    owners: tuple[str, ...]

    def agrees_with(self, other: "_Owned") -> bool:
        return (self.kind, self.default, self.limits) == (other.kind, other.default, other.limits)

    def describe(self, section: str) -> str:
        return f"{_choice(section, self.owners)} ({_spelled(self.kind)}, default {typed(self.default)})"


def composed(name: str, common: type[Common], owners: Owners, *, section: str, module: str) -> type[Common]:
    """The dataclass of a section: the fields of `common`, then the owned settings in the order of the owners.

    Choices may own a setting of the same name if its type, default and limits agree. Help texts end with the choices
    that a setting belongs to.

    Args:
        name, module: of the new class; the module has to hold it under that name, so that it can be pickled.
        section: of the configuration (``data``), for messages.

    Raises:
        TypeError: in one sentence, if two names clash, or a setting is no `knob`.
    """
    specs = []
    for key, owned in _owned_settings(owners, section).items():
        if hasattr(common, key) or key in {entry.name for entry in fields(common)}:
            raise TypeError(
                f"{section}.{key} belongs to {_choice(section, owned.owners)}, but the name is taken by what all "
                f"choices of {section} share: rename it."
            )
        default = owned.default
        values = {"default_factory": lambda made=default: list(made)} if isinstance(default, list) else {}
        text = f"{'; '.join(owned.texts)}, for {_choice(section, owned.owners)}"
        metadata = {"help": text, **owned.limits, "owners": owned.owners}
        specs.append((key, owned.kind, field(**(values or {"default": default}), metadata=metadata)))
    made = make_dataclass(name, specs, bases=(common,))
    made.__module__, made.__doc__ = module, common.__doc__
    return made


def owners_of(entry: Field) -> tuple[str, ...]:
    """The choices that a field of a composed section belongs to, () if all share it."""
    return entry.metadata.get("owners", ())


def own_settings(section: str, choice: str, owners: Owners, values: Mapping[str, Any]) -> Any:
    """The settings that `choice` owns, made from values by name; None if it owns none. What is not given is default.

    Settings of other choices may be given as well, if they are at their defaults.

    Raises:
        ConfigError: in one sentence, for an unknown name, a value out of range, or another choice's setting.
    """
    known = _owned_settings(owners, section)
    for key, value in values.items():
        if key not in known:
            raise ConfigError(
                f"{section}.{key}={typed(value)} is not a known setting{did_you_mean(key, known)}; "
                f"allowed for {section}={choice}: {', '.join(_names(owners[choice])) or 'none of its own'}."
            )
        theirs = known[key]
        if choice not in theirs.owners and _plain(value) != theirs.default:
            raise ConfigError(
                f"{section}.{key}={typed(value)} belongs to {_choice(section, theirs.owners)}, but {section}={choice} "
                f"is chosen; allowed: {section}.{key}={typed(theirs.default)}, or "
                f"{' or '.join(f'{section}={owner}' for owner in theirs.owners)}."
            )
    if (mine := owners[choice]) is None:
        return None
    for entry in fields(mine):
        if entry.name in values:
            check_value(f"{section}.{entry.name}", values[entry.name], entry)
    return mine(**{name: values[name] for name in _names(mine) if name in values})


def _owned_settings(owners: Owners, section: str) -> dict[str, _Owned]:
    """The owned settings of a section by name, in the order of the owners."""
    found: dict[str, _Owned] = {}
    for owner, settings in owners.items():
        kinds = get_type_hints(settings) if settings else {}
        for entry in fields(settings) if settings else ():
            if "help" not in entry.metadata:
                raise TypeError(
                    f"{settings.__module__}.{settings.__qualname__}.{entry.name} says nothing about itself: "
                    "make it with knob(default, text)."
                )
            limits = {name: limit for name, limit in entry.metadata.items() if name != "help"}
            default = entry.default if entry.default is not MISSING else entry.default_factory()
            text = entry.metadata["help"]
            new, old = _Owned(kinds[entry.name], default, limits, (text,), (owner,)), found.get(entry.name)
            if old is not None and not new.agrees_with(old):
                raise TypeError(
                    f"{section}.{entry.name} belongs to {old.describe(section)} and to {new.describe(section)}: "
                    "rename one of them, or give both the same type, default and limits."
                )
            if old is not None:
                texts = old.texts if text in old.texts else (*old.texts, text)
                new = replace(old, texts=texts, owners=(*old.owners, owner))
            found[entry.name] = new
    return found


def _names(settings: type | None) -> tuple[str, ...]:
    return tuple(entry.name for entry in fields(settings)) if settings else ()


def _choice(section: str, owners: tuple[str, ...]) -> str:
    return f"{section}={'|'.join(owners)}"


def _spelled(kind: Any) -> str:
    return kind.__name__ if isinstance(kind, type) else str(kind)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
