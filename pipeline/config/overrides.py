"""Arguments ``key=value`` as Hydra's grammar wants them."""

import os
import re


def readable_override(argument: str) -> str:
    """An argument as Hydra can read it: ``~/`` spelled out, text beyond ASCII in quotes, keys of mappings without."""
    return _quote_beyond_ascii(_plain_keys(_expand_home(argument)))


def quoted(value: str) -> str:
    """A value as Hydra's grammar reads it, whatever characters it holds."""
    # A backslash is one, except before a quotation mark, the closing one included.
    escaped = re.sub(r"(\\*)'", r"\1\1\\'", value)
    trailing = len(escaped) - len(escaped.rstrip("\\"))
    return "'" + escaped + "\\" * trailing + "'"


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
