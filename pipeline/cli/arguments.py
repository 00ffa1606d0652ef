"""The command line before Hydra reads it: what it may say, and what of it is refused.

Hydra calls whatever a ``_target_`` names (callbacks, launchers, log handlers) and unpickles the file that
``--experimental-rerun`` names. On the command line this pipeline lets neither happen: only ``backbone._target_`` is
taken, which has to be a network (`pipeline.networks.architectures.custom`), and those in ``trainer.callbacks``, which
have to be callbacks of Lightning's (`pipeline.runs.training.callbacks`). Configuration files of one's own
(``--config-dir``) are code of one's own and are not restricted.
"""

import re
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.types import Override

from pipeline.config.overrides import check_single, parsed_override, readable_override
from pipeline.runtime.errors import ConfigError

NETWORK = "backbone._target_"
CALLBACKS = "trainer.callbacks"
OPEN = ("run", "sweep", "job", "verbose", "mode", "searchpath")
"""Sections of Hydra's own settings that may be set, or replaced, by an argument."""
KEYED = ("launcher", "sweeper")
"""Those that Hydra makes an object of: keys within may be set, what is made may be chosen (``hydra/launcher=...``)."""
DEEPEST = 50
"""Brackets within brackets; Hydra's parser calls itself for each."""


def readable(arguments: list[str]) -> list[str]:
    """The arguments as Hydra can read them: flags first, ``~/`` spelled out, paths and text beyond ASCII in quotes.

    Raises:
        ConfigError: an argument is no text, cannot be read, or asks for code to be run that is not a network.
    """
    for argument in arguments:
        _check_text(argument)
    arguments = [part for argument in arguments for part in _several_loggers(argument)]
    flags = flags_of(arguments)
    if flags.experimental_rerun is not None:
        raise ConfigError("--experimental-rerun runs what a pickle says; allowed: the arguments of that run again.")
    sweeping = may_sweep(flags)
    arguments = [readable_override(argument, sweeping=sweeping) for argument in arguments]
    for argument in flags_of(arguments).overrides:
        override = parsed_override(argument)
        _check_override(argument, override)
        if not sweeping:
            check_single(argument, override)
    return _flags_first(arguments)


def _flags_first(arguments: list[str]) -> list[str]:
    """Hydra's parser does not take overrides on both sides of a flag."""
    overrides = flags_of(arguments).overrides
    left = iter(overrides)
    following = next(left, None)
    flags = []
    for argument in arguments:
        if argument == following:
            following = next(left, None)
        else:
            flags.append(argument)
    return [*flags, *overrides]


def _several_loggers(argument: str) -> list[str]:
    """``logger=[wandb,csv]``, which is no choice of Hydra's, as the choice and the setting that it means."""
    found = re.fullmatch(r"logger=\[\s*(\w+)\s*((?:,\s*\w+\s*)*)\]", argument)
    if not found:
        return [argument]
    first, others = found.groups()
    return [f"logger={first}", *([f"logger.also=[{others.lstrip(',')}]"] if others else [])]


def may_sweep(flags: Namespace) -> bool:
    """Whether a comma may separate the values of a multirun: flags, or files of the user's own, may ask for one."""
    if flags.multirun or flags.shell_completion:
        return True
    if any(override.startswith(("hydra.mode=", "hydra.searchpath=")) for override in flags.overrides):
        return True
    own = Path(flags.config_dir).rglob("*.yaml") if flags.config_dir else ()
    return any(b"MULTIRUN" in file.read_bytes() for file in own if file.is_file())


def flags_of(arguments: list[str]) -> Namespace:
    """What Hydra's flags say (``cfg``, ``package``, ``overrides``, ...).

    Raises:
        ConfigError: an unknown flag, or one without its value.
    """
    parser = get_args_parser()
    parser.error = _refuse_flags  # type: ignore[method-assign]  # its own prints several lines
    return parser.parse_intermixed_args([argument for argument in arguments if argument not in ("--version", "-sc")])


def _check_text(argument: str) -> None:
    if re.search("[\0\ud800-\udfff]", argument):  # surrogates: bytes that are not UTF-8
        raise ConfigError(f"argument {argument!a} is no text; allowed: text in UTF-8.")
    depth = 0
    for bracket in re.findall(r"[][(){}]", argument):
        depth += 1 if bracket in "[({" else -1
        if depth > DEEPEST:
            raise ConfigError(f"argument {argument[:40]!a}... nests too deep; allowed: at most {DEEPEST} brackets.")


def _refuse_flags(message: str) -> NoReturn:
    raise ConfigError(
        f"{message}; allowed: key=value, group=choice, --multirun, --cfg, --config-dir, --quiet, --verbose, --help."
    )


def _check_override(argument: str, override: Override) -> None:
    key = override.key_or_group
    where = key.replace("/", ".").split(".")
    hydras = where[0] == "hydra"
    if override.package is not None and "hydra" in f"{key}@{override.package}":
        raise _not_here(argument)
    if hydras and "/" not in key and not _may_be_set(where):
        raise _not_here(argument)
    if key not in (NETWORK, CALLBACKS) and (where[-1] == "_target_" or "_target_" in _keys(override._value)):
        raise _not_here(argument)
    # Of a part of the configuration that names a _target_, say.
    if key == "hydra.run.dir" and override._value in (None, ""):
        raise ConfigError(f"{argument} names no folder; allowed: a new folder.")
    if hydras and where[1:2] and where[1] in KEYED and "${" in argument:
        raise _not_here(argument)


def _may_be_set(where: list[str]) -> bool:
    return len(where) > 1 and (where[1] in OPEN or (where[1] in KEYED and len(where) > 2))


def _not_here(argument: str) -> ConfigError:
    return ConfigError(
        f"'{argument}' could run code of any kind or switch off checks, so no argument may say it; allowed: {NETWORK}, "
        f"{CALLBACKS}, "
        "hydra.run.dir, hydra.sweep, hydra.launcher.KEY, hydra/launcher=CHOICE, or a file of your own in --config-dir."
    )


def _keys(value: Any) -> Iterator[str]:
    """All keys of dictionaries within a parsed value; those of a sweep's choices too."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield str(key)
            yield from _keys(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _keys(inner)
    elif isinstance(getattr(value, "list", None), list):
        yield from _keys(value.list)
