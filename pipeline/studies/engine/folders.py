"""Where the runs, figures and tables of a reproduction lie.

    OUT/                                the full version: runs/STUDY/POINT, figures, tables
    OUT/quick, OUT/cpu                  smaller versions, which never replace a larger one
    OUT/quick/head.width=16             a variation, named after the settings given on the command line

A folder of runs so holds one experiment, and another command never overwrites it.
"""

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

from pipeline.studies.engine.study import FULL

INCIDENTAL = (
    "data.download",
    "features.cache",
    "logger",
    "record.figures",
    "trainer.threads",
    "trainer.checkpoint_seconds",
)
"""Settings, or sections of them, that say how a run is made and watched, and not what comes out."""
UNNAMED = ("data.root", *INCIDENTAL)
"""Those by which no variation is named. Where images lie is no variation, yet may mean other images."""
LONGEST = 120
"""Characters of a variation's name; file systems take 255 bytes."""


def folder_of(out: Path, version: str, overrides: Sequence[str]) -> Path:
    """The folder of a version of the studies with these settings changed, as an absolute path."""
    folder = out.absolute() if version == FULL else out.absolute() / version
    name = variation_name(overrides)
    return folder / name if name else folder


def variation_name(overrides: Sequence[str]) -> str:
    """What varies, as the name of a folder; empty if nothing does.

    The order of the overrides does not matter, nor do brackets. Where other characters than letters, digits and
    ``._=+,-`` had to go, or the middle of a long name, a checksum tells names apart.
    """
    last = {override.partition("=")[0].lstrip("+"): override for override in overrides}
    named = ",".join(last[key].lstrip("+") for key in sorted(last) if not is_within(key, UNNAMED))
    plain = re.sub(r"[\[\]]", "", named)
    safe = re.sub(r"[^A-Za-z0-9._=+,-]", "_", plain)
    if safe == plain and len(safe) <= LONGEST:
        return safe
    return f"{safe[:LONGEST]}-{hashlib.sha256(named.encode()).hexdigest()[:8]}"


def is_within(key: str, names: Sequence[str]) -> bool:
    """Whether a setting is one of these, or in one of these sections."""
    return any(key == name or key.startswith(f"{name}.") for name in names)
