"""Arguments ``key=value`` as Hydra's grammar wants them, and what to type where it cannot read them."""

import os
import re
import shlex
from dataclasses import Field, fields, is_dataclass
from functools import cache

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, QuotedString
from hydra.errors import HydraException

from pipeline.config.folder import conf_folder
from pipeline.config.schema import Config
from pipeline.runtime.errors import ConfigError
from pipeline.runtime.settings import allowed, choices_of

HYDRAS_PATHS = ("hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir")


def readable_override(argument: str, *, sweeping: bool = True) -> str:
    """An argument as Hydra can read it: ``~/`` spelled out, a path whatever its characters, text beyond ASCII quoted.

    Args:
        sweeping: a comma may separate the values of a multirun.

    Raises:
        ConfigError: a path that Hydra cannot read has a comma, and it is open whether that separates two values.
    """
    return _quote_beyond_ascii(_quote_path(_plain_keys(_expand_home(argument)), sweeping))


def parsed_override(argument: str) -> Override:
    """What Hydra reads in an argument.

    Raises:
        ConfigError: nothing; it shows what to type.
    """
    try:
        return OverridesParser.create().parse_override(argument)
    except (HydraException, ValueError) as error:
        raise ConfigError(unreadable(argument, _first_line(error))) from error


def check_single(argument: str, override: Override) -> None:
    """Raise ConfigError, which shows what to type, if an argument has several values, as for a multirun."""
    if override.is_sweep_override():
        raise ConfigError(_several(argument))


def unreadable(argument: str, why: str) -> str:
    """The sentence about an argument that Hydra's grammar cannot read."""
    key, equals, value = argument.partition("=")
    if not equals or not re.fullmatch(r"[+~]*[\w.@/:$-]+", key):
        return f"override '{argument}' cannot be read ({why}); allowed: key=value."
    entry = knob_of(key)
    if entry is not None and (choices_of(entry) or _kind(entry) in ("int", "float", "bool")):
        return f"override '{argument}' cannot be read ({why}); allowed: key=value with {allowed(entry)}."
    what = "a value with such characters within quotes"
    if entry is None or _takes_text(entry):
        what = f"text with such characters within quotes: {typed_line(key, value)}"
    return f"override '{argument}' cannot be read ({why}); allowed: key=value, and {what}."


def typed_line(key: str, *values: str) -> str:
    """The argument as it is typed in a shell, each value quoted for Hydra's grammar."""
    argument = f"{key}={','.join(map(quoted, values))}"
    return shlex.quote(argument) if re.search(r'["$`!\\]', argument) else f'"{argument}"'


def quoted(value: str) -> str:
    """A value as Hydra's grammar reads it, whatever characters it holds."""
    # A backslash is one, except before a quotation mark, the closing one included.
    escaped = re.sub(r"(\\*)'", r"\1\1\\'", value)
    trailing = len(escaped) - len(escaped.rstrip("\\"))
    return "'" + escaped + "\\" * trailing + "'"


@cache
def path_keys() -> frozenset[str]:
    """Settings that are names of files or folders: those that the schema marks, and Hydra's."""
    return frozenset(
        {key for key, entry in _knobs(Config).items() if entry.metadata.get("path")} | set(HYDRAS_PATHS),
    )


def knob_of(key: str) -> Field | None:
    """The schema's entry for ``head.depth`` (also ``+head.depth``); None if there is none."""
    return _knobs(Config).get(key.lstrip("+~"))


def known_settings() -> list[str]:
    """The names of all settings."""
    return list(_knobs(Config))


@cache
def _knobs(schema: type) -> dict[str, Field]:
    found: dict[str, Field] = {}
    for entry in fields(schema):
        if is_dataclass(entry.type):
            found |= {f"{entry.name}.{inner.name}": inner for inner in fields(entry.type)}
        else:
            found[entry.name] = entry
    return found


def _takes_text(entry: Field) -> bool:
    return _kind(entry) == "str" and not choices_of(entry)


def _kind(entry: Field) -> str:
    return getattr(entry.type, "__name__", str(entry.type)).removesuffix(" | None")


def _several(argument: str) -> str:
    key, _, value = argument.partition("=")
    entry, kind = knob_of(key), _kind(knob_of(key)) if knob_of(key) else ""
    several = f"{argument} is several values, which only a multirun takes"
    if (conf_folder() / key.partition("@")[0].lstrip("+~")).is_dir():
        return f"{several}; allowed: one choice, or --multirun before it."
    if entry is None or _takes_text(entry):
        return f"{several}; allowed: one value, --multirun before it, or in quotes {typed_line(key, value)}."
    what = allowed(entry)
    if (kind == "float" or isinstance(entry.default, float)) and re.fullmatch(r"-?\d+,\d+", value):
        what += f", with a decimal point ({key}={value.replace(',', '.')})"
    if kind in ("list", "Any"):
        listed = f"a list {key}=[{value}]"
        what = f"{what}, {listed}" if isinstance(entry.default, float) else listed
    return f"{several}; allowed: {what}, or --multirun before it."


def _quote_path(argument: str, sweeping: bool) -> str:
    """``backbone.checkpoint=epoch=9.ckpt`` with quotes around the path, unless Hydra reads it as it stands."""
    key, equals, value = argument.partition("=")
    if not equals or key.lstrip("+") not in path_keys():
        return argument
    try:
        override = OverridesParser.create().parse_override(argument)
    except (HydraException, ValueError) as error:
        if sweeping and "," in value:
            parts = [part.strip() for part in value.split(",")]
            raise ConfigError(
                f"{argument} can be one path or several; allowed in a multirun: {typed_line(key, value)} for one, "
                f"{typed_line(key, *parts)} for {len(parts)}."
            ) from error
        return f"{key}={quoted(value)}"
    read = override.value()
    if override.is_sweep_override():
        plain = sweeping
    else:
        # Whoever types quotes or a backslash knows the grammar; numbers and lists are names like any other.
        plain = read is None or isinstance(read, QuotedString) or _is_quoted(value) or read == value
        plain = plain or (isinstance(read, str) and "\\" in value)
    return argument if plain else f"{key}={quoted(value)}"


def _is_quoted(value: str) -> bool:
    stripped = value.strip()
    return len(stripped) > 1 and stripped[0] == stripped[-1] and stripped[0] in "'\""


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0].rstrip(".").split("': ")[-1] if lines else type(error).__name__


def _expand_home(argument: str) -> str:
    """``data.root=~/data`` with the home folder spelled out: shells leave it alone, Hydra's grammar refuses it."""
    key, equals, value = argument.partition("=")
    return f"{key}={os.path.expanduser(value)}" if equals and value.startswith("~") else argument


def _quote_beyond_ascii(argument: str) -> str:
    """``data.root=Größe`` with quotes around the value, which Hydra's grammar wants around all but ASCII."""
    key, equals, value = argument.partition("=")
    plain = not value.isascii() and value.isprintable() and not re.search(r"""['"\\$,{}()[\]]""", value)
    return f"{key}='{value}'" if equals and key.isascii() and plain else argument


def _plain_keys(argument: str) -> str:
    """``{"blocks.*": cls}`` with its key as Hydra's grammar wants it: no quotes, and its own characters escaped."""

    def plain(match: re.Match) -> str:
        return match[1] + re.sub(r"[\\()\[\]{}:=, \t]", r"\\\g<0>", match[3]) + ":"

    key, equals, value = argument.partition("=")
    if not equals or not value.startswith("{"):
        return argument
    return key + equals + re.sub(r"""([{,]\s*)(["'])([^"'\\]*)\2\s*:""", plain, value)
