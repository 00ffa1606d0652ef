"""What ``resume=FOLDER`` takes from the folder, which may be a stranger's, and what it refuses.

Hydra composes whatever its configuration folders say, and calls what they name. So those that a run folder asks for
have to be the user's own, and lie elsewhere; of Hydra's own settings it may ask for nothing else. The rest are
settings of a run, checked like all others.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any, NoReturn

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from pipeline.cli.arguments import CALLBACKS, NETWORK
from pipeline.config.overrides import readable_override
from pipeline.runtime.errors import ConfigError

SEARCHPATH = "hydra.searchpath"
_FILE = "file://"


def check_kept(run: Path, overrides: Sequence[str], config_folders: Sequence[str]) -> None:
    """Refuse what a run folder may not ask for.

    Args:
        overrides: those kept in ``.hydra/overrides.yaml``.
        config_folders: those given with ``--config-dir``, as ``.hydra/hydra.yaml`` says.

    Raises:
        ConfigError: naming it.
    """
    for folder in config_folders:
        _check_folder(run, folder, f"--config-dir={folder}")
    parser = OverridesParser.create()
    for text in overrides:
        if text.startswith("-"):
            _refuse(run, f"the flag {text}", "key=value")
        try:
            override = parser.parse_override(readable_override(text))
        except (HydraException, ValueError):
            _refuse(run, f"'{text}', which cannot be read", "key=value")
        _check_override(run, text, override)


def _check_override(run: Path, text: str, override: Override) -> None:
    where = override.key_or_group.replace("/", ".")
    if where == SEARCHPATH:
        for folder in _texts(override._value):
            _check_folder(run, folder, text)
    elif where.partition(".")[0] == "hydra" or "hydra" in (override.package or ""):
        _refuse(run, text, f"none of Hydra's own settings but {SEARCHPATH}; say it again on the command line")
    elif where == NETWORK:
        _check_module(run, text, str(override._value).strip("'\""))
    elif where == CALLBACKS:
        for target in _targets(override._value):
            _check_module(run, text, target)
    elif "." not in where:  # perhaps a choice of a group
        for choice in _texts(override._value):
            if os.path.isabs(choice) or ".." in choice.split("/"):
                _refuse(run, text, "the name of a configuration file, not a path to one")


def _check_folder(run: Path, folder: str, said: str) -> None:
    """Refuse a folder of configuration files that lies in the run folder or is not the user's."""
    plain = folder.removeprefix(_FILE)
    if "://" in plain or "${" in plain:
        _refuse(run, said, f"{_FILE} and the path of a folder; say it again on the command line")
    place = Path(os.path.abspath(os.path.expanduser(plain)))
    try:
        place.stat()
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:  # a name that is too long, or has a null character
        _refuse(run, f"{said[:80]}: {getattr(error, 'strerror', None) or error}", "a folder of your own, elsewhere")
    for path in (place, place.resolve()):
        if path.is_relative_to(run) or path.is_relative_to(run.resolve()):
            _refuse(run, f"{said}: that folder lies in the run folder", "a folder of your own, elsewhere")
    for path in _within(place):
        if path.stat().st_uid != os.getuid():
            _refuse(run, f"{said}: {path} is not yours", "a folder of your own with files of your own")
        if path.resolve().is_relative_to(run.resolve()):
            _refuse(run, f"{said}: {path} lies in the run folder", "a folder of your own, elsewhere")


def _within(folder: Path) -> Iterator[Path]:
    """A folder, what leads out of it, and the configuration files in it."""
    if not folder.is_dir():
        return
    yield folder
    for here, _, names in os.walk(folder, followlinks=False):
        yield Path(here)
        yield from (path for name in names if (path := Path(here, name)).suffix == ".yaml" and path.exists())
        yield from (path for path in Path(here).iterdir() if path.is_symlink() and path.is_dir())


def _check_module(run: Path, text: str, target: str) -> None:
    """Refuse a module (of a network, a callback) in the run folder, or somebody else's; it is not imported."""
    here = [os.getcwd(), *sys.path]
    found = PathFinder.find_spec(target.partition(".")[0], here) if target else None
    places = [*(found.submodule_search_locations or ()), *([found.origin] if found.origin else [])] if found else []
    for place in map(Path, places):
        if place.resolve().is_relative_to(run.resolve()):
            _refuse(run, f"{text}: that module lies in the run folder", "a module of your own, elsewhere")
        if place.exists() and place.stat().st_uid not in (os.getuid(), 0):
            _refuse(run, f"{text}: {place} is not yours", "a module of your own")


def _targets(value: Any) -> Iterator[str]:
    """What entries of a parsed list name as ``_target_``; those of a sweep's choices too."""
    if isinstance(value, dict):
        yield from (str(getattr(it, "text", it)).strip("'\"") for key, it in value.items() if str(key) == "_target_")
        value = list(value.values())
    elif not isinstance(value, list):
        value = getattr(value, "list", None) or []
    for item in value:
        yield from _targets(item)


def _texts(value: Any) -> Iterator[str]:
    """All texts within a parsed value; those of a sweep's choices too."""
    if isinstance(value, dict):
        value = [*value, *value.values()]
    elif not isinstance(value, list):
        value = getattr(value, "list", None) or [value]
    for item in value:
        if isinstance(item, list | dict):
            yield from _texts(item)
        elif item is not None:
            yield str(getattr(item, "text", item))


def _refuse(run: Path, what: str, allowed: str) -> NoReturn:
    raise ConfigError(f"resume={run} asks for {what}; allowed: {allowed} (docs/reliability.md: what resume= trusts).")
