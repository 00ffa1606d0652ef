"""Settings that are paths: they mean the folder in which the command was given, wherever the run goes on."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from pipeline.config.overrides import quoted, readable_override

PATHS = (
    "data.root",
    "data.foreign_root",
    "data.cache",
    "backbone.from_run",
    "backbone.checkpoint",
    "backbone.checkpoints",
    "features.cache",
    "features.anchor",
    "protocol.targets",
    "protocol.start_file",
)
"""Not all that the schema marks as names of files: those of vectors (data.file) are seen from data.root."""
WORDS = {"protocol.targets": ("labels", "teacher"), "features.anchor": ("none", "inputs")}
"""What these settings may say instead of a path."""


def absolute(value: Any, place: Path) -> Any:
    """A path as seen from ``place``, which was the working directory; anything else as it is."""
    if not isinstance(value, str) or not value or "${" in value:
        return value
    return os.path.normpath(place / os.path.expanduser(value))


def absolute_setting(key: str, value: Any, place: Path) -> Any:
    """What a setting that is a path says, as seen from ``place``; a word that it may say instead stays as it is."""
    return value if value in WORDS.get(key, ()) else absolute(value, place)


def elsewhere(place: Path) -> bool:
    """Whether a working directory of before is another than now, and still there."""
    return place.is_absolute() and place != Path.cwd() and place.is_dir()


def value_of(config: Mapping[str, Any], key: str) -> Any:
    """What a plain configuration says of ``data.root``; None if nothing."""
    found: Any = config
    for part in key.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found


def absolute_override(override: str, place: Path) -> str:
    """An argument, as Hydra has kept it, in which paths are as seen from ``place``; also each choice of a sweep."""
    if override.partition("=")[0].lstrip("+") not in PATHS:
        return override
    try:
        parsed = OverridesParser.create().parse_override(readable_override(override))
    except (HydraException, ValueError):
        return override  # Hydra says what is wrong with it
    if parsed.is_sweep_override():
        if not parsed.is_choice_sweep():
            return override
        values = [getattr(value, "text", value) for value in parsed.value().list]
    else:
        values = [parsed.value()]
    key = override.partition("=")[0].lstrip("+")
    if not all(isinstance(value, str) for value in values) or set(values) & set(WORDS.get(key, ())):
        return override  # null
    return f"{override.partition('=')[0]}={','.join(_typed(absolute(value, place)) for value in values)}"


def settled_paths(config: Mapping[str, Any], place: Path) -> Iterator[str]:
    """Arguments for the relative paths of a configuration, as seen from ``place``."""
    for key in PATHS:
        value = value_of(config, key)
        if (settled := absolute_setting(key, value, place)) != value:
            yield f"{key}={_typed(settled)}"


def _typed(value: str) -> str:
    return value if "${" in value else quoted(value)
