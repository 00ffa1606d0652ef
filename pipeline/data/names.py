"""Names of files and folders in sentences, and which of them are the system's and not the user's."""

import os
from pathlib import Path

SYSTEM_NAMES = frozenset(
    [
        *("thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__macosx", "@eadir", "$recycle.bin"),
        *("system volume information", "lost+found", "__pycache__"),
    ]
)
"""Files and folders, in lower case, that operating systems and other programs leave behind."""


def is_hidden(name: str) -> bool:
    """Whether a name begins with a dot, or is one that a system gives."""
    return name.startswith(".") or name.casefold() in SYSTEM_NAMES


def shown(path: Path | str) -> str:
    """A path as it can be printed anywhere: bytes that are not UTF-8 as ``\\xe9``."""
    return os.fsencode(path).decode(errors="backslashreplace")


def is_utf8(name: str) -> bool:
    """Whether the bytes of a name are UTF-8."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
